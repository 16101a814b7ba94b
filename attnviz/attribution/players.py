"""The words of a caption that attribution is shared among, and the caption without some of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from attnviz.errors import PromptError
from attnviz.maps.words import words_with_maps
from attnviz.text.tokens import TokenTable

Phrase = str | tuple[int, int]


@dataclass(frozen=True)
class Player:
    """A word, or a phrase whose words are left out together.

    Attributes
    ----------
    text : str
    spans : tuple of (int, int)
        Character spans of its words in the caption.
    positions : tuple of int
        Key positions of its tokens, over all encoders.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    positions: tuple[int, ...]


def players_of(tokens: TokenTable, phrases: Sequence[Phrase] | None = None) -> list[Player]:
    """Return the players of a caption: its phrases, if given, and each other word by itself.

    Parameters
    ----------
    tokens : TokenTable
    phrases : sequence of str or (int, int), optional
        Phrases of the caption, as in `TokenTable.find`. By default, each word is a player of its own.

    Raises
    ------
    PromptError
        If a phrase is not in the caption or was cut off, two phrases share a word, or no word has a token.
    """
    words = words_with_maps(tokens, range(len(tokens)))
    if not words:
        raise PromptError(
            f"No word of the caption {tokens.prompt!r} has a token, so there is nothing to attribute to."
        )
    owners: dict[int, int] = {}
    grouped: list[list[int]] = []
    for number, phrase in enumerate(phrases or ()):
        positions = set(tokens.find(phrase).tolist())
        members = [at for at, word in enumerate(words) if positions.intersection(word.positions)]
        if taken := [words[at].text for at in members if at in owners]:
            raise PromptError(
                f"{phrase!r} shares the word {taken[0]!r} with another phrase; each word belongs to one."
            )
        owners |= dict.fromkeys(members, number)
        grouped.append(members)
    grouped += [[at] for at in range(len(words)) if at not in owners]
    grouped = sorted((each for each in grouped if each), key=min)
    return [
        Player(
            " ".join(words[at].text for at in members),
            tuple(words[at].span for at in members),
            tuple(sorted(position for at in members for position in words[at].positions)),
        )
        for members in grouped
    ]


def without(caption: str, players: Collection[Player]) -> str:
    """Return a caption without some players, with the punctuation and white space that remain tidied.

    Returns
    -------
    str
        Empty if no letter or digit is left.

    Examples
    --------
    >>> from attnviz.testing import example_maps
    >>> dog, barks = players_of(example_maps().tokens[0])[1:3]
    >>> without("a dog barks, then rain falls", [dog])
    'a barks, then rain falls'
    >>> without("a dog barks, then rain falls", [dog, barks])
    'a, then rain falls'
    """
    if not players:
        return caption
    kept = np.ones(len(caption), dtype=bool)
    for player in players:
        for start, end in player.spans:
            kept[start:end] = False
    text = "".join(character for character, keep in zip(caption, kept, strict=True) if keep)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+([,.;:!?])", r"\1", text)
    text = re.sub(r"([,;:])(?:\s*[,;:])+", r"\1", text)
    text = re.sub(r"^[\s,.;:!?]+", "", text).strip()
    return text if any(character.isalnum() for character in text) else ""
