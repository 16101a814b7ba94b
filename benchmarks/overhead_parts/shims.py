"""Minimal shims for running other tools with current libraries.

Each shim has a name, which is listed in the results.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

SPACY = "spacy stand-in: daam imports spacy at load, for parsing prompts only; not used while capturing"


def stand_in_for_spacy() -> None:
    """Allow importing daam without spacy, which is not used in the measurements."""
    if "spacy" in sys.modules or importlib.util.find_spec("spacy") is not None:
        return
    spacy, tokens = ModuleType("spacy"), ModuleType("spacy.tokens")
    tokens.Token = type("Token", (), {})  # type: ignore[attr-defined]  # named in an annotation
    spacy.tokens = tokens  # type: ignore[attr-defined]
    sys.modules["spacy"], sys.modules["spacy.tokens"] = spacy, tokens
