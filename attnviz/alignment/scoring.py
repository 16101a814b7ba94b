"""Score many phrases together, grouped into arrays of curves of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from attnviz.alignment.correlation import product, standardized, unexplained
from attnviz.alignment.localization import mask_iou, onset_error_of, pointing_of
from attnviz.alignment.methods import OTHER_CLIP, curves_of, heats_of, method_names, other_phrases
from attnviz.alignment.phrases import ACTIVE_SHARE, AlignedPhrase, Draws
from attnviz.alignment.ranking import auc_of, precision_of, rank

_ROWS = 2048  # number of curves scored together, so that their arrays fit into the processor's cache


@dataclass(frozen=True)
class Score:
    """Properties of a score.

    Attributes
    ----------
    direction : str
        ``"higher"`` or ``"lower"`` if that is better, or ``"zero"``.
    chance : float
        Score of an uninformative map if known in advance, or NaN.
    unit : str
        ``"s"``, or empty.
    bounds : (float, float)
        Minimum and maximum of the score.
    """

    direction: str
    chance: float = float("nan")
    unit: str = ""
    bounds: tuple[float, float] = (0.0, 1.0)


SCORES = {
    "roc_auc": Score("higher", 0.5),
    "average_precision": Score("higher"),
    "pearson": Score("higher", 0.0, bounds=(-1.0, 1.0)),
    "spearman": Score("higher", 0.0, bounds=(-1.0, 1.0)),
    "partial": Score("higher", 0.0, bounds=(-1.0, 1.0)),
    "pointing": Score("higher"),
    "onset_error": Score("zero", unit="s", bounds=(-np.inf, np.inf)),
    "onset_distance": Score("lower", unit="s", bounds=(0.0, np.inf)),
    "iou": Score("higher"),
}
"""Scores of a phrase; see the functions of `attnviz.alignment`. ``onset_distance`` is the absolute error."""


def score_table(phrases: Sequence[AlignedPhrase], readout: str, seed: int) -> pd.DataFrame:
    """Score every phrase with every method; see `Alignment.table`."""
    methods = method_names(phrases)
    others = other_phrases(phrases, seed) if OTHER_CLIP in methods else np.empty(0, dtype=int)
    blocks = []
    for method in methods:
        curves = curves_of(phrases, method, others)
        owner = np.repeat(np.arange(len(phrases)), [len(draws) for draws in curves])
        block = pd.DataFrame(_scores(phrases, curves, owner), columns=[*SCORES][:-1])
        block["iou"] = _ious(phrases, method, others, owner)
        block.insert(0, "draw", np.arange(len(owner)) - np.searchsorted(owner, owner))
        block.insert(0, "method", method)
        block.insert(0, "phrase", owner)
        blocks.append(block)
    facts = _facts(phrases, readout)
    scores = pd.concat(blocks, ignore_index=True).sort_values("phrase", kind="stable", ignore_index=True)
    table = facts.iloc[scores["phrase"].to_numpy(dtype=int)].reset_index(drop=True).join(scores.iloc[:, 1:])
    table.loc[table["undefined"] != "", [*SCORES]] = np.nan
    return table


def method_scores(phrases: Sequence[AlignedPhrase], method: str) -> np.ndarray:
    """Score phrases with a method that needs no other clip and has one curve each.

    Returns
    -------
    numpy.ndarray, shape (phrases, scores)
        In the order of `SCORES`; NaN if undefined.
    """
    nobody = np.empty(0, dtype=int)
    curves = curves_of(phrases, method, nobody)
    owner = np.repeat(np.arange(len(phrases)), [len(draws) for draws in curves])
    found = np.full((len(phrases), len(SCORES)), np.nan)
    found[owner, :-1] = _scores(phrases, curves, owner)
    found[owner, -1] = _ious(phrases, method, nobody, owner)
    found[[bool(phrase.undefined) for phrase in phrases]] = np.nan
    return found


def _facts(phrases: Sequence[AlignedPhrase], readout: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "phrase": np.arange(len(phrases)),
            "clip": [phrase.events.clip for phrase in phrases],
            "image": np.array([phrase.sample for phrase in phrases], dtype=np.int64),
            "label": [phrase.events.label for phrase in phrases],
            "text": [phrase.events.name for phrase in phrases],
            "start": np.array([phrase.events.span[0] for phrase in phrases], dtype=np.int64),
            "end": np.array([phrase.events.span[1] for phrase in phrases], dtype=np.int64),
            "source": [phrase.events.source or "" for phrase in phrases],
            "origin": [phrase.events.origin for phrase in phrases],
            "readout": [readout] * len(phrases),
            "column_ms": np.array([1e3 * phrase.column_seconds for phrase in phrases], dtype=np.float64),
            "undefined": [phrase.undefined for phrase in phrases],
        }
    )


def _scores(phrases: Sequence[AlignedPhrase], curves: Sequence[Draws], owner: np.ndarray) -> np.ndarray:
    """Return all scores except IoU, ``(curves, scores)``; the values of undefined phrases are arbitrary."""
    flat = [curve for draws in curves for curve in draws]
    values = np.full((len(flat), len(SCORES) - 1), np.nan)
    lengths = np.array([len(curve) for curve in flat], dtype=int)
    for length in np.unique(lengths):
        alike = np.flatnonzero(lengths == length)
        for start in range(0, len(alike), _ROWS):
            rows = alike[start : start + _ROWS]
            owners = [phrases[index] for index in owner[rows]]
            values[rows] = _block(np.stack([flat[row] for row in rows]).astype(np.float64), owners)
    return values


def _block(curves: np.ndarray, phrases: Sequence[AlignedPhrase]) -> np.ndarray:
    unknown = np.full(curves.shape[1], np.nan)
    return curve_scores(
        curves,
        np.stack([phrase.share for phrase in phrases]),
        np.stack([unknown if phrase.energy is None else phrase.energy for phrase in phrases]),
        np.array([phrase.onset for phrase in phrases]),
        np.array([phrase.column_seconds for phrase in phrases]),
    )


def curve_scores(
    curves: np.ndarray, shares: np.ndarray, energy: np.ndarray, onsets: np.ndarray, widths: np.ndarray
) -> np.ndarray:
    """Compute all scores except IoU of curves of one length.

    Parameters
    ----------
    curves, shares, energy : numpy.ndarray, float64, shape (curves, columns)
        Curves, fractions of each column that events cover, and energy envelopes, NaN if unknown.
    onsets, widths : numpy.ndarray, shape (curves,)
        Onset of the first event, and width of a column, in seconds.

    Returns
    -------
    numpy.ndarray, shape (curves, scores)
    """
    known = ~np.isnan(energy).any(axis=1)
    energy = np.where(known[:, None], energy, 0.0)  # no effect; scores without energy are NaN below
    active = shares >= ACTIVE_SHARE
    ranking = rank(curves)
    curve, share, level = standardized(curves), standardized(shares), standardized(energy)
    partial = product(unexplained(curve, level), unexplained(share, level))
    error = onset_error_of(curves, onsets, widths)
    return np.column_stack(
        [
            auc_of(ranking, active),
            precision_of(ranking, active),
            product(curve, share),
            product(standardized(ranking.ranks), standardized(rank(shares).ranks)),
            np.where(known, partial, np.nan),
            pointing_of(curves, active),
            error,
            np.abs(error),
        ]
    )


def _ious(phrases: Sequence[AlignedPhrase], method: str, others: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Return the IoU of the heat map of every curve; NaN if the mask or the map is unknown."""
    values = np.full(len(owner), np.nan)
    for index in [number for number, phrase in enumerate(phrases) if phrase.mask is not None]:
        heats = heats_of(phrases, method, others, index)
        rows = np.flatnonzero(owner == index)
        if len(heats) == len(rows):
            mask = phrases[index].mask
            values[rows] = [mask_iou(heat=heat, mask=mask) for heat in heats]  # type: ignore[arg-type]
    return values
