"""The token table: encoder, token, span and word of every key position of the cross-attention."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import numpy as np
import pandas as pd

from attnviz.arguments import public
from attnviz.errors import MapsError, PromptError
from attnviz.io.json_files import parse_json
from attnviz.text.words import find_phrase, fold, split_words
from attnviz.wording import short_repr

KINDS = (
    "start", "text", "end", "padding", "template", "duration", "latent", "lyrics", "timbre", "audio",
)  # fmt: skip
"""Kinds of key positions. Only ``"text"`` stands for words of the prompt: ``"template"`` is text that a pipeline
writes around it, ``"duration"``, ``"timbre"`` and ``"audio"`` embed other inputs, and ``"latent"`` are vectors
generated from the prompt."""
COLUMNS = ("encoder", "position", "token_id", "text", "start", "end", "word", "occurrence", "kind")
_TEXT_COLUMNS = ("text", "word", "kind")
_FORMAT = 1


def make_rows(rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """Return the rows as a data frame with `COLUMNS`, integers as int64."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(COLUMNS)
    data = {
        name: pd.Series(list(column), dtype="str" if name in _TEXT_COLUMNS else "int64")
        for name, column in zip(COLUMNS, columns, strict=True)
    }
    return pd.DataFrame(data)


@dataclass(frozen=True, eq=False)
class TokenTable:
    """One row per key position of the cross-attention.

    Attributes
    ----------
    prompt : str
        The prompt as given. Every character span below is a span of this string.
    rows : pandas.DataFrame
        Columns, in this order:

        ``encoder`` (int)
            Index of the text encoder.
        ``position`` (int)
            Key index over all concatenated encoders: 0, 1, 2, ...
        ``token_id`` (int)
            Id passed to the encoder; -1 if the encoder got no token (the adapter layout pads *after* it).
        ``text`` (str)
            Readable form of the token: the characters of the prompt that it covers. A lone space marker (``▁``,
            ``Ġ``) is " ", or "▁" if it shares the next character's span. Start and end tokens are given by name.
        ``start``, ``end`` (int)
            Character span in the prompt, without surrounding white space; -1, -1 if the token has no span.
            Several tokens may share a span: the parts of an emoji, or T5's ``▁`` and the character after it.
        ``word`` (str)
            Word (see `attnviz.text.words`) that the token belongs to, as written; "" for none.
        ``occurrence`` (int)
            0 for the first occurrence of the word in the prompt, 1 for the second, ...; -1 without a word.
        ``kind`` (str)
            One of `KINDS`.
    cut : tuple of int
        For each encoder, the character index at which the prompt was cut off; ``len(prompt)`` if it was not.
    """

    prompt: str
    rows: pd.DataFrame
    cut: tuple[int, ...]

    __repr__ = short_repr

    @property
    def words(self) -> list[str]:
        """Words of the prompt in order, as written, repetitions included."""
        return [word.text for word in split_words(self.prompt)]

    @property
    def cut_words(self) -> list[str]:
        """Words without a token in any encoder, because of the length limit."""
        return [word.text for word in split_words(self.prompt) if self._is_cut(word.start, word.end)]

    @property
    def kept_words(self) -> list[str]:
        """Words with a token in at least one encoder."""
        return [w.text for w in split_words(self.prompt) if self._overlapping(w.start, w.end).size]

    def __len__(self) -> int:
        """Return the number of key positions."""
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TokenTable):
            return NotImplemented
        return self.prompt == other.prompt and self.cut == other.cut and self.rows.equals(other.rows)

    def __hash__(self) -> int:
        return hash((self.prompt, self.cut, len(self.rows)))

    @public
    def find(self, phrase: str | tuple[int, int], occurrence: int | None = None) -> np.ndarray:
        """Return the key positions of a phrase's tokens.

        Parameters
        ----------
        phrase : str or (int, int)
            Text, matched as in `attnviz.text.words.find_phrase`, or a character span of the prompt.
        occurrence : int, optional
            Index of the occurrence, from 0. Required if the text occurs in the prompt more than once.

        Returns
        -------
        numpy.ndarray
            Shape (n,), int64, ascending, n >= 1: every text token of every encoder that shares a character
            with the phrase's span.

        Raises
        ------
        PromptError
            If the phrase is not in the prompt, occurs several times and `occurrence` is None, lacks this
            occurrence, or was cut off in every encoder; if the span is outside the prompt or has no tokens (white
            space, or characters that the tokenizers drop).
        """
        start, end = self.phrase_span(phrase, occurrence)
        positions = self._overlapping(start, end)
        if positions.size:
            return positions
        given = self.prompt[start:end]
        if self._is_cut(start, end):
            raise PromptError(
                f"{given!r} (characters {start} to {end}) was cut off at the length limit of every text encoder,"
                f" so it has no map. Cut off: {_listed(self.cut_words)}. Kept: {_listed(self.kept_words)}."
                " Shorten the prompt, or move this word towards its start."
            )
        raise PromptError(
            f"{given!r} (characters {start} to {end}) has no token: it is white space, or the tokenizers drop its"
            f" characters. Words with tokens: {_listed(self.kept_words)}."
        )

    @public
    def phrase_span(self, phrase: str | tuple[int, int], occurrence: int | None = None) -> tuple[int, int]:
        """Return the character span of a phrase in the prompt; parameters and errors as in `find`."""
        if not isinstance(phrase, str):
            return self._checked_span(phrase, occurrence)
        spans = find_phrase(self.prompt, phrase)
        if not spans:
            self._refuse_unknown(phrase)
        if occurrence is None:
            if len(spans) > 1:
                listed = ", ".join(f"occurrence={i}: characters {s} to {e}" for i, (s, e) in enumerate(spans))
                raise PromptError(
                    f"{phrase!r} occurs {len(spans)} times in the prompt; choose one ({listed}), or give its span"
                )
            return spans[0]
        if isinstance(occurrence, bool) or not isinstance(occurrence, (int, np.integer)):
            raise PromptError(f"occurrence is an integer counted from 0; got {occurrence!r}")
        if not 0 <= occurrence < len(spans):
            raise PromptError(
                f"{phrase!r} has no occurrence {occurrence}: it occurs {_times(len(spans))} in the prompt, and"
                f" occurrences are counted from 0 (allowed: 0 to {len(spans) - 1})"
            )
        return spans[int(occurrence)]

    @public
    def positions(self, kind: str, encoder: int | None = None) -> np.ndarray:
        """Return the key positions of one kind of token.

        Parameters
        ----------
        kind : str
            One of `KINDS`.
        encoder : int, optional
            Restrict to this encoder.

        Returns
        -------
        numpy.ndarray
            Shape (n,), int64, ascending; may be empty (T5 has no start token).

        Raises
        ------
        PromptError
            If `kind` or `encoder` does not exist.
        """
        if kind not in KINDS:
            raise PromptError(f"unknown kind of token {kind!r}; known: {', '.join(KINDS)}")
        chosen = self.rows["kind"] == kind
        if encoder is not None:
            if not 0 <= encoder < len(self.cut):
                raise PromptError(f"no encoder {encoder}; there are {len(self.cut)}, counted from 0")
            chosen &= self.rows["encoder"] == encoder
        return self.rows.loc[chosen, "position"].to_numpy(dtype=np.int64, copy=True)

    def to_json(self) -> str:
        """Return the table as JSON text for `from_json`."""
        columns = {name: self.rows[name].tolist() for name in COLUMNS}
        content = {"format": _FORMAT, "prompt": self.prompt, "cut": list(self.cut), "rows": columns}
        return json.dumps(content, ensure_ascii=True)

    @classmethod
    @public
    def from_json(cls, text: str) -> TokenTable:
        """Return the table from the JSON text of `to_json`.

        Raises
        ------
        MapsError
            If the text is not a token table: not JSON, another format, a missing column, a wrong type, columns of
            different lengths, a span outside the prompt.
        """
        content = parse_json(text, "a token table", error=MapsError, hint="Is the file damaged?")
        _check_content(content)
        columns = content["rows"]
        rows = make_rows(list(zip(*(columns[name] for name in COLUMNS), strict=True)))
        return cls(prompt=content["prompt"], rows=rows, cut=tuple(content["cut"]))

    def _overlapping(self, start: int, end: int) -> np.ndarray:
        rows = self.rows
        chosen = (rows["kind"] == "text") & (rows["start"] < end) & (rows["end"] > start)
        return rows.loc[chosen, "position"].to_numpy(dtype=np.int64, copy=True)

    def _is_cut(self, start: int, end: int) -> bool:
        return any(cut < end for cut in self.cut) and not self._overlapping(start, end).size

    def _checked_span(self, span: tuple[int, int], occurrence: int | None) -> tuple[int, int]:
        whole = isinstance(span, tuple) and len(span) == 2
        if not whole or not all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in span):
            raise PromptError(f"a phrase is text or a span (start, end) of two integers; got {span!r}")
        if occurrence is not None:
            raise PromptError(f"a span already determines the occurrence: omit occurrence={occurrence}")
        start, end = int(span[0]), int(span[1])
        if not 0 <= start < end <= len(self.prompt):
            raise PromptError(
                f"the span {span!r} is not in the prompt: 0 <= start < end <= {len(self.prompt)} is required"
                " (characters, the end excluded)"
            )
        return start, end

    def _refuse_unknown(self, phrase: str) -> NoReturn:
        words = split_words(self.prompt)
        length = min(max(len(split_words(phrase)), 1), max(len(words), 1))
        runs = (self.prompt[one.start : other.end] for one, other in zip(words, words[length - 1 :], strict=False))
        near = {fold(run)[0]: run for run in runs}
        close = difflib.get_close_matches(fold(phrase)[0], near, n=1)
        hint = f" Did you mean {near[close[0]]!r}?" if close else ""
        raise PromptError(
            f"{phrase!r} is not in the prompt {self.prompt!r}. Its words: {_listed(self.words)}.{hint}"
            " (Whole words in any case; several words must be adjacent, with the punctuation between them.)"
        )


def _listed(words: Sequence[str]) -> str:
    return ", ".join(repr(word) for word in words) or "none"


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def _check_content(content: object) -> None:
    def refuse(what: str) -> NoReturn:
        raise MapsError(f"not a token table of attnviz: {what} (damaged file, or written by a newer version?)")

    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        refuse(f"expected an object of format {_FORMAT}")
    fields = cast("dict[str, Any]", content)
    prompt, cut, columns = (fields.get(key) for key in ("prompt", "cut", "rows"))
    if not isinstance(prompt, str):
        refuse("prompt is not text")
    if not isinstance(cut, list) or not all(_is_int(c) and 0 <= c <= len(prompt) for c in cut):
        refuse("cut is not a list of character indices of the prompt")
    if not isinstance(columns, dict) or set(columns) != set(COLUMNS):
        refuse(f"its columns are not {', '.join(COLUMNS)}")
    for name in COLUMNS:
        column = columns[name]
        kind = (lambda value: isinstance(value, str)) if name in _TEXT_COLUMNS else _is_int
        if not isinstance(column, list) or not all(kind(value) for value in column):
            refuse(f"column {name!r} is not a list of {'text' if name in _TEXT_COLUMNS else 'integers'}")
    n = len(columns["position"])
    if any(len(columns[name]) != n for name in COLUMNS):
        refuse("its columns differ in length")
    if columns["position"] != list(range(n)):
        refuse("positions do not count from 0")
    if not set(columns["kind"]) <= set(KINDS):
        refuse(f"a kind is not one of {', '.join(KINDS)}")
    if set(columns["encoder"]) != set(range(len(cut))):
        refuse("the encoders of the rows differ from those of the cuts")
    spans = zip(columns["start"], columns["end"], strict=True)
    if not all((s, e) == (-1, -1) or 0 <= s < e <= len(prompt) for s, e in spans):
        refuse("a span lies outside the prompt")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
