"""Scores of the readout "sharp" in columns of 40 ms, beside unrefined maps and energy refined alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from harness import Progress, Study

import attnviz
from attnviz.alignment import Alignment
from attnviz.alignment.phrases import AlignedPhrase
from attnviz.maps import AttentionMaps
from attnviz.maps.layer import cells_of
from attnviz.maps.readouts import resample
from attnviz.maps.settling import settled
from solo_parts.two_sounds import Explained

SHARP, UNREFINED, MEAN = "sharp", "unrefined", "mean"
SCORES = ("roc_auc", "psds1", "iou", "onset_distance", "segment_f1")


def sharp_tables(study: Study, explained: Explained) -> dict[str, pd.DataFrame]:
    """Return the pooled scores of sharp maps and their controls, and the paired differences.

    The scenes are those of the alignment study, with one to four sounds.
    """
    count = explained.settings.sharp_scenes
    paths = [study.piece(SHARP, f"{number:04d}.alignment") for number in range(count)]
    progress = Progress(SHARP, count)
    for number, path in enumerate(paths):
        if not path.exists():
            scene, maps = explained.of_alignment(number)
            one = attnviz.align(maps, scene.events, masks=scene.masks(), readout=SHARP)
            replace(one, phrases=tuple(_beside(maps, phrase) for phrase in one.phrases)).save(path)
        progress.step()
    pooled = Alignment.concat(map(Alignment.load, paths)).pool(n_resamples=explained.settings.resamples)
    found = {SHARP: pooled.scores, "sharp_differences": pooled.differences}
    return {name: table[table["score"].isin(SCORES)] for name, table in found.items()}


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
