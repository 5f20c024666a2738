"""Latents to pictures. One file per generator."""
