"""What a run is on disk: its configuration, stages and tables."""
