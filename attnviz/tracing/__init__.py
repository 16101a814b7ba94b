"""Traces: the captured attention of each call, joined with its tokens and its audio grid, as maps.

Input: a pipeline or a model of some family. Output: `attnviz.maps.AttentionMaps` of each call, with the settings
of the call. It imports capture, models, maps, text and audio; capture itself knows nothing about words or audio.
"""
