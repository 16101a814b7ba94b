"""Healthy maps, and the same maps with one fault planted."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from attnviz.diagnosis.thresholds import ALIKE, CLIPPED, IGNORED, NOISY, SILENT, SINK, UNCONDITIONED, UNIFORM
from attnviz.maps import AttentionMaps, LayerAttention
from attnviz.testing import example_maps

START, DOG, TEXT = 0, 2, slice(1, 8)


@lru_cache
def healthy() -> AttentionMaps:
    return example_maps(both=True)


def changed(
    attention: Callable[[np.ndarray], None] = lambda values: None,
    sound: Callable[[np.ndarray], np.ndarray] = lambda log_mel: log_mel,
    maps: AttentionMaps | None = None,
) -> AttentionMaps:
    """Healthy maps with their probabilities (branch, prompt, image, token, row, column) changed in place.

    What the words lose or gain the start token gains or loses.
    """
    given = maps or healthy()
    layers = {}
    for name in given.layers:
        values = given[name].to_numpy()[..., ::-1, :].astype(np.float64)
        attention(values)
        values[..., START, :, :] += 1 - values.sum(axis=-3)
        dims = tuple(str(dim) for dim in given[name].dims[:-2])
        layers[name] = LayerAttention(values, (*dims, "row", "column"), 4)
    return AttentionMaps.from_layers(
        layers,
        tokens=given.tokens,
        positions=given.positions,
        timesteps=given.timesteps,
        grid=given.grid,
        spectrogram=None if given.spectrogram is None else sound(given.spectrogram.to_numpy()),
    )


def flatten(values: np.ndarray) -> None:
    words = values[..., TEXT, :, :]
    words[:] = words.mean(axis=(-2, -1), keepdims=True)


def speckle(values: np.ndarray) -> None:
    rng = np.random.default_rng(values.shape[-1])
    words = values[..., TEXT, :, :]
    shape = words.shape
    words[:] = 0.3 * rng.dirichlet(np.full(7, 1.0), size=(*shape[:-3], *shape[-2:])).transpose(0, 1, 2, 5, 3, 4)


def make_alike(values: np.ndarray) -> None:
    words = values[..., TEXT, :, :]
    words[:] = words.mean(axis=-3, keepdims=True)


def drain(values: np.ndarray) -> None:
    values[1, ..., 1:, :, :] *= 0.05  # with the prompt


def ignore_the_dog(values: np.ndarray) -> None:
    values[..., DOG, :, :] *= 0.05


def forget_the_prompt(values: np.ndarray) -> None:
    values[0] = values[1]


def clip(log_mel: np.ndarray) -> np.ndarray:
    return np.minimum(log_mel, np.quantile(log_mel, 0.95))


def silence(log_mel: np.ndarray) -> np.ndarray:
    return np.log(1e-5) + np.random.default_rng(0).random(log_mel.shape)


PLANTED: dict[str, Callable[[], AttentionMaps]] = {
    UNIFORM: lambda: changed(flatten),
    NOISY: lambda: changed(speckle),
    ALIKE: lambda: changed(make_alike),
    SINK: lambda: changed(drain),
    IGNORED: lambda: changed(ignore_the_dog),
    UNCONDITIONED: lambda: changed(forget_the_prompt),
    CLIPPED: lambda: changed(sound=clip),
    SILENT: lambda: changed(sound=silence),
}
