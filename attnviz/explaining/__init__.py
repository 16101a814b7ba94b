"""Compute attention maps of real audio."""

from attnviz.explaining.randomizing import cascade
from attnviz.explaining.reading import explain

__all__ = ["cascade", "explain"]
