"""Split a prompt into words, and find phrases in it: plain text, no tokenizer.

A **word** is a run of characters between white space and marks: punctuation (Unicode class P), mathematical and
currency symbols (``<``, ``$``). "dog,rain" and "rain/wind" are two words each. A single apostrophe or hyphen
inside a word stays ("don't", "half-open"), and so does a decimal point, comma, colon or slash between two digits
("3,000", "24/7"). Invisible control and format characters are stripped at both ends. An emoji is a word. Scripts
written without spaces (Chinese, Japanese, Thai) give one word per run; `find_phrase` finds any part of it.

Comparison ignores case and the composition of accents: text is case-folded and canonically decomposed, character
by character, so that every match has an exact span in the original prompt.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_MARK_CATEGORIES = ("Sm", "Sc")  # and all of P
_ASCII_MODIFIERS = frozenset("^`")
# Marks that stay inside a word: hyphens, apostrophes, the Catalan dot, the Tibetan syllable mark.
_JOINERS = frozenset("-'") | frozenset(
    "\u2010\u2011\u058a\u05be\u1400\ufe63\uff0d\u2018\u2019\u05f3\u05f4\uff07\u00b7\u0387\u0f0b\u0f0c"
)
_BETWEEN_DIGITS = frozenset(".,:/")
# Scripts without spaces between words: a phrase may start or end anywhere in them.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "BOPOMOFO", "TIBETAN")


@dataclass(frozen=True)
class Word:
    """One word of a prompt.

    Attributes
    ----------
    text : str
        The word as written.
    start, end : int
        Character span in the prompt.
    occurrence : int
        Number of earlier words that are equal (ignoring case and accent composition).
    """

    text: str
    start: int
    end: int
    occurrence: int


def _is_mark(character: str) -> bool:
    # Decomposed, as in `fold`: the Greek varia alone is a grave accent.
    character = unicodedata.normalize("NFD", character)[0]
    category = unicodedata.category(character)
    return category[0] == "P" or category in _MARK_CATEGORIES or character in _ASCII_MODIFIERS


def _strippable(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "Z" or category in ("Cc", "Cf") or _is_mark(character)


def _separates(text: str, at: int) -> bool:
    """Whether a character separates words: white space, or a mark that joins nothing."""
    character = text[at]
    if character.isspace():
        return True
    if not _is_mark(character):
        return False
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if character in _JOINERS:
        return not all(each and not each.isspace() and not _is_mark(each) for each in (before, after))
    return not (character in _BETWEEN_DIGITS and before.isdigit() and after.isdigit())


def strip_span(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span without surrounding punctuation, white space and invisible characters."""
    while start < end and _strippable(text[start]):
        start += 1
    while end > start and _strippable(text[end - 1]):
        end -= 1
    return start, end


def trim_span(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span without surrounding white space; it may become empty."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def is_blank(text: str) -> bool:
    """Whether `text` has no visible character: only white space, control and format characters."""
    return all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in text)


def fold(text: str) -> tuple[str, list[int]]:
    """Return the folded text and, for each of its characters, the index of the original character."""
    folded: list[str] = []
    origin: list[int] = []
    for i, character in enumerate(text):
        piece = unicodedata.normalize("NFD", unicodedata.normalize("NFD", character).casefold())
        folded.append(piece)
        origin.extend([i] * len(piece))
    return "".join(folded), origin


@lru_cache(maxsize=256)
def split_words(prompt: str) -> tuple[Word, ...]:
    """Return the words of a prompt in order.

    Examples
    --------
    >>> [word.text for word in split_words("A dog,half-open & the dog's DOG...rain!")]
    ['A', 'dog', 'half-open', 'the', "dog's", 'DOG', 'rain']
    >>> split_words("a dog and another Dog")[-1]
    Word(text='Dog', start=18, end=21, occurrence=1)
    """
    words: list[Word] = []
    seen: dict[str, int] = {}
    i = 0
    while i < len(prompt):
        if _separates(prompt, i):
            i += 1
            continue
        stop = i
        while stop < len(prompt) and not _separates(prompt, stop):
            stop += 1
        start, end = strip_span(prompt, i, stop)
        if start < end:
            text = prompt[start:end]
            key, _ = fold(text)
            words.append(Word(text, start, end, seen.get(key, 0)))
            seen[key] = seen.get(key, 0) + 1
        i = stop
    return tuple(words)


def word_at(words: tuple[Word, ...], start: int, end: int) -> Word | None:
    """Return the first word that shares a character with the span, or None."""
    return next((word for word in words if word.start < end and start < word.end), None)


def find_phrase(prompt: str, phrase: str) -> list[tuple[int, int]]:
    """Return the spans at which a phrase occurs in a prompt, in order.

    Punctuation and white space around the phrase are ignored; white space inside it matches any white space.
    If some matches start and end at word boundaries, only those are returned ("dog" in "the dog's dog" matches the
    second). Otherwise, matches whose ends do not cut through letters or digits are returned ("open" in
    "half-open", "狗" in "狗叫", "&"). "og" is not found in "dog".

    Examples
    --------
    >>> find_phrase("A dog barks, then another DOG", "dog")
    [(2, 5), (26, 29)]
    >>> find_phrase("A dog barks, then another DOG", "barks then")
    []
    >>> find_phrase("the half-open door", "open")
    [(9, 13)]
    """
    start, end = strip_span(phrase, 0, len(phrase))
    if start == end:  # punctuation only: searched for as given
        start, end = trim_span(phrase, 0, len(phrase))
    wanted, _ = fold(_one_space(phrase[start:end]))
    spans = _matches(prompt, wanted)
    words = split_words(prompt)
    starts, ends = {word.start for word in words}, {word.end for word in words}
    whole = [(s, e) for s, e in spans if s in starts and e in ends]
    return whole or [(s, e) for s, e in spans if not (_joined(prompt, s) or _joined(prompt, e))]


def _one_space(text: str) -> str:
    return " ".join(text.split())


def _matches(prompt: str, wanted: str) -> list[tuple[int, int]]:
    if not wanted:
        return []
    folded, origin = fold(prompt)
    # Each run of white space becomes one space with the index of the run's start.
    characters: list[str] = []
    index: list[int] = []
    for character, i in zip(folded, origin, strict=True):
        if character.isspace():
            if characters and characters[-1] == " ":
                continue
            character = " "  # noqa: PLW2901
        characters.append(character)
        index.append(i)
    text = "".join(characters)
    spans: list[tuple[int, int]] = []
    at = text.find(wanted)
    while at >= 0:
        stop = at + len(wanted)
        # A match may not begin or end inside the expansion of one character (as "s" in a folded sharp s).
        whole_start = at == 0 or index[at - 1] != index[at]
        whole_end = stop == len(text) or index[stop - 1] != index[stop]
        if whole_start and whole_end:
            spans.append((index[at], index[stop - 1] + 1))
        at = text.find(wanted, at + 1)
    return spans


def _joined(prompt: str, at: int) -> bool:
    """Whether the characters on both sides of a position belong to one word and cannot be separated."""
    if at <= 0 or at >= len(prompt):
        return False
    before, after = prompt[at - 1], prompt[at]
    if unicodedata.category(after)[0] == "M" or after == "\u200d" or before == "\u200d":
        return True  # a combining mark, or the joiner inside an emoji, belongs to the character before it
    if unicodedata.category(before)[0] not in "LNM" or unicodedata.category(after)[0] not in "LNM":
        return False
    return not (_unspaced(before) or _unspaced(after))


def _unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_UNSPACED)
