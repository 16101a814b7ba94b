"""Scores of the readout "sharp" in columns of 40 ms, beside unrefined maps and energy refined alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from bundled_parts.material import recordings

import attnviz
from attnviz.alignment import Alignment
from attnviz.alignment.phrases import AlignedPhrase
from attnviz.maps import AttentionMaps
from attnviz.maps.layer import cells_of
from attnviz.maps.readouts import resample
from attnviz.maps.settling import settled
from attnviz.sounds import scenes
from solo_parts.material import explained
from solo_parts.settings import Settings

SHARP, UNREFINED, MEAN = "sharp", "unrefined", "mean"
SCORES = ("roc_auc", "psds1", "iou", "onset_distance", "segment_f1")


def sharp_tables(pipe: Any, settings: Settings) -> dict[str, pd.DataFrame]:
    """Return the pooled scores of sharp maps and their controls, and the paired differences.

    The scenes are those of the alignment study, with one to four sounds.
    """
    found = []
    given = recordings(settings.esc10, settings.fold)
    composed = scenes(given, settings.sharp_scenes, (settings.seed, settings.fold))
    for number, scene in enumerate(composed):
        maps = explained(pipe, scene, number, settings)
        one = attnviz.align(maps, scene.events, masks=scene.masks(), readout=SHARP)
        found.append(replace(one, phrases=tuple(_beside(maps, phrase) for phrase in one.phrases)))
    pooled = Alignment.concat(found).pool(n_resamples=settings.resamples)
    scores = pooled.scores[pooled.scores["score"].isin(SCORES)]
    differences = pooled.differences[pooled.differences["score"].isin(SCORES)]
    return {"sharp": scores, "sharp_differences": differences}


def _beside(maps: AttentionMaps, phrase: AlignedPhrase) -> AlignedPhrase:
    """Add the maps that were refined, and the mean of all layers, on the columns of the sharp ones."""
    curves, heats, seeds = dict(phrase.curves), dict(phrase.heats), dict(phrase.seeds)
    base = settled(SHARP, maps.provenance).base
    sharp = maps.heatmap(phrase.events.span, readout=SHARP)
    cells, heard = cells_of(sharp, maps.grid), ~sharp["padding"].to_numpy()
    for name, readout in ((UNREFINED, base), (MEAN, "mean")):
        own = maps.heatmap(phrase.events.span, readout=readout)
        heat = resample(own.to_numpy().astype(np.float64), cells_of(own, maps.grid), cells)[:, heard]
        curves[name], seeds[name] = (heat.mean(axis=0),), 1
        if heats:
            heats[name] = (heat,)
    return replace(phrase, curves=curves, heats=heats, seeds=seeds)
