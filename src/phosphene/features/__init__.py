"""Images and captions to target latents. One file per feature space."""
