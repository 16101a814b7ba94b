"""Follow a prompt into the text that a model encodes (lower-cased, or inside a template), and its tokens back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from attnviz.errors import CaptureError, PromptError
from attnviz.text.tokenize import check_prompt, tokenize, warn_of_cuts
from attnviz.text.tokens import TokenTable, make_rows
from attnviz.text.words import Word, fold, split_words, word_at

OUTSIDE = -1
"""Origin of a character that does not come from the prompt."""


@dataclass(frozen=True)
class KeySegment:
    """A run of keys of one kind.

    Attributes
    ----------
    kind : str
        ``"text"``, or one of the kinds of `attnviz.text.tokens.KINDS` that stand for no word.
    size : int
        Number of keys; ignored for ``"text"``.
    """

    kind: str
    size: int = 0


def origins(prompt: str, encoded: str, marker: str | None = None) -> list[int]:
    """Return, for each character of the encoded text, the index of the prompt's character that it comes from.

    Parameters
    ----------
    prompt : str
        The prompt as the user gave it.
    encoded : str
        The text that is tokenized.
    marker : str, optional
        Text of a template after which the prompt stands, unchanged.

    Returns
    -------
    list of int
        `OUTSIDE` for a character that a template or a normalization added.

    Raises
    ------
    PromptError
        If letters or digits were added, removed or replaced, so that words cannot be followed.
    """
    if marker is not None:
        start = encoded.find(marker + prompt)
        if start < 0:
            raise PromptError(
                f"The pipeline encodes a text in which the prompt {prompt!r} does not follow {marker!r}, so its "
                "words cannot be located there. Did the template of the pipeline change?"
            )
        start += len(marker)
        return [i - start if start <= i < start + len(prompt) else OUTSIDE for i in range(len(encoded))]
    if encoded == prompt:
        return list(range(len(prompt)))
    wanted, places = fold(prompt)
    folded, own = fold(encoded)
    found = [OUTSIDE] * len(encoded)
    at = 0
    for character, place in zip(folded, own, strict=True):
        if character.isspace():
            continue  # white space may stand for any mark that was dropped
        there = wanted.find(character, at)
        if there < 0 or _has_letters(wanted[at:there]):  # a character that the prompt does not have
            _check_passed(prompt, encoded, character)
            continue
        if found[place] == OUTSIDE:
            found[place] = places[there]
        at = there + 1
    _check_passed(prompt, encoded, wanted[at:])
    return found


def encoded_table(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    ids: Sequence[int],
    segments: Sequence[KeySegment],
    *,
    encoded: str | None = None,
    marker: str | None = None,
    keys: int | None = None,
    warn: bool = True,
) -> TokenTable:
    """Return the token table of a prompt from the token ids that its encoder was given.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    prompt : str
        The prompt as the user gave it. All spans of the table are spans of it.
    ids : sequence of int
        Input of the encoder, padding included.
    segments : sequence of KeySegment
        Segments of the keys, in order; one of them is ``"text"``.
    encoded : str, optional
        Text that was tokenized, if it is not the prompt.
    marker : str, optional
        As in `origins`.
    keys : int, optional
        Number of keys, where padding is moved behind all segments. None: padding stays within the text.
    warn : bool
        Whether to warn about words that were cut off.

    Raises
    ------
    PromptError
        As in `origins`, or if the prompt is empty.
    CaptureError
        If the encoder was given other tokens than those of the text.

    Warns
    -----
    TruncationWarning
        If the prompt is too long for the encoder.
    """
    check_prompt(prompt)
    text = prompt if encoded is None else encoded
    tokens = tokenize(tokenizer, text, len(ids), padded=False)
    before = _padding_before(tokenizer, list(ids), tokens.ids)
    origin = origins(prompt, text, marker)
    words = split_words(prompt)
    changed = text != prompt
    own = [_of_prompt(row, prompt, origin, words, changed) for row in tokens.rows[: len(tokens.ids)]]
    pad = _filled("padding", tokenizer.pad_token or "", tokenizer.pad_token_id)
    if keys is None:
        own = [pad] * before + own + [pad] * (len(ids) - before - len(own))
    rows: list[tuple[Any, ...]] = []
    for segment in segments:
        rows += own if segment.kind == "text" else [_filled(segment.kind, segment.kind, -1)] * segment.size
    if keys is not None:
        rows += [_filled("padding", "", -1)] * (keys - len(rows))
    cut = next((at for at in origin[tokens.cut :] if at != OUTSIDE), len(prompt))
    if warn:
        warn_of_cuts(prompt, [cut])
    placed = [(row[0], position, *row[2:]) for position, row in enumerate(rows)]
    return TokenTable(prompt=prompt, rows=make_rows(placed), cut=(cut,))


def _has_letters(characters: str) -> bool:
    return any(character.isalnum() for character in characters)


def _check_passed(prompt: str, encoded: str, characters: str) -> None:
    """Raise if characters that only one of the two texts has are letters or digits."""
    if _has_letters(characters):
        raise PromptError(
            f"The pipeline changes the prompt {prompt!r} to {encoded!r} before it encodes it, so its words cannot "
            "be located there. Write the prompt as the pipeline does (numbers in words, no abbreviations)."
        )


def _padding_before(tokenizer: PreTrainedTokenizerBase, given: list[int], own: list[int]) -> int:
    """Return the number of padding tokens before the text."""
    for before in (0, len(given) - len(own)):
        rest = given[:before] + given[before + len(own) :]
        if given[before : before + len(own)] == own and all(each == tokenizer.pad_token_id for each in rest):
            return before
    raise CaptureError(
        f"The text encoder was given the tokens {given[:12]}..., but its tokenizer makes {own[:12]}... of the "
        "prompt, so which key is which word is not known. Was the tokenizer replaced during the call?"
    )


def _of_prompt(
    row: tuple[Any, ...], prompt: str, origin: Sequence[int], words: tuple[Word, ...], changed: bool
) -> tuple[Any, ...]:
    """Move a token from the encoded text to the prompt; a token of the template alone becomes one of its kind."""
    encoder, position, token_id, label, start, end, _, _, kind = row
    if kind != "text" or (start < 0 and not changed):
        return row
    inside = [at for at in origin[start:end] if at != OUTSIDE] if start >= 0 else []
    if not inside:
        return encoder, position, token_id, label, -1, -1, "", -1, "template"
    first, last = min(inside), max(inside) + 1
    word = word_at(words, first, last)
    named = ("", -1) if word is None else (word.text, word.occurrence)
    return encoder, position, token_id, prompt[first:last] if label != "▁" else label, first, last, *named, kind


def _filled(kind: str, text: str, token_id: int | None) -> tuple[Any, ...]:
    return 0, 0, -1 if token_id is None else token_id, text, -1, -1, "", -1, kind


__all__ = ["OUTSIDE", "KeySegment", "encoded_table", "origins"]
