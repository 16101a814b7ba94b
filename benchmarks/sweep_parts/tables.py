"""Tables of the study: each clip, each setting, and rank correlations over settings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from harness import Bar, Estimate
from scipy.stats import spearmanr

from attnviz.errors import FewClipsWarning
from attnviz.evaluation import (
    frechet_distance,
    inception_score,
    kernel_audio_distance,
    kl_divergence,
    median_distance,
)
from attnviz.evaluation.estimate import interval
from sweep_parts.settings import Settings

Rows = list[dict[str, Any]]

QUALITY = {
    "FD-listener": -1,
    "KAD-listener": -1,
    "IS-listener": 1,
    "KL-softmax-listener": -1,
    "right": 1,
    "in order": 1,
}
"""Measures of quality, and whether higher is better (1) or lower (-1)."""
ALIGNMENTS = ("mean", "fitted")
"""Readouts whose alignment is compared with quality."""
ARRAYS = ("embedding", "logits", "auc")


def clip_table(rows: Rows) -> pd.DataFrame:
    """Return a row per clip, without embeddings; ``auc NAME`` is the mean over the scored phrases."""
    return pd.DataFrame(
        [
            {name: value for name, value in row.items() if name not in ARRAYS}
            | {f"auc {method}": _mean(values) for method, values in row["auc"].items()}
            | {"phrases scored": sum(value is not None for value in row["auc"]["mean"])}
            for row in rows
        ]
    )


def cell_table(rows: Rows, reference: Rows, settings: Settings) -> pd.DataFrame:
    """Return a row per setting: every measure with its 95 % interval over prompts where it is a mean.

    Alignment is the mean ROC-AUC of the phrases that can be scored; ``phrases scored`` is their number.
    """
    compare = Comparison(reference, settings)
    found = []
    for (scale, steps), cell in _cells(rows).items():
        table = clip_table(cell)
        row = {"scale": scale, "steps": steps, "clips": len(cell), **compare(cell)}
        estimates = {name: table[name].astype(float) for name in ("right", "in order", "level")}
        estimates |= {name: table[name] for name in table.columns if name.startswith("auc ")}
        for name, values in estimates.items():
            estimate = Estimate.mean(values, settings.resamples, settings.seed)
            row |= {name: estimate.value, f"{name} low": estimate.low, f"{name} high": estimate.high}
        found.append(row | {"phrases scored": int(table["phrases scored"].sum())})
    return pd.DataFrame(found)


class Comparison:
    """Measures of a set of clips against real scenes.

    Parameters
    ----------
    reference : list of dict
        Rows of real scenes; the first are the scenes whose captions are the prompts.
    settings : Settings
    """

    def __init__(self, reference: Rows, settings: Settings) -> None:
        self.embeddings = np.array([row["embedding"] for row in reference])
        self.logits = np.array([row["logits"] for row in reference])[: settings.clips]
        self.bandwidth = median_distance(self.embeddings, seed=settings.seed)

    def __call__(self, clips: Rows) -> dict[str, float]:
        """Return the distances and scores of clips, the classes heard, and the alignment of the maps."""
        embeddings = np.array([row["embedding"] for row in clips])
        logits = np.array([row["logits"] for row in clips])
        pairs = self.logits[[row["prompt"] for row in clips]]
        with warnings.catch_warnings():
            # All settings have the same number of clips, so the bias is the same for all.
            warnings.simplefilter("ignore", FewClipsWarning)
            fd = frechet_distance(embeddings, self.embeddings, allow_few=True, n_resamples=0)
        kad = kernel_audio_distance(embeddings, self.embeddings, bandwidth=self.bandwidth, n_resamples=0)
        methods = clips[0]["auc"]
        return {
            "FD-listener": fd.value,
            "KAD-listener": kad.value,
            "IS-listener": inception_score(logits, n_resamples=0).value,
            "KL-softmax-listener": kl_divergence(logits, pairs, n_resamples=0).value,
            "right": _mean([row["right"] for row in clips]),
            "in order": _mean([row["in order"] for row in clips]),
            **{f"auc {name}": _mean([v for row in clips for v in row["auc"][name]]) for name in methods},
        }


def correlations(rows: Rows, reference: Rows, settings: Settings) -> pd.DataFrame:
    """Return the rank correlation over settings of alignment with every measure of quality.

    Above 0, settings whose maps align better sound better. ``over`` is "all settings"; "guidance scales" is the
    mean over numbers of steps of the correlation over guidance scales, and "steps" the other way round. Intervals
    (95 %) are over prompts: everything is computed again of random halves of the prompts, whose spread is that of
    the bootstrap, and in which no clip occurs twice (a clip is no pair with itself for KAD).

    References
    ----------
    McCarthy, Replication: an approach to the analysis of data from complex surveys, 1966.
    """
    compare = Comparison(reference, settings)
    prompts = sorted({row["prompt"] for row in rows})
    rng = np.random.default_rng(settings.seed)
    half = max(2, len(prompts) // 2)  # no distance is defined for one clip
    halves = [set(rng.permutation(prompts)[:half].tolist()) for _ in range(settings.resamples)]
    whole = _correlated(rows, compare)
    drawn = [_correlated([row for row in rows if row["prompt"] in some], compare) for some in halves]
    found = []
    for key, value in whole.items():
        replicates = np.array([one[key] for one in drawn if not np.isnan(one[key])])
        low, high = interval(value, replicates, lowest=-1.0, highest=1.0)
        readout, quality, over = key
        row = {"readout": readout, "quality": quality, "over": over, "spearman": value, "low": low, "high": high}
        found.append(row | {"halves": len(replicates)})
    return pd.DataFrame(found)


def judge(found: pd.DataFrame) -> list[Bar]:
    """Say for every measure of quality whether settings that align better are better."""
    bars = []
    for row in found[found["over"] == "all settings"].to_dict("records"):
        what = f"{row['readout']} readout: rank correlation of alignment with {row['quality']} (better is higher)"
        known = not np.isnan(row["spearman"])
        measured = f"{row['spearman']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]" if known else None
        bars.append(Bar.of(what, "" if known else "reported", measured))
    return bars


def _cells(rows: Rows) -> dict[tuple[float, int], Rows]:
    cells: dict[tuple[float, int], Rows] = {}
    for row in sorted(rows, key=lambda one: (one["scale"], one["steps"], one["prompt"])):
        cells.setdefault((row["scale"], row["steps"]), []).append(row)
    return cells


def _correlated(rows: Rows, compare: Comparison) -> dict[tuple[str, str, str], float]:
    cells = pd.DataFrame(
        [{"scale": scale, "steps": steps, **compare(cell)} for (scale, steps), cell in _cells(rows).items()]
    )
    found = {}
    for readout in ALIGNMENTS:
        if f"auc {readout}" not in cells:
            continue
        for quality, sign in QUALITY.items():
            pair = cells[["scale", "steps", f"auc {readout}"]].assign(quality=sign * cells[quality])
            each = {
                "all settings": [pair],
                "guidance scales": [part for _, part in pair.groupby("steps")],
                "steps": [part for _, part in pair.groupby("scale")],
            }
            for over, parts in each.items():
                found[readout, quality, over] = _mean([_spearman(part.iloc[:, 2:]) for part in parts])
    return found


def _spearman(pair: pd.DataFrame) -> float:
    known = pair.dropna().to_numpy()
    if len(known) < 3 or (np.ptp(known, axis=0) == 0).any():
        return float("nan")
    return float(spearmanr(known[:, 0], known[:, 1]).statistic)


def _mean(values: Sequence[Any]) -> float:
    known = np.array([value for value in values if value is not None and not np.isnan(value)], dtype=float)
    return float(known.mean()) if len(known) else float("nan")
