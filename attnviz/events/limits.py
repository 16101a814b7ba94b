"""Fit events to the length of their clips: correct and count small deviations, and reject impossible times."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from attnviz.arguments import public
from attnviz.errors import EventsError, warn
from attnviz.events.clips import clip_seconds
from attnviz.events.table import Place, event_table, scorable
from attnviz.wording import counted

PAST_THE_END = 0.05  # seconds; offsets up to this far past the end of the clip are clipped
_ROUNDED = 0.5  # seconds; a name gives the length of its clip rounded to whole seconds
_LONG = 1000.0  # seconds; later offsets in a clip of unknown length are rejected as a likely error of unit
_ROUNDING = 1e-9  # seconds; tolerance for floating-point rounding
_RATES = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)

Seconds = float | Mapping[str, float]

_UP_TO = f"up to {PAST_THE_END * 1000:g} ms past the end of the clip"
_FURTHER = "further past the length given by the name of the clip"
_SAYINGS = {  # of one row, and of several
    "clipped": (f"{{}} offset {_UP_TO} was clipped", f"{{}} offsets {_UP_TO} were clipped"),
    "past_the_end": (f"{{}} offset {_FURTHER} was left unchanged", f"{{}} offsets {_FURTHER} were left unchanged"),
    "zero_length": (
        "{} event of zero length is kept but not scored",
        "{} events of zero length are kept but not scored",
    ),
    "unlabelled": (
        "{} event has an empty label, which is no phrase of any prompt",
        "{} events have an empty label, which is no phrase of any prompt",
    ),
    "without_events": (
        "{} has no times and marks a clip without events",
        "{} have no times and mark clips without events",
    ),
}


@public
def fit_to_clips(table: pd.DataFrame, *, seconds: Seconds | None = None) -> pd.DataFrame:
    """Clip events to the length of their clips and count the changes.

    Parameters
    ----------
    table : pandas.DataFrame
        An event table.
    seconds : float or mapping of str to float, optional
        Length of every clip in seconds, or a mapping from clip to length. By default, the length is taken from the
        name of the clip (10 s for ``_30.000_40.000``). If the name gives no length, events must end before 1000 s.

    Returns
    -------
    pandas.DataFrame
        The same rows, with offsets up to 50 ms past the end of the clip moved to its end. A length taken from a
        name is rounded, so offsets up to 0.5 s past it are left unchanged. ``attrs["counts"]`` contains the counts
        ``rows``, ``clipped``, ``past_the_end``, ``zero_length`` (kept; see `scorable`), ``unlabelled`` (events
        with an empty label, kept), ``without_events`` (rows without times and label) and ``silent`` (rows with a
        label and no times: a sound that does not occur). ``attrs["past_the_end"]`` lists the indices of the rows
        left unchanged.

    Raises
    ------
    EventsError
        If an event is entirely outside its clip or ends further past it, or if a length is missing or is not a
        positive number. The message gives the row and suggests the likely unit.

    Warns
    -----
    AttnVizWarning
        If any count other than ``rows`` and ``silent`` is not 0. The message gives the counts.

    Examples
    --------
    >>> import warnings
    >>> rows = [{"clip": "a.wav", "label": "dog", "onset": 0.5, "offset": 10.02}]
    >>> with warnings.catch_warnings(action="ignore"):
    ...     fitted = fit_to_clips(event_table(rows), seconds=10)
    >>> float(fitted["offset"][0]), fitted.attrs["counts"]["clipped"]
    (10.0, 1)
    """
    fitted = fitted_table(event_table(table), seconds, "row {}".format)
    warn_of_counts(fitted, "the event table")
    return fitted


def fitted_table(table: pd.DataFrame, seconds: Seconds | None, place: Place) -> pd.DataFrame:
    """Apply `fit_to_clips` to a checked table with known positions in a file, without a warning."""
    told = seconds is not None
    ends = _ends(table, seconds)
    onsets, offsets = (table[name].to_numpy(dtype=np.float64) for name in ("onset", "offset"))
    past = offsets - ends  # NaN without times; -inf if the end is unknown
    far = past > PAST_THE_END + _ROUNDING
    unlikely = np.isinf(ends) & (offsets >= _LONG)
    outside = far & ((onsets >= ends) | told | (past > _ROUNDED + _ROUNDING)) | unlikely
    if outside.any():
        row = int(np.argmax(outside))
        raise EventsError(f"{place(row)}: {_question(table, ends, outside, row, told)}")
    fitted = table.copy()
    clipped = (past > 0) & ~far
    for name in ("onset", "offset"):
        fitted[name] = np.where(clipped, np.minimum(table[name], ends), table[name])
    timed = fitted["onset"].notna()
    counts = {
        "rows": len(fitted),
        "clipped": int(clipped.sum()),
        "past_the_end": int(far.sum()),
        "zero_length": int((timed & ~scorable(fitted)).sum()),
        "unlabelled": int((timed & (fitted["label"] == "")).sum()),
        "without_events": int((~timed & (fitted["label"] == "")).sum()),
        "silent": int((~timed & (fitted["label"] != "")).sum()),
    }
    fitted.attrs |= {"counts": counts, "past_the_end": np.flatnonzero(far).tolist()}
    return fitted


def warn_of_counts(table: pd.DataFrame, source: str) -> None:
    """Warn about the counts of a table, if any is not 0."""
    counts = table.attrs["counts"]
    said = [
        (one if counts[name] == 1 else several).format(counts[name])
        for name, (one, several) in _SAYINGS.items()
        if counts[name]
    ]
    if said:
        warn(f"{source}: of {counted(counts['rows'], 'row')}, {'; '.join(said)}.")


def _ends(table: pd.DataFrame, seconds: Seconds | None) -> np.ndarray:
    """Return the end of the clip of each row in seconds; infinite if it is unknown."""
    clips = list(dict.fromkeys(table["clip"]))
    if seconds is None:
        lengths = {clip: clip_seconds(clip) or math.inf for clip in clips}
    elif isinstance(seconds, Mapping):
        absent = [clip for clip in clips if clip not in seconds]
        if absent:
            raise EventsError(f"seconds has no length for {len(absent)} of {len(clips)} clips: {absent[:5]}.")
        lengths = {clip: _length(seconds[clip], f"the length of clip {clip!r}") for clip in clips}
    else:
        lengths = dict.fromkeys(clips, _length(seconds, "seconds"))
    return np.array([lengths[clip] for clip in table["clip"]], dtype=np.float64)


def _length(value: float, name: str) -> float:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise EventsError(f"{name} is {value!r}; expected a finite number of seconds above 0.")
    return float(value)


def _question(table: pd.DataFrame, ends: np.ndarray, outside: np.ndarray, row: int, told: bool) -> str:
    """Return a message about a row outside its clip, with the likely cause."""
    clip, label = table["clip"][row], table["label"][row]
    onset, offset = float(table["onset"][row]), float(table["offset"][row])
    given = f"the event {label!r} of clip {clip!r} is at {onset:g} to {offset:g} s"
    if math.isinf(ends[row]):
        return (
            f"{given}, {offset / 60:.0f} minutes into a clip of unknown length. Are some or all of the times in "
            "milliseconds or in samples? If they are seconds, give the length of the clip with seconds=..."
        )
    by_name = "" if told else ", according to its name"
    wholly = "entirely outside" if onset >= ends[row] else f"{offset - ends[row]:g} s past the end"
    facts = f"{given}, {wholly}: the clip ends at {ends[row]:g} s{by_name}"
    inside = int((table["onset"].notna() & ~outside).sum())
    unit = _unit(table["offset"].to_numpy(dtype=np.float64)[outside], ends[outside])
    if unit is None:
        return f"{facts}. Is this the right clip, and are times measured from its start?"
    if inside:
        return f"{facts}. {inside} other events fit in seconds, this one in {unit}. Are units mixed?"
    return f"{facts}. Are the times in {unit}? Times must be in seconds."


def _unit(offsets: np.ndarray, ends: np.ndarray) -> str | None:
    """Return the unit in which times that are far too large would fit their clips."""
    largest = float(np.max(offsets / ends))  # in lengths of a clip
    if largest < 10:
        return None
    if largest <= 1000:
        return "milliseconds"
    rate = next((rate for rate in _RATES if largest <= rate), None)
    return "another unit" if rate is None else f"samples (at {rate} Hz they would fit)"
