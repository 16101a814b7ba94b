"""Plant faults in maps, sound and predictions of a model, for each sign of `attnviz.diagnose`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import attnviz
from attnviz.diagnosis import Diagnosis
from attnviz.diagnosis.thresholds import (
    ALIKE,
    ARTEFACTS,
    CLIPPED,
    DISTORTED,
    IGNORED,
    NOISY,
    SILENT,
    SINK,
    UNCONDITIONED,
    UNIFORM,
    UNMOVED,
)
from attnviz.maps import AttentionMaps, LayerAttention

Pair = tuple[np.ndarray, np.ndarray]
_LEFT = 0.05  # remaining fraction of the attention to a starved word
_FLOOR = float(np.log(1e-5))


def planted(
    maps: AttentionMaps, predictions: Pair, reconstruction: Pair, audio: np.ndarray
) -> dict[str, Diagnosis]:
    """Diagnose the maps of a prompt once for each sign, with the fault of that sign planted.

    Parameters
    ----------
    maps : AttentionMaps
        Maps of both branches, averaged over steps and heads, for one prompt and image.
    predictions, reconstruction : (array, array)
        See `attnviz.diagnose`.
    audio : numpy.ndarray, shape (samples,)
        The generated audio at 16 kHz, not silent.

    Returns
    -------
    dict of str to Diagnosis
        Diagnoses by the planted sign.
    """
    rows = maps.tokens[0].rows
    entries = {int(position): entry for entry, position in enumerate(maps.positions)}
    words = [entries[key] for key in rows.loc[rows["kind"] == "text", "position"].tolist() if key in entries]
    last = [entries[int(key)] for key in maps.tokens[0].find(maps.occurrences(0)[-1].span)]
    rng = np.random.default_rng(0)

    def flat(values: np.ndarray) -> None:
        values[..., words, :, :] = values[..., words, :, :].mean(axis=(-2, -1), keepdims=True)

    def speckled(values: np.ndarray) -> None:
        cells = values[..., words, :, :]
        shuffled = rng.permuted(cells.reshape(*cells.shape[:-2], -1), axis=-1)
        values[..., words, :, :] = shuffled.reshape(cells.shape)

    def alike(values: np.ndarray) -> None:
        values[..., words, :, :] = values[..., words, :, :].mean(axis=-3, keepdims=True)

    def drained(values: np.ndarray) -> None:
        values[..., words, :, :] *= _LEFT

    def ignored(values: np.ndarray) -> None:
        values[..., last, :, :] *= _LEFT

    def unconditioned(values: np.ndarray) -> None:
        values[:] = values[:1]

    guided, unguided = predictions
    original, again = reconstruction
    given = {"predictions": predictions, "reconstruction": reconstruction}
    changes: dict[str, Callable[[np.ndarray], None]] = {
        UNIFORM: flat,
        NOISY: speckled,
        ALIKE: alike,
        SINK: drained,
        IGNORED: ignored,
        UNCONDITIONED: unconditioned,
    }
    found = {name: attnviz.diagnose(changed(maps, change), **given) for name, change in changes.items()}
    clipped = changed(maps, sound=lambda log_mel: np.minimum(log_mel, np.quantile(log_mel, 0.95)))
    silent = changed(maps, sound=lambda log_mel: np.full_like(log_mel, _FLOOR))
    return found | {
        UNMOVED: attnviz.diagnose(maps, predictions=(unguided + 1e-3 * (guided - unguided), unguided)),
        CLIPPED: attnviz.diagnose(clipped),
        SILENT: attnviz.diagnose(silent),
        DISTORTED: attnviz.diagnose(maps, audio=np.clip(4 * audio / np.abs(audio).max(), -1, 1)),
        # Sounds at other times.
        ARTEFACTS: attnviz.diagnose(maps, reconstruction=(original, np.roll(again, again.shape[1] // 2, axis=1))),
    }


def changed(
    maps: AttentionMaps,
    attention: Callable[[np.ndarray], None] = lambda values: None,
    sound: Callable[[np.ndarray], np.ndarray] = lambda log_mel: log_mel,
) -> AttentionMaps:
    """Return maps after changing their probabilities (branch, prompt, image, token, freq, time) in place."""
    layers = {}
    for name in maps.layers:
        values = maps[name].to_numpy().astype(np.float64)
        attention(values)
        dims = tuple(str(dim) for dim in maps[name].dims[:-2])
        layers[name] = LayerAttention(values[..., ::-1, :], (*dims, "row", "column"), 1)
    spectrogram = maps.spectrogram
    return AttentionMaps.from_layers(
        layers,
        tokens=maps.tokens,
        positions=maps.positions,
        timesteps=maps.timesteps,
        grid=maps.grid,
        spectrogram=None if spectrogram is None else sound(spectrogram.to_numpy()),
    )
