"""Export word activity as a tidy table, an NPZ file or an Audacity label track."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from attnviz.errors import MapsError
from attnviz.io.storage import whole_or_nothing
from attnviz.maps.layer import cells_of
from attnviz.maps.phrases import Phrase, activation_of
from attnviz.maps.settling import Readout

if TYPE_CHECKING:
    from attnviz.maps.attention_maps import AttentionMaps


def word_table(
    maps: AttentionMaps,
    *,
    axis: Literal["time", "freq"] = "time",
    readout: Readout = "mean",
    pool: str = "mean",
    grid: str = "finest",
) -> pd.DataFrame:
    """Tabulate the activation of every word of every prompt and image, with one row per grid column.

    Parameters
    ----------
    maps : AttentionMaps
    axis, readout, pool, grid
        As for `AttentionMaps.activation`.

    Returns
    -------
    pandas.DataFrame
        Columns ``prompt``, ``image`` (indices), ``word``, ``occurrence``, ``start``, ``end`` (characters),
        ``time`` (s) or ``freq`` (Hz), and ``activation``. Along time, the column ``padding`` marks rows where the
        activation is NaN. ``attrs`` contains the readout and the pooling.

    Raises
    ------
    MapsError
        If no word was stored, or as for `AttentionMaps.activation`.
    """
    parts: list[pd.DataFrame] = []
    for prompt in range(len(maps.prompts)):
        for image in range(maps.images):
            for word in maps.occurrences(prompt):
                curve = maps.activation(
                    word.span, axis=axis, prompt_index=prompt, sample=image, readout=readout, pool=pool, grid=grid
                )
                part = {
                    "prompt": prompt,
                    "image": image,
                    "word": word.text,
                    "occurrence": word.occurrence,
                    "start": word.span[0],
                    "end": word.span[1],
                    axis: curve[axis].to_numpy(),
                    "activation": curve.to_numpy(),
                }
                if axis == "time":
                    part["padding"] = curve["padding"].to_numpy()
                parts.append(pd.DataFrame(part))
    if not parts:
        raise MapsError(_NO_WORDS)
    table = pd.concat(parts, ignore_index=True)
    table.attrs = {"readout": str(curve.attrs["readout"]), "pool": pool}
    return table


def write_npz(
    maps: AttentionMaps,
    path: str | os.PathLike[str],
    *,
    readout: Readout = "mean",
    pool: str = "mean",
    grid: str = "finest",
    overwrite: bool = False,
) -> None:
    """Write word activity and heat maps to an NPZ file that ``numpy.load`` reads without pickle.

    The arrays have one entry for each of the W words of all prompts and each of the I images:
    ``heatmap`` (W, I, freq, time), ``activation`` (W, I, time; NaN in padding), ``prompt`` (W: index),
    ``word``, ``occurrence``, ``span`` (W, 2: characters), ``freq`` (Hz), ``time`` (s), ``padding`` (time: bool),
    ``prompts``, ``readout``, ``pool``, ``provenance`` (JSON). ``freq`` is absent where the maps have no such axis.

    Parameters
    ----------
    maps : AttentionMaps
    path : str or path-like
        Output file, including its suffix.
    readout, pool, grid
        As for `AttentionMaps.heatmap`.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    MapsError
        If no word was stored, or as for `AttentionMaps.heatmap`.
    OutputError
        If the file exists or cannot be written.
    """
    words = [(prompt, word) for prompt in range(len(maps.prompts)) for word in maps.occurrences(prompt)]
    if not words:
        raise MapsError(_NO_WORDS)
    heat = [
        [
            maps.heatmap(word.span, prompt_index=prompt, sample=image, readout=readout, pool=pool, grid=grid)
            for image in range(maps.images)
        ]
        for prompt, word in words
    ]
    curves = [[activation_of(one, "time") for one in row] for row in heat]
    axes = heat[0][0]
    with whole_or_nothing(path, overwrite=overwrite) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            heatmap=np.array([[one.to_numpy() for one in row] for row in heat]),
            activation=np.array([[one.to_numpy() for one in row] for row in curves]),
            prompt=np.array([prompt for prompt, _ in words]),
            word=np.array([word.text for _, word in words]),
            occurrence=np.array([word.occurrence for _, word in words]),
            span=np.array([word.span for _, word in words]),
            **({"freq": axes["freq"].to_numpy()} if "freq" in axes.dims else {}),
            time=axes["time"].to_numpy(),
            padding=axes["padding"].to_numpy(),
            prompts=np.array(maps.prompts),
            readout=np.array(axes.attrs["readout"]),
            pool=np.array(pool),
            provenance=np.array(json.dumps(maps.provenance)),
        )


def write_audacity(
    maps: AttentionMaps,
    path: str | os.PathLike[str],
    *,
    phrases: Iterable[Phrase] | None = None,
    threshold: float = 0.5,
    prompt_index: int = 0,
    sample: int = 0,
    readout: Readout = "mean",
    pool: str = "mean",
    overwrite: bool = False,
) -> pd.DataFrame:
    r"""Write the active intervals of each word as an Audacity label track (``start \t end \t label``).

    A word is active in columns whose activation is at least `threshold` times its maximum activation. Padding is
    excluded. Adjacent columns form one label. Negative activation, which results from a negative word weight, is
    compared by magnitude, and its labels end in "(negative)". An interval extends from the left edge of its first
    column to the right edge of its last, but not beyond the audio, so its precision is one column. A word without
    attention gets no label. The track is meant for listening to the audio. It is not an event detector: a constant
    map is active throughout.

    Parameters
    ----------
    maps : AttentionMaps
    path : str or path-like
        Output file.
    phrases : iterable of str or (int, int), optional
        Phrases or character spans. By default, every word of the prompt.
    threshold : float
        Fraction of the maximum magnitude of the activation of the word, in (0, 1].
    prompt_index, sample, readout, pool
        As for `AttentionMaps.activation`.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    pandas.DataFrame
        The labels written, sorted by start: columns ``start``, ``end`` (s) and ``label``.

    Raises
    ------
    MapsError
        If the threshold is out of range, no word was stored, or as `AttentionMaps.activation`.
    PromptError
        If a phrase is not in the prompt.
    OutputError
        If the file exists or cannot be written.
    """
    if not 0 < threshold <= 1:
        raise MapsError(
            f"threshold={threshold} must be above 0 and at most 1: a fraction of the maximum of the word."
        )
    named: list[tuple[str, Phrase]]
    if phrases is None:
        named = [(word.label, word.span) for word in maps.occurrences(prompt_index)]
    else:
        named = [(_phrase_text(maps, phrase, prompt_index), phrase) for phrase in phrases]
    if not named:
        raise MapsError(_NO_WORDS)
    labels: list[tuple[float, float, str]] = []
    for text, phrase in named:
        heat = maps.heatmap(phrase, prompt_index=prompt_index, sample=sample, readout=readout, pool=pool)
        curve = activation_of(heat, "time").to_numpy()
        edges = cells_of(heat, maps.grid).time_edges
        strong = _strong(curve, threshold)
        name = " ".join(text.split())  # a tab or a line break would end the field
        for label, active in ((name, strong & (curve > 0)), (f"{name} (negative)", strong & (curve < 0))):
            spans = _intervals(active, edges, _audio_end(maps))
            labels += [(start, end, label) for start, end in spans]
    table = pd.DataFrame(sorted(labels), columns=["start", "end", "label"])
    lines = [f"{start:.6f}\t{end:.6f}\t{label}\n" for start, end, label in sorted(labels)]
    with whole_or_nothing(path, overwrite=overwrite) as partial:
        partial.write_text("".join(lines), encoding="utf-8", newline="\n")
    return table


_NO_WORDS = "No word of the prompt was stored, so there is no word activity. Trace with the tokens of words."


def _phrase_text(maps: AttentionMaps, phrase: Phrase, prompt_index: int) -> str:
    return phrase if isinstance(phrase, str) else maps.prompts[prompt_index][phrase[0] : phrase[1]]


def _audio_end(maps: AttentionMaps) -> float:
    return maps.grid.seconds if maps.grid.audio_seconds is None else maps.grid.audio_seconds


def _strong(curve: np.ndarray, threshold: float) -> np.ndarray:
    """Return a mask of columns at or above a fraction of the maximum magnitude; False for NaN (padding)."""
    magnitude = np.abs(np.nan_to_num(curve))
    return magnitude >= threshold * magnitude.max()


def _intervals(active: np.ndarray, edges: np.ndarray, audio_end: float) -> list[tuple[float, float]]:
    """Return the start and end, in seconds, of each run of True columns."""
    changes = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(int)))
    return [(float(start), float(min(end, audio_end))) for start, end in edges[changes.reshape(-1, 2)]]
