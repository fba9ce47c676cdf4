"""What the bridge and the stream worker agree on; imports neither."""

__version__ = "0.1.0"
