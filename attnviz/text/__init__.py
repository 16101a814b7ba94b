"""The token table: encoder, token, span and word of every key position."""

from attnviz.text.tokenize import clip_token_table, token_table, tokenize
from attnviz.text.tokens import KINDS, TokenTable

__all__ = [
    "KINDS",
    "TokenTable",
    "clip_token_table",
    "token_table",
    "tokenize",
]
