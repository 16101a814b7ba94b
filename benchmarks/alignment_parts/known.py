"""Maps with known answers on the scenes of the study, which validate its verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from attnviz.alignment import Alignment
from attnviz.alignment.phrases import AlignedPhrase
from attnviz.alignment.pooling import BETTER, NEITHER, TOO_FEW, WORSE, Pooled

Curve = Callable[[AlignedPhrase, np.ndarray, np.random.Generator], np.ndarray]

KNOWN: dict[str, Curve] = {
    "perfect": lambda phrase, energy, rng: phrase.share,
    "inverted": lambda phrase, energy, rng: 1 - phrase.share,
    # With a little noise, because the difference from the control would otherwise be 0 by definition.
    "energy only": lambda phrase, energy, rng: energy + 1e-3 * np.ptp(energy) * rng.normal(size=len(energy)),
    "noise": lambda phrase, energy, rng: rng.random(len(phrase.share)),
}
"""Curves from the true share of each column, the energy envelope of the clip, or nothing."""


NOISES, NOISES_RIGHT = 20, 16
"""Number of noise draws, and of those that must be classified as noise; each of two tests fails in 5 %."""


def known_answers(result: Alignment, resamples: int, seed: int = 0) -> pd.DataFrame:
    """Score planted maps on the phrases of a study.

    Returns
    -------
    pandas.DataFrame
        One row per kind: ``kind``, ``value``, ``low``, ``high`` (ROC-AUC), ``at_chance``, ``over energy`` and
        ``over constant`` (verdicts), ``expected`` (as text), ``given`` (whether the study gives that answer; None
        if there are too few clips).
    """
    rows = [_row(kind, _planted(result, kind, resamples, seed)) for kind in KNOWN]
    noise = [_row("noise", _planted(result, "noise", min(resamples, 200), seed + 1 + i)) for i in range(NOISES)]
    answers = [row["given"] for row in noise]
    right = None if None in answers else sum(map(bool, answers)) >= NOISES_RIGHT
    return pd.DataFrame([row | {"given": right} if row["kind"] == "noise" else row for row in rows])


def _planted(result: Alignment, kind: str, resamples: int, seed: int) -> Pooled:
    rng, make = np.random.default_rng(seed), KNOWN[kind]
    phrases = tuple(
        replace(phrase, curves={"map": (np.asarray(make(phrase, phrase.energy, rng)),)}, mask=None, heats={})
        for phrase in result.phrases
        if phrase.energy is not None
    )
    return Alignment(phrases, kind).pool(n_resamples=resamples, n_permutations=resamples)


def _row(kind: str, pooled: Pooled) -> dict[str, object]:
    scores = pooled.scores.set_index(["method", "score"])
    verdicts = pooled.differences.set_index(["control", "score"])["verdict"]
    own = scores.loc[("map", "roc_auc")]
    energy, constant = (str(verdicts[(control, "roc_auc")]) for control in ("energy", "constant"))
    value, at_chance = float(own["value"]), own["at_chance"]
    expected, given = {
        "perfect": ("1; better than energy", value > 1 - 1e-6 and energy == BETTER),
        "inverted": ("0; worse than constant", value < 1e-6 and constant == WORSE),
        "energy only": ("the energy control's; no difference from it", energy == NEITHER),
        "noise": (
            f"at chance, no difference from constant, in {NOISES_RIGHT} of {NOISES} draws",
            pd.notna(at_chance) and bool(at_chance) and constant == NEITHER,
        ),
    }[kind]
    if TOO_FEW in (energy, constant) or pd.isna(at_chance):
        given = None  # too few clips for a verdict
    return {
        "kind": kind, "value": value, "low": own["low"], "high": own["high"], "at_chance": at_chance,
        "over energy": energy, "over constant": constant, "expected": expected, "given": given,
    }  # fmt: skip
