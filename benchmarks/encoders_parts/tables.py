"""Tables of the study: every model, paired differences with the false discovery rate controlled, and encoders."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from harness import Estimate

from attnviz.alignment.bootstrap import Bootstrap, interval
from attnviz.alignment.comparing import adjusted, p_values, verdicts
from attnviz.errors import FewClipsWarning
from attnviz.evaluation import frechet_distance, kernel_audio_distance, kl_divergence, median_distance
from encoders_parts.captions import STYLES

Rows = list[dict[str, Any]]

HEARD = ("right", "judged right", "in order")
"""Measures of generations, by prompt; higher is better."""
ALIGNED = ("auc", "own_columns")
"""Measures of maps, by phrase; higher is better."""
CONTROLS = ("energy", "reversed")
RESAMPLES = 2000


def heard_table(rows: Rows) -> pd.DataFrame:
    """Return a row per generation, without embeddings and maps."""
    table = pd.DataFrame([row for row in rows if "heard" in row]).drop(columns=["embedding", "logits", "shares"])
    judged = table["judged"].eq(table["classes"]).astype(float)
    return table.assign(**{"judged right": judged.where(table["judged"].notna())})


def phrase_table(rows: Rows) -> pd.DataFrame:
    """Return a row per phrase of generations or scenes; ``encoder N`` is the ROC-AUC of that encoder's tokens."""
    table = pd.DataFrame([row for row in rows if "phrase" in row])
    encoders = pd.DataFrame(table.pop("encoders").tolist(), index=table.index).add_prefix("encoder ")
    return pd.concat([table, encoders], axis=1)


def share_table(rows: Rows) -> pd.DataFrame:
    """Return the share of the attention that each encoder's keys hold, ``of`` all keys and of words, by clip."""
    return pd.DataFrame(
        [
            {"number": row["number"], "of": of, "encoder": encoder, "share": share}
            for row in rows
            if "shares" in row
            for of, found in row["shares"].items()
            for encoder, share in found.items()
        ]
    )


def model_row(generations: Rows, scenes: Rows, reference: Rows, seed: int) -> dict[str, Any]:
    """Return every measure of a model with its 95 % interval, over prompts or scenes."""
    heard, made, real = heard_table(generations), phrase_table(generations), phrase_table(scenes)
    first = heard[heard["style"] == STYLES[0]]
    found: dict[str, Any] = {"prompts": len(first), "scenes": real["number"].nunique()}
    for name in (*HEARD, "level", "seconds"):
        found |= _with_ends(name, first[name].astype(float), seed)
    for style in STYLES[1:]:
        part = heard[heard["style"] == style]
        found |= _with_ends(f"right, {style}", part["right"].astype(float), seed)
    for where, table in (("generated", made[made["style"] == STYLES[0]]), ("scenes", real)):
        for name in (*ALIGNED, *CONTROLS):
            found |= _with_ends(f"{where} {name}", _by_clip(table, name), seed)
    return found | distances([row for row in generations if row.get("style") == STYLES[0]], reference, seed)


def distances(generations: Rows, reference: Rows, seed: int) -> dict[str, float]:
    """Return FD, KAD and KL of the listener between generations and real scenes; the first scenes are theirs."""
    clips = [row for row in generations if "embedding" in row]
    made, real = (np.array([row["embedding"] for row in rows]) for rows in (clips, reference))
    logits = np.array([row["logits"] for row in clips])
    own = np.array([reference[row["number"]]["logits"] for row in clips])
    bandwidth = median_distance(real, seed=seed)
    with warnings.catch_warnings():
        # All models have the same number of clips, so the bias is the same for all.
        warnings.simplefilter("ignore", FewClipsWarning)
        fd = frechet_distance(made, real, allow_few=True, n_resamples=RESAMPLES // 10, seed=seed)
    kad = kernel_audio_distance(made, real, bandwidth=bandwidth, n_resamples=RESAMPLES // 10, seed=seed)
    kl = kl_divergence(logits, own, n_resamples=RESAMPLES // 10, seed=seed)
    named = {"FD-listener": fd, "KAD-listener": kad, "KL-softmax-listener": kl}
    return {
        name + end: value
        for name, one in named.items()
        for end, value in (("", one.value), (" low", one.low), (" high", one.high))
    }


def compared(models: Mapping[str, tuple[Rows, Rows]], base: str, seed: int) -> pd.DataFrame:
    """Return paired differences of every model from a base, with verdicts.

    p-values of all comparisons are adjusted together (Benjamini-Hochberg).

    Parameters
    ----------
    models : mapping of str to (generations, scenes)
    base : str
    seed : int
    """
    by_clip = {name: _measures(*rows) for name, rows in models.items()}
    rows = []
    for name, own in by_clip.items():
        for measure, values in own.items():
            if name == base:
                continue
            pairs = pd.concat([values, by_clip[base][measure]], axis=1, join="inner").dropna().to_numpy(float)
            rows.append({"model": name, "against": base, "measure": measure, **_difference(pairs, seed)})
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    table = table.assign(p_adjusted=adjusted(table["p"].to_numpy(dtype=float)))
    found = verdicts(table["low"], table["high"], table["p_adjusted"].to_numpy(), table["cases"])
    return table.assign(verdict=found)


def encoder_table(
    models: Mapping[str, tuple[Rows, Rows]], names: Mapping[str, list[str]], seed: int
) -> pd.DataFrame:
    """Return share and alignment of each text encoder on scenes, with 95 % intervals over scenes."""
    rows = []
    for name, (_, scenes) in models.items():
        shares, phrases = share_table(scenes), phrase_table(scenes)
        for number, encoder in enumerate(names[name]):
            found: dict[str, Any] = {"model": name, "encoder": encoder, "place": number}
            for of in ("all", "words"):
                part = shares[(shares["encoder"] == str(number)) & (shares["of"] == of)]
                found |= _with_ends(f"share of {of}", part["share"], seed)
            if f"encoder {number}" in phrases:
                found |= _with_ends("auc", _by_clip(phrases, f"encoder {number}"), seed)
            rows.append(found)
    return pd.DataFrame(rows)


def _measures(generations: Rows, scenes: Rows) -> dict[str, pd.Series]:
    """Return every measure that can be paired, by prompt or scene."""
    heard, made, real = heard_table(generations), phrase_table(generations), phrase_table(scenes)
    first = heard[heard["style"] == STYLES[0]].set_index("number")
    found = {name: first[name].astype(float) for name in HEARD}
    for style in STYLES[1:]:
        part = heard[heard["style"] == style].set_index("number")
        found[f"right, {style}"] = part["right"].astype(float)
    for where, table in (("generated", made[made["style"] == STYLES[0]]), ("scenes", real)):
        for name in ALIGNED:
            found[f"{where} {name}"] = _by_clip(table, name)
    return found


def _by_clip(table: pd.DataFrame, name: str) -> pd.Series:
    return table.assign(value=table[name].astype(float)).groupby("number")["value"].mean()


def _with_ends(name: str, values: pd.Series, seed: int) -> dict[str, float]:
    estimate = Estimate.mean(values, RESAMPLES, seed)
    return {name: estimate.value, f"{name} low": estimate.low, f"{name} high": estimate.high}


def _difference(pairs: np.ndarray, seed: int) -> dict[str, float]:
    gains = (pairs[:, 0] - pairs[:, 1])[:, None]
    undefined = dict.fromkeys(("difference", "low", "high", "p"), np.nan)
    if len(gains) < 2:
        return undefined | {"cases": len(gains)}
    bootstrap = Bootstrap(np.arange(len(gains)), RESAMPLES, seed)
    replicates, clusters = bootstrap.means(gains), bootstrap.clusters(gains)
    low, high = interval(replicates, clusters)
    mean = gains.mean(axis=0)
    p = p_values(mean, replicates, clusters)
    return {
        "difference": float(mean[0]), "low": float(low[0]), "high": float(high[0]), "p": float(p[0]),
        "cases": len(gains),
    }  # fmt: skip
