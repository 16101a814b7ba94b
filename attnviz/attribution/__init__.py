"""Attribute what a model does to the words of a text: methods that give the same maps, and their controls.

Input: a pipeline, audio and its caption. Output: `AttentionMaps`, whose `content` names method, quantity and sign.
May import `attnviz.capture`, `attnviz.diffusion`, `attnviz.maps` and `attnviz.pipelines`.
"""

from attnviz.attribution.explanation import explain
from attnviz.attribution.randomizing import cascade

__all__ = ["cascade", "explain"]
