"""Which characters of a caption a phrase is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import pandas as pd

from attnviz.errors import EventsError
from attnviz.events.table import event_table


@runtime_checkable
class Heard(Protocol):
    """What was heard in a clip, such as `attnviz.sounds.Hearing`: events of those classes that a caption names."""

    def of_caption(self, caption: str) -> pd.DataFrame:
        """Return the event table of the classes that a caption names, with their spans."""
        ...


def events_of(events: pd.DataFrame | Heard, caption: str) -> pd.DataFrame:
    """Return the events that belong to one caption.

    Parameters
    ----------
    events : pandas.DataFrame or Heard
        An event table, or what a listener heard. Where a column ``caption`` names captions (a clip of
        AudioGrounding has five), only the rows of this one are kept; rows that name none are, too.
    caption : str
        The caption.

    Returns
    -------
    pandas.DataFrame
        An event table.

    Raises
    ------
    EventsError
        It is no event table, its rows are of other captions alone, or the caption names no class that the listener
        knows.
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
            f"the events are of {len(captions)} captions, {quoted(captions)}, and none of them is the prompt of "
            f"the maps, {caption!r}. Make the maps with the caption as it stands there."
        )
    return table[own].reset_index(drop=True)


def quoted(names: Iterable[str], most: int = 5) -> str:
    """Return names as a message shows them: the first few, in quotes, parted by commas."""
    every = list(names)
    return ", ".join(f"'{name}'" for name in every[:most]) + (", ..." if len(every) > most else "")


def token_spans(caption: str, tokens: Iterable[str]) -> list[tuple[int, int]]:
    """Return the characters of each token of a caption, by position.

    Parameters
    ----------
    caption : str
        The text.
    tokens : iterable of str
        All of its tokens in order, as they stand in it; between two there is white space or nothing.

    Returns
    -------
    list of tuple of int
        ``(start, end)`` of each token.

    Raises
    ------
    EventsError
        A token does not stand where the one before it ended, or the caption goes on after the last.

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
                f"token {number}, {token!r}, is not at character {at} of the caption {caption!r}, where "
                f"{caption[at : at + 20]!r} stands."
            )
        spans.append((at, at + len(token)))
        at += len(token)
    at = _after_space(caption, at)
    if at < len(caption):
        raise EventsError(f"the caption {caption!r} has {caption[at:]!r} after its last token.")
    return spans


def with_spans(table: pd.DataFrame, caption: str) -> pd.DataFrame:
    """Return an event table with the place of each label in a caption.

    Parameters
    ----------
    table : pandas.DataFrame
        An event table. A span that is given stays; a row without times and label needs none.
    caption : str
        The caption. A label is one of its phrases (case is ignored, as is punctuation around it), or a class that
        it names (`attnviz.text.sounds.find_label`): ``"Dog bark"`` in "a dog barks".

    Returns
    -------
    pandas.DataFrame
        The table with the columns `span` and `caption`.

    Raises
    ------
    EventsError
        A label is not in the caption, or more than once (then only a span says which is meant); a given span
        ends after the caption does. The message gives the row.

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
    from attnviz.text.sounds import find_label  # here: the room it is in takes seconds to import

    if span is not None:
        if span[1] > len(caption):
            raise EventsError(f"row {row}: span is {span}; the caption {caption!r} has {len(caption)} characters.")
        return span
    if not label:
        return None
    places = find_label(caption, label)
    if not places:
        raise EventsError(
            f"row {row}: the label {label!r} is not in the caption {caption!r}, as a phrase or as a class that it "
            "names. Is it of another caption? Give the words of the caption as the label, or their span."
        )
    if len(places) > 1:
        raise EventsError(
            f"row {row}: the label {label!r} is in the caption {caption!r} {len(places)} times, at "
            f"{', '.join(f'{start}:{end}' for start, end in places)}. Give the span of the one that is meant."
        )
    return places[0]


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at
