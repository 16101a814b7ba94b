"""Explaining: maps of a real clip, which no pipeline generated."""

from attnviz.explaining.randomizing import cascade
from attnviz.explaining.reading import explain

__all__ = ["cascade", "explain"]
