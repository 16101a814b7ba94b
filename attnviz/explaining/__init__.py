"""Explaining: maps of a real clip, which no pipeline generated."""

from attnviz.explaining.reading import explain

__all__ = ["explain"]
