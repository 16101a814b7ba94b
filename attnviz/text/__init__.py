"""Text encoders with their adapters, and the token table: encoder, token, span and word of every key position."""

from attnviz.text.adapter import Adapter
from attnviz.text.conditioner import ConditionSpec, TextConditioner
from attnviz.text.tokenize import clip_token_table, token_table, tokenize
from attnviz.text.tokens import KINDS, TokenTable

__all__ = [
    "KINDS",
    "Adapter",
    "ConditionSpec",
    "TextConditioner",
    "TokenTable",
    "clip_token_table",
    "token_table",
    "tokenize",
]
