"""Find the words of a prompt that have stored maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from attnviz.text.tokens import TokenTable
from attnviz.text.words import fold, split_words


@dataclass(frozen=True)
class StoredWord:
    """One occurrence of a word in a prompt with all of its tokens stored.

    Attributes
    ----------
    text : str
        The word as spelled in the prompt.
    occurrence : int
        Index of the occurrence, from 0.
    span : (int, int)
        Character span in the prompt, which identifies the word also if it is repeated.
    positions : tuple of int
        Key positions of its tokens, over all encoders.
    repeated : bool
        Whether the word occurs more than once in the prompt.
    """

    text: str
    occurrence: int
    span: tuple[int, int]
    positions: tuple[int, ...]
    repeated: bool

    @property
    def label(self) -> str:
        """The word, followed by its occurrence if it is repeated: ``"dog (2nd)"``."""
        return f"{self.text} ({_ordinal(self.occurrence + 1)})" if self.repeated else self.text


def words_with_maps(table: TokenTable, stored: Iterable[int], encoder: int | None = None) -> list[StoredWord]:
    """Return the words with all tokens stored, in the order of the prompt.

    Words that were truncated or not stored are omitted.

    Parameters
    ----------
    table : TokenTable
        Tokens of the prompt.
    stored : iterable of int
        Stored key positions.
    encoder : int, optional
        Consider the tokens of this encoder only.
    """
    rows = table.rows[table.rows["kind"] == "text"]
    if encoder is not None:
        rows = rows[rows["encoder"] == encoder]
    starts, ends = rows["start"].to_numpy(), rows["end"].to_numpy()
    positions = rows["position"].to_numpy()
    at_hand = frozenset(int(position) for position in stored)
    words = split_words(table.prompt)
    times = Counter(fold(word.text)[0] for word in words)
    found: list[StoredWord] = []
    for word in words:
        own = tuple(int(position) for position in positions[(starts < word.end) & (ends > word.start)])
        if own and at_hand.issuperset(own):
            repeated = times[fold(word.text)[0]] > 1
            found.append(StoredWord(word.text, word.occurrence, (word.start, word.end), own, repeated))
    return found


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
