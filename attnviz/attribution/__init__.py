"""Compute attention maps of real audio."""

from attnviz.attribution.explanation import explain
from attnviz.attribution.randomizing import cascade

__all__ = ["cascade", "explain"]
