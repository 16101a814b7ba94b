"""Frame ROC-AUC of the attention to words against the times of their sounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from harness.material import Clip
from sklearn.metrics import roc_auc_score

import attnviz
from attnviz.maps import AttentionMaps
from attnviz.models.pipelines import AuffusionPipeline
from bundled_parts.settings import Settings

MEAN = "mean"


def auc_rows(maps: AttentionMaps, span: tuple[int, int], active: np.ndarray) -> list[dict[str, Any]]:
    """Score one phrase in every layer, in their mean, and at every stored step.

    Parameters
    ----------
    maps : AttentionMaps
        The maps.
    span : (int, int)
        Characters of the phrase.
    active : numpy.ndarray
        Activity of its sound, ``(frames,)`` bool.

    Returns
    -------
    list of dict
        ``layer``, ``timestep`` (None for the mean over steps) and ``auc`` (NaN if the sound is always or never
        present).
    """
    views: list[tuple[float | None, AttentionMaps]] = [(None, maps)]
    if "step" in maps[maps.layers[0]].dims:
        views += [(float(step), maps.select(steps=i)) for i, step in enumerate(maps.timesteps)]
    rows = []
    for timestep, view in views:
        for layer in [*maps.layers, MEAN]:
            curve = view.activation(span, readout=layer)
            rows.append({"layer": layer, "timestep": timestep, "auc": _auc(curve.values, active)})
    return rows


def scene_rows(pipe: AuffusionPipeline, clip: Clip, settings: Settings, seed: int) -> list[dict[str, Any]]:
    """Score every phrase of a scene, noised to every timestep."""
    maps = attnviz.explain(
        pipe,
        clip.scene.mixture,
        clip.scene.caption,
        timesteps=settings.timesteps,
        draws=settings.draws,
        seed=seed,
        keep=("step",),
        normalize=False,
    )
    rows = []
    for sound, activity in zip(clip.scene.sounds, clip.scene.activity(256).values, strict=True):
        named = {"clip": clip.scene.name, "sound": sound.sound, "source": sound.source}
        rows += [{**named, **score} for score in auc_rows(maps, sound.span, activity >= 0.5)]
    return rows


def chosen(rows: pd.DataFrame) -> tuple[str, float | None]:
    """Return layer and timestep (None for the mean) with the highest mean AUC, excluding the mean readout."""
    single = rows[rows["layer"] != MEAN]
    means = single.assign(timestep=single["timestep"].fillna(-1)).groupby(["layer", "timestep"])["auc"].mean()
    layer, timestep = means.idxmax()
    return str(layer), None if timestep < 0 else float(timestep)


def mean_auc(rows: pd.DataFrame, layer: str, timestep: float | None) -> tuple[float, int, int]:
    """Return the mean AUC of one readout, and the number of defined and undefined phrases."""
    at = rows["timestep"].isna() if timestep is None else rows["timestep"] == timestep
    values = rows.loc[(rows["layer"] == layer) & at, "auc"]
    return float(values.mean()), int(values.notna().sum()), int(values.isna().sum())


def _auc(curve: np.ndarray, active: np.ndarray) -> float:
    # Frames of the ground truth by column of the maps: the centre of each frame is in one column.
    columns = np.minimum((np.arange(active.size) + 0.5) * curve.size / active.size, curve.size - 1).astype(int)
    scores = curve[columns]
    scored = np.isfinite(scores)
    if active[scored].all() or not active[scored].any():
        return float("nan")
    return float(roc_auc_score(active[scored], scores[scored]))
