"""SI-SDR improvement of solos over the mixture, beside controls and the ideal mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from attnviz.maps import AttentionMaps
from attnviz.maps.sharing import refined, relative_logarithms, shares
from attnviz.maps.sharp import above_floor
from attnviz.scenes import Scene
from attnviz.scenes.shares import energy_shares
from attnviz.separation import separate, si_sdr
from attnviz.separation.filtering import filtered
from attnviz.separation.separating import EXPONENT
from solo_parts.two_sounds import Explained

SOLO, MAP, OTHER = "solo", "map alone", "other word's mask"
ENERGY, RANDOM, IDEAL = "energy gating", "random masks", "ideal ratio mask"
CONTROLS = (MAP, OTHER, ENERGY, RANDOM)
UNREFINED = "solo, unrefined"


def scene_rows(explained: Explained, fold: int, kind: str, number: int) -> list[dict[str, Any]]:
    """Score the solos of a two-sound scene: a row per phrase and method."""
    scene, maps = explained.two_sounds(fold, kind, number)
    return improvements(scene, masks_of(maps, scene, number), maps, {"kind": kind, "scene": number})


def masks_of(maps: AttentionMaps, scene: Scene, number: int) -> dict[str, np.ndarray]:
    """Return the masks of both sounds with every method, ``(2, bands, frames)``."""
    spans = [sound.span for sound in scene.sounds]
    solos = separate(maps, scene.mixture, phrases=spans).masks.to_numpy()
    heats = np.stack([maps.heatmap(span, grid="image").to_numpy() for span in spans]).astype(np.float64)
    relative = np.maximum(heats, 0) / heats.max(axis=(1, 2), keepdims=True)
    log_mel = maps.spectrogram[0, 0].to_numpy()
    cells = maps.grid.cells(*log_mel.shape)
    loud = above_floor(log_mel, cells)
    rng = np.random.default_rng(number)
    noise = np.exp(4 * gaussian_filter(rng.normal(size=heats.shape), (0, 16, 32)) * 32)
    random = shares(refined(relative_logarithms(noise), log_mel, cells), EXPONENT)
    return {
        SOLO: solos,
        UNREFINED: shares(relative_logarithms(heats), EXPONENT),
        MAP: relative,
        OTHER: solos[::-1],
        ENERGY: np.stack([loud / loud.max()] * 2),
        RANDOM: random,
        IDEAL: energy_shares(scene.stems, *log_mel.shape)[:2].astype(np.float64),
    }


def improvements(
    scene: Scene, masks: Mapping[str, np.ndarray], maps: AttentionMaps, named: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Score the clip filtered by each mask against the sound alone."""
    rows = []
    for method, both in masks.items():
        cells = maps.grid.cells(*both.shape[1:])
        sounds = filtered(scene.mixture, maps.grid.sampling_rate, both, cells)
        for sound, made, stem in zip(scene.sounds, sounds, scene.stems, strict=False):
            gain = si_sdr(made, stem) - si_sdr(scene.mixture, stem)
            rows.append({**named, "sound": sound.sound, "source": sound.source, "method": method, "gain": gain})
    return rows
