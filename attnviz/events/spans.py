"""Locate phrases in a caption by character span."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import pandas as pd

from attnviz.arguments import public
from attnviz.errors import EventsError
from attnviz.events.table import event_table
from attnviz.wording import counted


@runtime_checkable
class Heard(Protocol):
    """Events detected in a clip, such as `attnviz.listener.Hearing`, which can be selected by caption."""

    @public
    def of_caption(self, caption: str) -> pd.DataFrame:
        """Return the event table of the classes named in a caption, with their spans."""
        ...


@public
def events_of(events: pd.DataFrame | Heard, caption: str) -> pd.DataFrame:
    """Return the events that belong to one caption.

    Parameters
    ----------
    events : pandas.DataFrame or Heard
        An event table, or events detected by a listener. If the table has a column ``caption`` (an AudioGrounding
        clip has five captions), the rows of this caption and the rows without a caption are kept.
    caption : str
        The caption.

    Returns
    -------
    pandas.DataFrame
        An event table.

    Raises
    ------
    EventsError
        If `events` is not an event table or contains rows of other captions only, or if the caption names no class
        that the listener detects.
    """
    if isinstance(events, Heard):
        return events.of_caption(caption)
    table = event_table(events)
    if "caption" not in table.columns:
        return table
    own = table["caption"].map(lambda text: text == caption or pd.isna(text) or text == "").astype(bool)
    if len(table) and not own.any():
        captions = list(dict.fromkeys(table["caption"]))
        raise EventsError(
            f"the events belong to {counted(len(captions), 'caption')}, {quoted(captions)}, and none of these is "
            f"the prompt of the maps, {caption!r}. Use a caption of the events as the prompt, word for word."
        )
    return table[own].reset_index(drop=True)


def quoted(names: Iterable[str], most: int = 5) -> str:
    """Return the first few names for a message, in quotes and separated by commas."""
    every = list(names)
    return ", ".join(f"'{name}'" for name in every[:most]) + (", ..." if len(every) > most else "")


@public
def token_spans(caption: str, tokens: Iterable[str]) -> list[tuple[int, int]]:
    """Return the character span of each token of a caption.

    Parameters
    ----------
    caption : str
        The text.
    tokens : iterable of str
        All tokens of the text in order, spelled as in the text and separated by whitespace or nothing.

    Returns
    -------
    list of tuple of int
        ``(start, end)`` of each token.

    Raises
    ------
    EventsError
        If a token does not follow the previous token, or if text remains after the last token.

    Examples
    --------
    >>> token_spans("a dog, a dog's cat", ["a", "dog", ",", "a", "dog", "'s", "cat"])
    [(0, 1), (2, 5), (5, 6), (7, 8), (9, 12), (12, 14), (15, 18)]
    """
    spans, at = [], 0
    for number, token in enumerate(tokens):
        at = _after_space(caption, at)
        if not caption.startswith(token, at):
            raise EventsError(
                f"token {number}, {token!r}, is not at character {at} of the caption {caption!r}; found "
                f"{caption[at : at + 20]!r}."
            )
        spans.append((at, at + len(token)))
        at += len(token)
    at = _after_space(caption, at)
    if at < len(caption):
        raise EventsError(f"the caption {caption!r} has {caption[at:]!r} after its last token.")
    return spans


@public
def with_spans(table: pd.DataFrame, caption: str) -> pd.DataFrame:
    """Add to an event table the span of each label in a caption.

    Parameters
    ----------
    table : pandas.DataFrame
        An event table. Existing spans are kept. A row without a label gets no span.
    caption : str
        The caption. A label is either one of its phrases (ignoring case and surrounding punctuation) or a class
        that it names (`attnviz.text.sounds.find_label`), such as ``"Dog bark"`` in "a dog barks".

    Returns
    -------
    pandas.DataFrame
        The table with the columns `span` and `caption`.

    Raises
    ------
    EventsError
        If a label is not in the caption, or occurs more than once and has no span, or if an existing span ends
        past the end of the caption. The message gives the row.

    Examples
    --------
    >>> table = event_table([{"clip": "a.wav", "label": "dog barks", "onset": 0.5, "offset": 0.7}])
    >>> with_spans(table, "A dog barks, then rain falls")["span"].tolist()
    [(2, 11)]
    """
    found = event_table(table)
    given = found["span"] if "span" in found.columns else [None] * len(found)
    rows = enumerate(zip(found["label"], given, strict=True))
    found["span"] = pd.Series([_place(row, label, span, caption) for row, (label, span) in rows], dtype=object)
    found["caption"] = caption
    return event_table(found)


def _place(row: int, label: str, span: tuple[int, int] | None, caption: str) -> tuple[int, int] | None:
    from attnviz.text.sounds import find_label  # imported here because it takes seconds

    if span is not None:
        if span[1] > len(caption):
            raise EventsError(f"row {row}: span is {span}; the caption {caption!r} has {len(caption)} characters.")
        return span
    if not label:
        return None
    places = find_label(caption, label)
    if not places:
        raise EventsError(
            f"row {row}: the label {label!r} is neither a phrase of the caption {caption!r} nor a class that it "
            "names. Does it belong to another caption? Use words of the caption as the label, or give their span."
        )
    if len(places) > 1:
        raise EventsError(
            f"row {row}: the label {label!r} occurs {len(places)} times in the caption {caption!r}, at "
            f"{', '.join(f'{start}:{end}' for start, end in places)}. Give the span of one of them."
        )
    return places[0]


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at
