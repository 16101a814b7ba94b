"""`profile`: score the maps of each denoising step, layer and head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from attnviz.alignment.bootstrap import MOST_RESAMPLES, Bootstrap, interval, ratio
from attnviz.alignment.correlation import partial_correlation, pearson, spearman
from attnviz.alignment.phrases import AlignedPhrase, PhraseEvents, phrase_events
from attnviz.alignment.ranking import roc_auc
from attnviz.alignment.reading import How, audio_seconds, read_phrase
from attnviz.arguments import public, whole_number
from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps
from attnviz.maps.layer import cells_of
from attnviz.maps.readouts import pool_tokens, resample
from attnviz.maps.weighing import LayerReading

MEAN = "mean"
"""Name of the readout over all layers in the column ``layer``."""

PROFILED = ("roc_auc", "pearson", "spearman", "partial")
"""Scores of a profile, which are those with a known chance level."""

CELL = ("layer", "column_ms", "step", "timestep", "head")
"""Columns that identify the map."""

AVERAGED = -1
"""Value of ``step`` or ``head`` for the mean over them."""

_Block = tuple[list[int], list[int], np.ndarray]  # steps, heads, and their maps (steps, heads, rows, columns)


@public
def profile(
    maps: AttentionMaps, events: pd.DataFrame, *, prompt_index: int = 0, sample: int = 0, pool: str = "mean"
) -> pd.DataFrame:
    """Score every layer, denoiser call and head of the maps of a prompt against events.

    The steps with scores above chance are those at which a word has found its sound. Each layer is scored on its
    own columns, as by `attnviz.align` with the layer as readout. The readout ``"mean"`` over all layers is
    included.

    Parameters
    ----------
    maps : AttentionMaps
        Maps made with ``keep=("step", "head")``. If an axis was not kept, only its mean is scored.
    events : pandas.DataFrame
        Event table of that clip, as for `attnviz.align`. For generated audio, use `attnviz.listen`.
    prompt_index, sample : int
        Indices, from 0, of the prompt and of its sample (image).
    pool : str
        Method to combine the tokens of a phrase; see `AttentionMaps.heatmap`.

    Returns
    -------
    pandas.DataFrame
        One row per phrase, layer, step and head, including the means over steps, heads and both: ``clip``,
        ``image``, ``label``, ``class`` (from the events, or empty), ``start``, ``end``, ``source`` (empty if the
        events have none), ``undefined`` (reason why the phrase cannot be scored, or empty), ``layer``,
        ``column_ms`` (width of a column), ``step`` and ``head`` (-1 for their mean), ``timestep`` (NaN for the
        mean over steps), ``roc_auc``, ``pearson``, ``spearman`` and ``partial`` (Pearson's, given the energy
        envelope), NaN if undefined. The readout ``"mean"`` has no heads, because the heads of different layers do
        not correspond.

    Raises
    ------
    EventsError, PromptError, MapsError
        See `attnviz.align`.

    See Also
    --------
    attnviz.alignment.pool_profile : Average profiles over many clips, with intervals.

    Examples
    --------
    >>> from attnviz.alignment import pool_profile, profile
    >>> when = lambda profiles: pool_profile(profiles).query("score == 'roc_auc' and head == -1")
    """
    maps.occurrences(prompt_index)  # raises if the prompt does not exist
    first = maps[maps.layers[0]]
    steps = first["step"].to_numpy().tolist() if "step" in first.dims else None
    tables = [
        table
        for one in phrase_events(events, maps.prompts[prompt_index], audio_seconds(maps.grid))
        for table in _phrase_columns(maps, one, steps, prompt_index, sample, pool)
    ]
    names = ["clip", "image", "label", "class", "start", "end", "source", "undefined", *CELL, *PROFILED]
    if not tables:
        return pd.DataFrame(columns=names)
    when = dict(zip(steps or [], maps.timesteps, strict=bool(steps)))
    columns = {name: [value for table in tables for value in table[name]] for name in tables[0]}
    columns["timestep"] = [when.get(step, float("nan")) for step in columns["step"]]
    return pd.DataFrame(columns)[names]


@public
def pool_profile(
    profiles: pd.DataFrame, *, by: str | Sequence[str] = (), n_resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Average profiles over phrases, with bootstrap intervals over source recordings and clips.

    Parameters
    ----------
    profiles : pandas.DataFrame
        Concatenated profiles of many clips: ``pd.concat(profile(m, e) for m, e in ...)``. If the events have no
        source, the unit of the bootstrap is the clip: seeds of the same prompt and clip name are drawn together.
    by : str or sequence of str
        Columns that define groups, such as ``"class"``, which are pooled separately.
    n_resamples : int
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        One row per group of `by`, layer, step, head and score: the columns of `by`, ``layer``, ``column_ms``,
        ``step``, ``timestep``, ``head``, ``score``, ``value`` (mean over phrases), ``low`` and ``high`` (95 %
        interval; NaN for fewer than two units), ``phrases`` and ``sources`` with a defined value.

    Raises
    ------
    MapsError
        If the table is not a profile, lacks a column of `by`, or `n_resamples` is not a whole number from 1 to
        100 000.
    """
    groups = [by] if isinstance(by, str) else list(dict.fromkeys(by))
    missing = [name for name in ("clip", "source", *CELL, *PROFILED, *groups) if name not in profiles.columns]
    if missing:
        raise MapsError(f"The table lacks the columns {missing}; give the result of attnviz.alignment.profile.")
    n_resamples = whole_number("n_resamples", n_resamples, most=MOST_RESAMPLES, error=MapsError)
    if taken := [name for name in groups if name in (*CELL, *PROFILED)]:
        raise MapsError(f"by contains {taken}, which are already columns of the result.")
    if profiles.empty:
        return pd.DataFrame(columns=[*groups, *CELL, "score", "value", "low", "high", "phrases", "sources"])
    kept = [*groups, *CELL]
    cells = profiles.groupby(kept, sort=False, dropna=False)
    cell = cells.ngroup().to_numpy()
    unit, _ = pd.factorize(units_of(profiles))
    bootstrap = Bootstrap(unit, int(n_resamples), seed, pd.factorize(profiles["clip"])[0])
    frames = []
    for score in PROFILED:
        values = profiles[score].to_numpy(dtype=np.float64)
        known = ~np.isnan(values)
        sums, counts = (np.zeros((bootstrap.count, cells.ngroups)) for _ in range(2))
        np.add.at(sums, (bootstrap.groups[known], cell[known]), values[known])
        np.add.at(counts, (bootstrap.groups[known], cell[known]), 1.0)
        units, *ways = (_distinct(of[known], cell[known], cells.ngroups) for of in (unit, *bootstrap.ways))
        low, high = interval(bootstrap.ratios(sums, counts), np.min(ways, axis=0))
        frame = cells.size().reset_index()[kept]
        total = counts.sum(axis=0)
        frames.append(
            frame.assign(
                score=score, value=ratio(sums.sum(axis=0), total), low=low, high=high,
                phrases=total.astype(int), sources=units,
            )
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def _distinct(units: np.ndarray, cells: np.ndarray, count: int) -> np.ndarray:
    """Return the number of different units in each of `count` cells."""
    pairs = np.unique(np.column_stack([units, cells]), axis=0)
    return np.bincount(pairs[:, 1], minlength=count)


def units_of(table: pd.DataFrame) -> pd.Series:
    """Return the bootstrap unit of each row: its source recording, or otherwise its clip."""
    source = table["source"].fillna("").astype(str)
    return pd.Series(np.where(source != "", "source " + source, "clip " + table["clip"].astype(str)), table.index)


def _phrase_columns(
    maps: AttentionMaps, events: PhraseEvents, steps: list[int] | None, prompt_index: int, sample: int, pool: str
) -> Iterator[dict[str, list[Any]]]:
    """Yield the scores of one phrase for each layer and for the mean of all layers."""
    heat = maps.heatmap(events.span, prompt_index=prompt_index, sample=sample, pool=pool)
    cells = cells_of(heat, maps.grid)
    total: np.ndarray | float = 0.0
    for name in maps.layers:
        reading = LayerReading.of(
            name, maps[name], heat.attrs["positions"], prompt_index=prompt_index, sample=sample
        )
        truth = read_phrase(maps, events, How(prompt_index, sample, name, pool), {}, None)
        yield _columns(truth, name, reading.heard, _blocks(reading, steps, pool))
        over_heads = reading.values.mean(axis=1, keepdims=True)
        total = total + resample(over_heads, cells_of(maps[name], maps.grid), cells) / len(maps.layers)
    heard = ~heat["padding"].to_numpy()
    mean = LayerReading(MEAN, np.asarray(total), reading.timesteps, None, heard)
    truth = read_phrase(maps, events, How(prompt_index, sample, MEAN, pool), {}, None)
    yield _columns(truth, MEAN, heard, _blocks(mean, steps, pool))


def _blocks(reading: LayerReading, steps: list[int] | None, pool: str) -> Iterator[_Block]:
    """Yield the maps of every step and head and of their means, averaged before pooling, as in readouts."""
    heads = None if reading.heads is None else reading.heads.tolist()
    for of_step in [steps, None] if steps is not None else [None]:
        for of_head in [heads, None] if heads is not None else [None]:
            values = reading.values if of_step else reading.values.mean(axis=0, keepdims=True)
            values = values if of_head else values.mean(axis=1, keepdims=True)
            yield of_step or [AVERAGED], of_head or [AVERAGED], pool_tokens(np.moveaxis(values, 2, 0), pool)


def _columns(
    truth: AlignedPhrase, layer: str, heard: np.ndarray, blocks: Iterator[_Block]
) -> dict[str, list[Any]]:
    """Score the maps of one layer. Return lists of columns, which are faster than many small tables."""
    events = truth.events
    named: dict[str, Any] = {
        "clip": events.clip, "image": truth.sample, "label": events.label, "class": events.sound_class,
        "start": events.span[0], "end": events.span[1], "source": events.source or "",
        "undefined": truth.undefined, "layer": layer,
        "column_ms": 1e3 * truth.column_seconds,
    }  # fmt: skip
    step, head, curves = [], [], []
    for steps, heads, heats in blocks:
        # Single precision, as in heat maps, so that scores equal those of `align`.
        read = heats.astype(np.float32).astype(np.float64)[..., heard].mean(axis=-2)
        curves.append(read.reshape(-1, read.shape[-1]))
        step += np.repeat(steps, len(heads)).tolist()
        head += np.tile(heads, len(steps)).tolist()
    columns = {name: [value] * len(step) for name, value in named.items()} | {"step": step, "head": head}
    return columns | {name: values.tolist() for name, values in _scores(np.concatenate(curves), truth).items()}


def _scores(curves: np.ndarray, truth: AlignedPhrase) -> dict[str, np.ndarray]:
    if truth.undefined:
        return {score: np.full(len(curves), np.nan) for score in PROFILED}
    share = np.broadcast_to(truth.share, curves.shape)
    unknown = np.full(len(curves), np.nan)
    return {
        "roc_auc": roc_auc(curves=curves, active=np.broadcast_to(truth.active, curves.shape)),
        "pearson": pearson(curves=curves, activity=share),
        "spearman": spearman(curves=curves, activity=share),
        "partial": unknown
        if truth.energy is None
        else partial_correlation(
            curves=curves, activity=share, energy=np.broadcast_to(truth.energy, curves.shape)
        ),
    }
