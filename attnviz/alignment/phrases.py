"""The phrases of a caption that events name, with their activity and curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import pandas as pd

from attnviz.alignment.scored_clips import union
from attnviz.errors import EventsError, PromptError
from attnviz.events import PAST_THE_END, Heard, events_of
from attnviz.events.origin import ORIGIN
from attnviz.events.spans import quoted
from attnviz.events.table import SHORTEST
from attnviz.text.sounds import find_label
from attnviz.text.words import split_words
from attnviz.wording import short_repr

ACTIVE_SHARE = 0.5
"""Minimum fraction of an active column that events cover."""

Draws = tuple[np.ndarray, ...]
"""Maps of one method: a single one, or one per draw, such as seeds of randomized weights."""


@dataclass(frozen=True)
class PhraseEvents:
    """The events of one phrase of a caption.

    Attributes
    ----------
    clip, label : str
        As in the event table.
    span : (int, int)
        Characters of the phrase in the caption.
    source : str or None
        Source recording, or None if the events have no source.
    times : numpy.ndarray, float64, shape (events, 2)
        Onsets and offsets in seconds, ascending and disjoint.
    bands : numpy.ndarray, float64, shape (rows, 4), or None
        Onset, offset, low and high of each event of non-zero length, or None if one has no band.
    zero_length, clipped : int
        Number of events of zero length, which are not scored, and of events cut at the end of the clip.
    sound_class : str
        Value of the column ``class`` of the events; several are joined by commas. Empty if there is no such
        column.
    origin : str
        "listener" if the events were heard by the listener, likewise joined; empty if they were given.
    text : str
        The phrase as written in the caption, where the label may be a class ("dog barks" for "Dog bark"); empty in
        alignments that older versions saved.
    """

    clip: str
    label: str
    span: tuple[int, int]
    source: str | None
    times: np.ndarray
    bands: np.ndarray | None
    zero_length: int
    clipped: int
    sound_class: str = ""
    origin: str = ""
    text: str = ""

    @property
    def name(self) -> str:
        """Displayed name: the text of the phrase, or else its label."""
        return self.text or self.label

    __repr__ = short_repr


@dataclass(frozen=True, eq=False)
class AlignedPhrase:
    """A phrase of a clip: the activity of its sound and the curves to score.

    All arrays exclude columns of padding.

    Attributes
    ----------
    events : PhraseEvents
    sample : int
        Index of the prompt's sample (seed).
    seconds : float
        Duration of the clip.
    column_seconds : float
        Width of a column.
    share : numpy.ndarray, float64, shape (columns,)
        Fraction of each column that events cover.
    curves : mapping of str to tuple of numpy.ndarray (columns,)
        Curves of each method: ``"map"`` and the controls from other maps.
    energy : numpy.ndarray, shape (columns,), or None
        Energy envelope, or None if the maps have no spectrogram.
    mask : numpy.ndarray of bool, shape (rows, columns), or None
        Cells that belong to the sound, if known.
    seeds : mapping of str to int
        Number of maps of each given control, such as weight seeds. Each has the same number of draws.
    heats : mapping of str to tuple of numpy.ndarray (rows, columns)
        Heat maps of `curves`, and the spectrogram as ``"energy"``; only stored if there is a mask.
    """

    events: PhraseEvents
    sample: int
    seconds: float
    column_seconds: float
    share: np.ndarray
    curves: Mapping[str, Draws]
    energy: np.ndarray | None = None
    mask: np.ndarray | None = None
    seeds: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    heats: Mapping[str, Draws] = field(default_factory=lambda: MappingProxyType({}))

    __repr__ = short_repr

    @property
    def active(self) -> np.ndarray:
        """Whether events cover at least half of each column."""
        return self.share >= ACTIVE_SHARE

    @property
    def onset(self) -> float:
        """Onset of the first event in seconds, or NaN if there are no events."""
        return float(self.events.times[0, 0]) if len(self.events.times) else float("nan")

    @property
    def undefined(self) -> str:
        """Reason why the phrase cannot be scored; empty if it can."""
        if not len(self.events.times):
            return "zero-length events only" if self.events.zero_length else "silent in the clip"
        if self.active.all():
            return "over the whole clip"
        return "" if self.active.any() else "shorter than half a column"


def phrase_events(events: pd.DataFrame | Heard, caption: str, seconds: float) -> list[PhraseEvents]:
    """Find the phrases of a caption that events name, in the order of the caption.

    Parameters
    ----------
    events : pandas.DataFrame or Heard
        Event table of one clip, or sounds detected in it. A row with a label and no times is a silent phrase.
    caption : str
        The caption.
    seconds : float
        Duration of the audio.

    Raises
    ------
    EventsError
        If `events` is not an event table, has several clips or only other captions, exceeds the end of the clip by
        more than 50 ms, or has several source recordings for one phrase.
    PromptError
        If a label without a span does not occur exactly once in the caption, as a phrase or as the name of a
        class.
    """
    table = events_of(events, caption)
    clips = sorted(set(table["clip"]))
    if len(clips) > 1:
        raise EventsError(
            f"The events have {len(clips)} clips, {quoted(clips)}, but maps are of one clip. Select its rows, "
            f"events[events['clip'] == {clips[0]!r}], and pool the results with Alignment.concat."
        )
    named = table[(table["label"] != "") | table["onset"].notna()]
    given = named["span"].tolist() if "span" in named.columns else [None] * len(named)
    spans = [
        (int(span[0]), int(span[1])) if span else _span_of(label, caption, clips[0])
        for span, label in zip(given, named["label"].tolist(), strict=True)
    ]
    return [_of_rows(named[[one == span for one in spans]], span, caption, seconds) for span in sorted(set(spans))]


def _span_of(label: str, caption: str, clip: str) -> tuple[int, int]:
    spans = find_label(caption, label)
    if len(spans) == 1:
        return spans[0]
    where = f"The event {label!r} of clip {clip!r}"
    if spans:
        places = ", ".join(f"{caption[start:end]!r} at {start}:{end}" for start, end in spans)
        raise PromptError(
            f"{where} occurs {len(spans)} times in the caption {caption!r}: {places}. Select one occurrence with "
            "the column span, (start, end)."
        )
    words = ", ".join(word.text for word in split_words(caption))
    raise PromptError(
        f"{where} is not in the caption {caption!r}, neither as a phrase nor as a class; the words of the caption "
        f"are {words}. Rename the label to words of the caption, or give their characters in the column span, "
        "(start, end)."
    )


def _of_rows(rows: pd.DataFrame, span: tuple[int, int], caption: str, seconds: float) -> PhraseEvents:
    clip, label = str(rows["clip"].iloc[0]), str(rows["label"].iloc[0])
    times = rows[["onset", "offset"]].to_numpy(dtype=np.float64)
    timed = ~np.isnan(times[:, 0])
    if (times[timed, 1] > seconds + PAST_THE_END).any():
        raise EventsError(
            f"An event of {label!r} in clip {clip!r} ends at {times[timed, 1].max():g} s, but the audio ends at "
            f"{seconds:g} s (tolerance {PAST_THE_END:g} s). Are the times in seconds, and are the events and maps "
            "of the same clip?"
        )
    clipped = int((times[timed, 1] > seconds).sum())
    times = np.minimum(times, seconds)
    lasting = timed & (times[:, 1] - times[:, 0] >= SHORTEST)
    bands = None
    if "low" in rows.columns and rows["low"].to_numpy()[lasting].size and rows["low"][lasting].notna().all():
        bands = np.column_stack([times[lasting], rows[["low", "high"]].to_numpy(dtype=np.float64)[lasting]])
    zero_length = int((timed & ~lasting).sum())
    return PhraseEvents(
        clip, label, span, _source(rows, label, clip), union(times[lasting]), bands, zero_length, clipped,
        _texts(rows, "class"), _texts(rows, ORIGIN), " ".join(caption[slice(*span)].split()),
    )  # fmt: skip


def _texts(rows: pd.DataFrame, column: str) -> str:
    """Return the values of a column, joined by commas; empty if there is no such column."""
    if column not in rows.columns:
        return ""
    return ", ".join(sorted({str(one) for one in rows[column] if not (pd.isna(one) or one == "")}))


def _source(rows: pd.DataFrame, label: str, clip: str) -> str | None:
    if "source" not in rows.columns:
        return None
    sources = sorted({str(source) for source in rows["source"] if not (pd.isna(source) or source == "")})
    if len(sources) > 1:
        raise EventsError(
            f"The events of {label!r} in clip {clip!r} come from {len(sources)} source recordings, "
            f"{quoted(sources)}, but a phrase has one. Join their names if the phrase is a mixture."
        )
    return sources[0] if sources else None
