"""phosphene: brain activity to the image that was seen, and back."""

from phosphene._version import __version__

__all__ = ["__version__"]
