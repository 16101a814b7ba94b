"""Synthetic maps with known events for examples and tests: a dog at two times, then rain."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from attnviz.arguments import public, whole_number
from attnviz.audio.grid import SpectrogramGrid
from attnviz.events import event_table
from attnviz.maps import AttentionMaps, LayerAttention
from attnviz.text.tokens import TokenTable, make_rows
from attnviz.text.words import split_words

EXAMPLE_PROMPT = "a dog barks, then rain falls"

_KEYS = 16
_LAYERS = {
    "down_blocks.0.attentions.0": (16, 64),
    "down_blocks.1.attentions.0": (8, 32),
    "mid_block.attentions.0": (4, 16),
    "up_blocks.1.attentions.0": (8, 32),
    "up_blocks.2.attentions.0": (16, 64),
}
_SOUNDS = (
    ("dog barks", 1.0, 2.2, 400.0, 2500.0),
    ("dog barks", 3.6, 4.8, 400.0, 2500.0),
    ("rain falls", 5.5, 9.5, 1000.0, 8000.0),
)


def example_events() -> pd.DataFrame:
    """Return the events of `example_maps`, as an event table with frequency bands.

    Returns
    -------
    pandas.DataFrame
        Columns ``clip``, ``label``, ``onset`` and ``offset`` (s), ``low`` and ``high`` (Hz).
    """
    names = ("label", "onset", "offset", "low", "high")
    return event_table([{"clip": "example.wav", **dict(zip(names, row, strict=True))} for row in _SOUNDS])


@public
def example_maps(
    *, steps: int | None = None, heads: int | None = None, both: bool = False, seed: int = 0
) -> AttentionMaps:
    """Return maps of a synthetic run, in which words are attended to where their sounds occur.

    Probabilities sum to 1 over the 16 keys. The start token has the highest probability outside sounds; "a" and
    "then" have no preferred position. The last denoising steps are the most selective. The clip lasts 10 s.

    Parameters
    ----------
    steps, heads : int, optional
        Number of denoising steps and heads to keep. By default, both are averaged.
    both : bool
        Keep both branches of guidance; in the unconditional branch, attention does not depend on words.
    seed : int
        Seed of the noise.

    Returns
    -------
    AttentionMaps

    Examples
    --------
    >>> maps = example_maps()
    >>> round(float(maps.activation("rain").idxmax()), 1) > 5.5
    True
    """
    steps = None if steps is None else whole_number("steps", steps, most=1000)
    heads = None if heads is None else whole_number("heads", heads, most=1000)
    grid = SpectrogramGrid(audio_seconds=10.0)
    rng = np.random.default_rng(seed)
    tokens = _tokens()
    kept = {"branch": 2 if both else None, "prompt": 1, "image": 1, "step": steps, "head": heads}
    dims = tuple(dim for dim, size in kept.items() if size is not None)
    layers = {}
    for number, (name, shape) in enumerate(_LAYERS.items()):
        sizes = tuple(kept[dim] or 1 for dim in ("branch", "step", "head"))
        logits = _noise(rng, (*sizes, _KEYS, *shape))
        logits[..., 0, :, :] += 2.0  # the start token
        gain = np.linspace(1.5, 4.0, sizes[1])[:, None] * np.linspace(1.2, 0.6, sizes[2]) * (1.1 - 0.1 * number)
        for label, place in _places(grid, shape).items():
            logits[-1, :, :, tokens.find(label)] += gain[..., None, None] * place
        weights = np.exp(logits)
        attention = (weights / weights.sum(axis=-3, keepdims=True)).astype(np.float32)
        full = tuple(kept[dim] or 1 for dim in dims)
        rows_down = attention[..., ::-1, :].reshape(*full, _KEYS, *shape)
        layers[name] = LayerAttention(rows_down, (*dims, "token", "row", "column"), heads or 4)
    return AttentionMaps.from_layers(
        layers,
        tokens=[tokens],
        positions=range(_KEYS),
        timesteps=np.linspace(981.0, 1.0, steps or 50).tolist(),
        grid=grid,
        spectrogram=_log_mel(grid, rng)[None, None],
        provenance={"model": "synthetic", "seed": seed},
    )


def _tokens() -> TokenTable:
    words = [(word.start, word.end, word.text, word.occurrence) for word in split_words(EXAMPLE_PROMPT)]
    comma = EXAMPLE_PROMPT.index(",")
    spans = sorted([*words, (comma, comma + 1, "", -1)])
    rows: list[tuple[object, ...]] = [(0, 0, 0, "<start>", -1, -1, "", -1, "start")]
    for start, end, word, occurrence in spans:
        rows.append((0, len(rows), 9, EXAMPLE_PROMPT[start:end], start, end, word, occurrence, "text"))
    rows.append((0, len(rows), 1, "<end>", -1, -1, "", -1, "end"))
    rows += [(0, position, -1, "", -1, -1, "", -1, "padding") for position in range(len(rows), _KEYS)]
    return TokenTable(EXAMPLE_PROMPT, make_rows(rows), (len(EXAMPLE_PROMPT),))


def _places(grid: SpectrogramGrid, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return the activity of each phrase on a grid, lowest row first, with soft edges."""
    seconds, hertz = grid.time(shape[1]), grid.freq(shape[0])
    places = {label: np.zeros(shape) for label, *_ in _SOUNDS}
    for label, onset, offset, low, high in _SOUNDS:
        inside = (hertz >= low)[:, None] & (hertz <= high)[:, None] & (seconds >= onset) & (seconds < offset)
        places[label] = np.maximum(places[label], inside)
    return {label: gaussian_filter(place, shape[0] / 20) for label, place in places.items()}


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return noise with standard deviation 0.3 that varies slowly over frequency and time."""
    smooth = (0.0,) * (len(shape) - 2) + (shape[-2] / 8, shape[-2] / 8)
    noise = gaussian_filter(rng.normal(size=shape), smooth)
    return np.asarray(0.3 * noise / noise.std())


def _log_mel(grid: SpectrogramGrid, rng: np.random.Generator) -> np.ndarray:
    sound = sum(_places(grid, (grid.bands, grid.width)).values())
    mel = -7.0 + 6.0 * sound + rng.normal(scale=0.5, size=(grid.bands, grid.width))
    return np.where(grid.padding(grid.width), np.log(1e-5), mel)
