"""Compression: the straight line from a dense network to a smaller one, and the joint search over it."""

from luthier.compression.verb import compress

__all__ = ["compress"]
