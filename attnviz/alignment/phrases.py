"""The phrases of a caption that events name, and what is known of each: its truth and its curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import pandas as pd

from attnviz.alignment.scored_clips import union
from attnviz.errors import EventsError, PromptError
from attnviz.events import PAST_THE_END, Heard, events_of
from attnviz.events.spans import quoted
from attnviz.events.table import SHORTEST
from attnviz.text.sounds import find_label
from attnviz.text.words import split_words

ACTIVE_SHARE = 0.5
"""A column is active where events cover at least this share of it."""

Draws = tuple[np.ndarray, ...]
"""Maps of one method: one, or one a draw, such as the seeds of randomized weights."""


@dataclass(frozen=True)
class PhraseEvents:
    """The events of one phrase of a caption.

    Attributes
    ----------
    clip, label : str
        As the event table has them.
    span : (int, int)
        Characters of the phrase in the caption.
    source : str or None
        Source recording; None where the events name none.
    times : numpy.ndarray, float64, shape (events, 2)
        Onsets and offsets in seconds, ascending, without contact.
    bands : numpy.ndarray, float64, shape (rows, 4), or None
        Onset, offset, low and high of each lasting event; None where one has no band.
    zero_length, clipped : int
        Events that were not scored for their length, and those cut at the end of the clip.
    sound_class : str
        What the column ``class`` of the events says; several are joined by commas, and without it it is empty.
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


@dataclass(frozen=True, eq=False)
class AlignedPhrase:
    """One phrase of one clip: when its sound is there, and the curves that are scored against it.

    Columns of padding are left out everywhere.

    Attributes
    ----------
    events : PhraseEvents
    sample : int
        Which of the prompt's samples (seeds) the maps are of.
    seconds : float
        Length of the clip's audio.
    column_seconds : float
        Width of a column.
    share : numpy.ndarray, float64, shape (columns,)
        Share of each column that events cover.
    curves : mapping of str to tuple of numpy.ndarray (columns,)
        Method -> its curves: ``"map"`` and the controls made of other maps.
    energy : numpy.ndarray, shape (columns,), or None
        Energy envelope; None where no spectrogram travels with the maps.
    mask : numpy.ndarray of bool, shape (rows, columns), or None
        Cells in which the sound is, where that is known.
    seeds : mapping of str to int
        How many maps each given control has: of weight seeds, say. Each makes as many draws as the others.
    heats : mapping of str to tuple of numpy.ndarray (rows, columns)
        Heat maps behind `curves`, and the spectrogram as ``"energy"``; kept only where there is a mask.
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

    @property
    def active(self) -> np.ndarray:
        """Whether the sound is there: events cover at least half of the column."""
        return self.share >= ACTIVE_SHARE

    @property
    def onset(self) -> float:
        """Onset of the first event, in seconds; NaN without events."""
        return float(self.events.times[0, 0]) if len(self.events.times) else float("nan")

    @property
    def undefined(self) -> str:
        """Why the phrase cannot be scored; empty where it can."""
        if not len(self.events.times):
            return "zero-length events only" if self.events.zero_length else "silent in the clip"
        if self.active.all():
            return "over the whole clip"
        return "" if self.active.any() else "shorter than half a column"


def phrase_events(events: pd.DataFrame | Heard, caption: str, seconds: float) -> list[PhraseEvents]:
    """Find the phrases of one clip's caption that events name, in the caption's order.

    Parameters
    ----------
    events : pandas.DataFrame or Heard
        An event table of one clip, or what was heard in it. A row with a label and no times is a phrase that is
        silent.
    caption : str
        The caption.
    seconds : float
        Length of the audio.

    Raises
    ------
    EventsError
        It is no event table, is of several clips or of other captions alone, passes the end of the clip by over
        50 ms, or names several source recordings for one phrase.
    PromptError
        A label without a span is not in the caption exactly once, as a phrase or as a class that it names.
    """
    table = events_of(events, caption)
    clips = sorted(set(table["clip"]))
    if len(clips) > 1:
        raise EventsError(
            f"the events are of {len(clips)} clips, {quoted(clips)}; maps are of one. Pick its rows, "
            f"events[events['clip'] == {clips[0]!r}], and pool the results with Alignment.concat."
        )
    named = table[(table["label"] != "") | table["onset"].notna()]
    given = named["span"].tolist() if "span" in named.columns else [None] * len(named)
    spans = [
        (int(span[0]), int(span[1])) if span else _span_of(label, caption, clips[0])
        for span, label in zip(given, named["label"].tolist(), strict=True)
    ]
    return [_of_rows(named[[one == span for one in spans]], span, seconds) for span in sorted(set(spans))]


def _span_of(label: str, caption: str, clip: str) -> tuple[int, int]:
    spans = find_label(caption, label)
    if len(spans) == 1:
        return spans[0]
    where = f"the event {label!r} of clip {clip!r}"
    if spans:
        places = ", ".join(f"{caption[start:end]!r} at {start}:{end}" for start, end in spans)
        raise PromptError(
            f"{where} stands {len(spans)} times in the caption {caption!r}: {places}. Say which one is meant with "
            "the column span, (start, end)."
        )
    words = ", ".join(word.text for word in split_words(caption))
    raise PromptError(
        f"{where} is not in the caption {caption!r}, as a phrase or as a class that it names; its words are: "
        f"{words}. Rename the label to the caption's own words, or "
        "give their characters in the column span, (start, end)."
    )


def _of_rows(rows: pd.DataFrame, span: tuple[int, int], seconds: float) -> PhraseEvents:
    clip, label = str(rows["clip"].iloc[0]), str(rows["label"].iloc[0])
    times = rows[["onset", "offset"]].to_numpy(dtype=np.float64)
    timed = ~np.isnan(times[:, 0])
    if (times[timed, 1] > seconds + PAST_THE_END).any():
        raise EventsError(
            f"an event of {label!r} in clip {clip!r} ends at {times[timed, 1].max():g} s; the audio ends at "
            f"{seconds:g} s, and at most {PAST_THE_END:g} s more are clipped. Are the times in seconds, and are "
            "the events and the maps of the same clip?"
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
        _class(rows),
    )  # fmt: skip


def _class(rows: pd.DataFrame) -> str:
    if "class" not in rows.columns:
        return ""
    return ", ".join(sorted({str(one) for one in rows["class"] if not (pd.isna(one) or one == "")}))


def _source(rows: pd.DataFrame, label: str, clip: str) -> str | None:
    if "source" not in rows.columns:
        return None
    sources = sorted({str(source) for source in rows["source"] if not (pd.isna(source) or source == "")})
    if len(sources) > 1:
        raise EventsError(
            f"the events of {label!r} in clip {clip!r} come from {len(sources)} source recordings, "
            f"{quoted(sources)}; a phrase has one. Join their names where the phrase is a mix of several."
        )
    return sources[0] if sources else None
