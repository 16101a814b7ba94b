"""Synthetic token tables and captured layers for the tests of maps and plots."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from attnviz.audio.grid import SpectrogramGrid
from attnviz.maps import AttentionMaps, LayerAttention
from attnviz.text.tokens import TokenTable, make_rows
from attnviz.text.words import split_words, word_at

SD_LAYERS = {
    **{f"down_blocks.{i}.attentions.{j}": i for i in range(3) for j in range(2)},
    "mid_block.attentions.0": 3,
    **{f"up_blocks.{i}.attentions.{j}": 3 - i for i in range(1, 4) for j in range(3)},
}
"""The 16 cross-attention layers of Stable Diffusion 1.x, and the level each stands at."""

PROMPT = "a dog barks, then rain falls"
GRID = SpectrogramGrid(height=40, width=72, audio_seconds=0.6)
"""0.72 s, of which the last 0.12 s are padding; never square, and odd at every coarser level (5 x 9, 3 x 5)."""
SMALL = {
    "down_blocks.0.attentions.0": (5, 9),
    "down_blocks.1.attentions.0": (3, 5),
    "mid_block.attentions.0": (2, 3),
    "up_blocks.1.attentions.0": (3, 5),
    "up_blocks.2.attentions.0": (5, 9),
}


def table(prompt: str, keys: int = 16, encoders: int = 1, room: int | None = None) -> TokenTable:
    """A token table as a real tokenizer would give it, from pieces of at most four characters."""
    words = split_words(prompt)
    pieces = [
        (match.start() + at, min(match.start() + at + 4, match.end()))
        for match in re.finditer(r"\w+|[^\w\s]+", prompt)
        for at in range(0, match.end() - match.start(), 4)
    ]
    kept = pieces[: (room or keys) - 2]
    rows: list[tuple[object, ...]] = []
    for encoder in range(encoders):
        position = encoder * keys
        rows.append((encoder, position, 0, "<start>", -1, -1, "", -1, "start"))
        for start, end in kept:
            position += 1
            word = word_at(words, start, end)
            named = (word.text, word.occurrence) if word else ("", -1)
            rows.append((encoder, position, 9, prompt[start:end], start, end, *named, "text"))
        rows.append((encoder, position + 1, 1, "<end>", -1, -1, "", -1, "end"))
        padding = range(position + 2, (encoder + 1) * keys)
        rows += [(encoder, place, -1, "", -1, -1, "", -1, "padding") for place in padding]
    cut = len(prompt) if len(kept) == len(pieces) else pieces[len(kept)][0]
    return TokenTable(prompt, make_rows(rows), (cut,) * encoders)


def sd_grids(rows: int, columns: int) -> dict[str, tuple[int, int]]:
    """The grid of each of the 16 layers for latents of rows x columns; stride-2 convolutions round up."""
    grids = {}
    for name, level in SD_LAYERS.items():
        grids[name] = (-(-rows // 2**level), -(-columns // 2**level))
    return grids


def captured(
    grids: dict[str, tuple[int, int]],
    *,
    prompts: int = 1,
    images: int = 1,
    steps: int | None = None,
    heads: int | None = None,
    both: bool = False,
    tokens: int = 16,
    seed: int = 0,
    latents: tuple[int, int] | None = None,
) -> dict[str, LayerAttention]:
    """Captured layers of random probabilities (they sum to 1 over the tokens).

    A cell of the latents, by default the finest grid, is 8 mel bands and 8 columns of the spectrogram.
    """
    latents = latents or max(grids.values(), key=lambda size: size[0] * size[1])
    rng = np.random.default_rng(seed)
    sizes = {"branch": 2 if both else None, "prompt": prompts, "image": images, "step": steps, "head": heads}
    kept = {dim: size for dim, size in sizes.items() if size is not None}
    layers = {}
    for name, (rows, columns) in grids.items():
        logits = rng.normal(size=(*kept.values(), tokens, rows, columns))
        weights = np.exp(2 * logits)
        attention = (weights / weights.sum(axis=-3, keepdims=True)).astype(np.float32)
        dims = (*kept, "token", "row", "column")
        layers[name] = LayerAttention(attention, dims, heads or 4, stride_of((rows, columns), latents))
    return layers


def stride_of(size: tuple[int, int], latents: tuple[int, int]) -> tuple[float, float]:
    """Bands and columns of the spectrogram in a cell of a grid that was halved some times, rounding up."""
    wanted = [latents]
    while wanted[-1] != size:
        wanted.append((-(-wanted[-1][0] // 2), -(-wanted[-1][1] // 2)))
    return (8.0 * 2 ** (len(wanted) - 1),) * 2


def make(layers: dict[str, LayerAttention] | None = None, **changes: object) -> AttentionMaps:
    """Maps of one small run."""
    layers = captured(SMALL) if layers is None else layers
    settings: dict[str, object] = {
        "tokens": [table(PROMPT)],
        "positions": range(16),
        "timesteps": [981.0, 501.0, 1.0],
        "grid": GRID,
        "provenance": {"model": "tiny", "steps": 3, "guidance": 7.5, "seed": 0},
    }
    settings |= changes
    if "grid" in changes:
        layers = over(changes["grid"], layers)
    return AttentionMaps.from_layers(layers, **settings)  # type: ignore[arg-type]


def over(grid: SpectrogramGrid, layers: dict[str, LayerAttention]) -> dict[str, LayerAttention]:
    """Give layers whose cells would not cover a spectrogram of another size strides that do."""
    layer = max(layers.values(), key=lambda one: one.attention.size if one.stride else 0)
    if layer.stride is None:
        return layers
    sizes = (grid.height, grid.width)
    covered = [count * step for count, step in zip(layer.attention.shape[-2:], layer.stride, strict=True)]
    factors = [
        1.0 if abs(have - size) < step else size / have
        for have, size, step in zip(covered, sizes, layer.stride, strict=True)
    ]
    return {
        name: one
        if one.stride is None
        else replace(one, stride=(one.stride[0] * factors[0], one.stride[1] * factors[1]))
        for name, one in layers.items()
    }


def inside(folder: Path) -> list[str]:
    """Names of what a folder holds, hidden things too."""
    return sorted(entry.name for entry in folder.iterdir())
