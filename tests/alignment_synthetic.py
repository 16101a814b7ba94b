"""Maps of one layer with planted curves, their events, and pools of clips with a known answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from maps.maps_synthetic import table as token_table

from attnviz.alignment import Alignment, align
from attnviz.audio import SpectrogramGrid
from attnviz.events import column_activity
from attnviz.maps import AttentionMaps, LayerAttention

PROMPT = "a dog barks, then rain falls"
DOG, RAIN = (2, 11), (18, 28)
COLUMNS, ROWS = 40, 3
GRID = SpectrogramGrid(height=6, width=80, audio_seconds=0.72)
"""0.8 s in 40 columns of 20 ms; the last four are padding."""
HEARD = 36

Curves = Mapping[tuple[int, int], np.ndarray]


def planted_maps(
    curves: Curves,
    *,
    prompt: str = PROMPT,
    grid: SpectrogramGrid = GRID,
    log_mel: np.ndarray | None = None,
    rows: int = ROWS,
    images: int = 1,
) -> AttentionMaps:
    """Maps whose phrases, by their spans, have these curves (columns,) or heats (rows, columns), low row first."""
    tokens = token_table(prompt)
    columns = np.shape(next(iter(curves.values())))[-1]
    attention = np.full((1, images, 16, rows, columns), 0.01, dtype=np.float32)
    for span, curve in curves.items():
        heat = np.broadcast_to(curve, (rows, columns))
        attention[:, :, tokens.find(span)] = heat[::-1]  # captured with the highest frequency in row 0
    dims = ("prompt", "image", "token", "row", "column")
    layers = {"down_blocks.0.attentions.0": LayerAttention(attention, dims, 4)}
    sound = None if log_mel is None else np.broadcast_to(log_mel, (1, images, grid.height, grid.width))
    return AttentionMaps.from_layers(
        layers, tokens=[tokens], positions=range(16), timesteps=[1.0], grid=grid, spectrogram=sound
    )


def event_rows(*rows: tuple[Any, ...], clip: str = "x.wav", **columns: Any) -> pd.DataFrame:
    """Events of one clip: (label, onset, offset)."""
    frame = pd.DataFrame([*rows], columns=["label", "onset", "offset"])
    return frame.assign(clip=clip, **columns)


Maker = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""From a phrase's shares and the clip's energy envelope, both (columns,): its curve."""

KNOWN: dict[str, Maker] = {
    "perfect": lambda share, energy, rng: share,
    "inverted": lambda share, energy, rng: 1 - share,
    "energy": lambda share, energy, rng: energy,
    "noisy energy": lambda share, energy, rng: energy + 0.2 * rng.random(len(share)),
    "noise": lambda share, energy, rng: rng.random(len(share)),
}


def study(kind: str, *, clips: int = 24, seed: int = 0, controls: Callable[..., Any] | None = None) -> Alignment:
    """Pool clips of two sounds each, whose maps are of a known kind; sources recur over clips."""
    rng = np.random.default_rng(seed)
    results = []
    for number in range(clips):
        # Sounds may begin before the clip and outlast it, so that no moment of a clip is fuller than another.
        lengths = rng.uniform(0.12, 0.3, 2)
        starts = rng.uniform(0.06 - lengths, 0.72 - 0.06)
        onsets, offsets = np.maximum(starts, 0.0), np.minimum(starts + lengths, 0.72)
        shares = [column_activity([on], [off], GRID, COLUMNS) for on, off in zip(onsets, offsets, strict=True)]
        level = np.repeat(shares[0] + shares[1], 2) + 0.4 * rng.random(GRID.width)
        log_mel = np.log(0.05 + level) + 0.1 * rng.random((GRID.height, GRID.width))
        envelope = np.log(np.exp(2 * log_mel).sum(axis=0).reshape(COLUMNS, 2).mean(axis=1))
        energy = (envelope - envelope.min()) / np.ptp(envelope)
        make = KNOWN[kind]
        curves = {
            span: 0.01 + 0.9 * make(share, energy, rng) for span, share in zip((DOG, RAIN), shares, strict=True)
        }
        events = event_rows(
            *(("dog barks", onsets[0], offsets[0]), ("rain falls", onsets[1], offsets[1])),
            clip=f"{number}.wav",
            source=[f"recording {2 * number % 34}", f"recording {(2 * number + 1) % 34}"],
        )
        given = None if controls is None else controls(shares, energy, rng)
        results.append(align(planted_maps(curves, log_mel=log_mel), events, controls=given))
    return Alignment.concat(results)
