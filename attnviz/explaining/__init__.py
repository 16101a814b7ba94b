"""Compute attention maps of real audio."""

from attnviz.explaining.explanation import explain
from attnviz.explaining.randomizing import cascade

__all__ = ["cascade", "explain"]
