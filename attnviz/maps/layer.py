"""Label the captured attention of a layer: rows in Hz, columns in seconds, and key positions with token texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from attnviz.audio.grid import CellGrid, SpectrogramGrid
from attnviz.errors import AudioError, MapsError
from attnviz.text.tokens import TokenTable

CAPTURED_DIMS = ("branch", "prompt", "image", "step", "head", "token", "row", "column")
"""Axes of captured attention, in fixed order. ``branch``, ``step``, ``head`` and ``row`` are optional."""

PROBABILITY = "attention probability"
"""Name of the values of attention."""

SIGNED_PROBABILITY = "difference of two attention probabilities"
"""Name of the values of differential attention."""

BRANCHES = ("unconditional", "conditional")
"""Order of the branch axis, as diffusers batches the two halves of classifier-free guidance."""

_OPTIONAL_DIMS = frozenset({"branch", "step", "head", "row"})
_PLACES = {"down_blocks": "down", "mid_block": "mid", "up_blocks": "up"}


@dataclass(frozen=True)
class LayerAttention:
    """Captured attention of one layer.

    Attributes
    ----------
    attention : numpy.ndarray, float
        Attention probability, averaged over the axes that are absent. Row 0 is the top row of the image, the
        highest frequency.
    dims : tuple of str
        Names of the axes, in the order ``branch, prompt, image, step, head, token, row, column``. ``branch``,
        ``step`` and ``head`` are optional, and ``row`` is absent if the model has no frequency axis. The branch
        axis has the unconditional half first.
    heads : int
        Number of heads of the layer, also if they were averaged.
    stride : (float, float), optional
        Stride of the cells in mel bands and spectrogram columns. By default, the grid divides the spectrogram
        evenly.
    """

    attention: np.ndarray
    dims: tuple[str, ...]
    heads: int
    stride: tuple[float, float] | None = None


@dataclass(frozen=True)
class TokenLabels:
    """Labels of the token axis: text, kind and encoder of every stored key position.

    Attributes
    ----------
    positions : numpy.ndarray of int64, shape (tokens,)
    text, kind : numpy.ndarray of str, shape (prompts, tokens)
    encoder : numpy.ndarray of int64, shape (tokens,)
    """

    positions: np.ndarray
    text: np.ndarray
    kind: np.ndarray
    encoder: np.ndarray

    @classmethod
    def of(cls, tables: Sequence[TokenTable], positions: Sequence[int]) -> TokenLabels:
        """Look up every stored position in the token table of every prompt.

        Raises
        ------
        MapsError
            If the positions are not ascending, or if no table contains one of them.
        """
        wanted = np.asarray(positions, dtype=np.int64)
        if wanted.ndim != 1 or wanted.size == 0 or wanted[0] < 0 or np.any(np.diff(wanted) <= 0):
            raise MapsError(
                f"positions must be ascending key positions without repeats, at least one; got {list(positions)}."
            )
        rows = [table.rows.set_index("position").reindex(wanted) for table in tables]
        known = np.array([row["kind"].notna().to_numpy() for row in rows])
        if not known.any(axis=0).all():
            raise MapsError(
                f"No token table contains key positions {wanted[~known.any(axis=0)].tolist()}. Does the token "
                "table belong to another model (other encoders, another maximum length)?"
            )
        # The table of a shorter prompt does not list its padding positions.
        text = np.array([row["text"].fillna("").astype(str).to_list() for row in rows], dtype=np.str_)
        kind = np.array([row["kind"].fillna("padding").astype(str).to_list() for row in rows], dtype=np.str_)
        encoder = pd.concat([row["encoder"] for row in rows], axis=1).bfill(axis=1).iloc[:, 0]
        return cls(wanted, text, kind, encoder.to_numpy(dtype=np.int64))


def place_of(name: str) -> str:
    """Return the part of the U-Net that a layer belongs to: ``"down"``, ``"mid"``, ``"up"`` or ``"other"``.

    Examples
    --------
    >>> place_of("up_blocks.1.attentions.2")
    'up'
    """
    return _PLACES.get(name.split(".", maxsplit=1)[0], "other")


def short_name(name: str) -> str:
    """Shorten the name of a layer to its part of the U-Net and its numbers.

    Examples
    --------
    >>> short_name("down_blocks.0.attentions.1"), short_name("mid_block.attentions.0")
    ('down.0.1', 'mid.0')
    """
    place = place_of(name)
    numbers = re.findall(r"(?<=\.)\d+(?=\.|$)", name)
    return name if place == "other" else ".".join([place, *numbers])


def label_layer(
    name: str,
    layer: LayerAttention,
    labels: TokenLabels,
    timesteps: Sequence[float],
    grid: SpectrogramGrid,
    quantity: str,
) -> xr.Dataset:
    """Return one captured layer as a labelled array, with ascending frequency in Hz and time in seconds.

    Returns
    -------
    xarray.Dataset
        Variable ``attention``, a float32 copy with dims ``[branch], prompt, image, [step], [head], token, [freq],
        time``.

    Raises
    ------
    MapsError
        If an axis, a size or a value is invalid. The message names the layer.
    """
    _check_axes(name, layer, labels, len(timesteps), grid)
    rows_up = np.flip(layer.attention, axis=-2) if grid.has_freq else layer.attention  # highest frequency on top
    attention = np.array(rows_up, dtype=np.float32, order="C")
    if not (np.isfinite(attention.min()) and np.isfinite(attention.max())):
        raise MapsError(
            f"{name}: the attention contains NaN or infinite values. The usual cause is overflow in float16 or a "
            "damaged weight. Try bfloat16 or float32."
        )
    cells = _cells(name, layer, grid)
    named = {"row": "freq", "column": "time"}
    dims = tuple(named.get(dim, dim) for dim in layer.dims)
    sizes = dict(zip(dims, attention.shape, strict=True))
    return xr.Dataset(
        {"attention": (dims, attention, {"long_name": quantity, **_facts(name, layer, cells)})},
        coords=_coordinates(sizes, labels, timesteps, cells),
    )


def cells_of(array: xr.DataArray, grid: SpectrogramGrid) -> CellGrid:
    """Return the grid of the array of a layer or of a heat map, using the stride in its attributes."""
    stride = array.attrs.get("stride")  # absent from arrays that the user made
    rows, columns = level_of(array)
    return grid.cells(rows, columns, None if stride is None else (float(stride[0]), float(stride[1])))


def level_of(array: xr.DataArray) -> tuple[int, int]:
    """Return rows and columns of the array of a layer or of a heat map; one row without a frequency axis."""
    return int(array.sizes.get("freq", 1)), int(array.sizes["time"])


def _cells(name: str, layer: LayerAttention, grid: SpectrogramGrid) -> CellGrid:
    try:
        return grid.cells(*_level(layer), layer.stride)
    except AudioError as error:
        raise MapsError(f"{name}: {error}") from error


def _facts(name: str, layer: LayerAttention, cells: CellGrid) -> dict[str, object]:
    return {
        "layer": name,
        "place": place_of(name),
        "heads": int(layer.heads),
        "grid": list(_level(layer)),
        "stride": list(cells.stride),
    }


def _level(layer: LayerAttention) -> tuple[int, int]:
    sizes = dict(zip(layer.dims, layer.attention.shape, strict=True))
    return int(sizes.get("row", 1)), int(sizes["column"])


def _coordinates(
    sizes: dict[str, int],
    labels: TokenLabels,
    timesteps: Sequence[float],
    cells: CellGrid,
) -> dict[str, object]:
    coords: dict[str, object] = {
        dim: np.arange(sizes[dim], dtype=np.int64) for dim in ("prompt", "image", "step", "head") if dim in sizes
    }
    if "branch" in sizes:
        coords["branch"] = np.array(BRANCHES)
    if "step" in sizes:
        coords["timestep"] = ("step", np.asarray(timesteps, dtype=np.float64))
    coords["token"] = ("token", labels.positions, {"long_name": "key position"})
    coords["token_text"] = (("prompt", "token"), labels.text)
    coords["token_kind"] = (("prompt", "token"), labels.kind)
    coords["token_encoder"] = ("token", labels.encoder)
    coords.update(axes_of(cells))
    return coords


def axes_of(cells: CellGrid) -> dict[str, object]:
    """Return the coordinates of a grid: ``freq`` (Hz), if any, ``time`` (s) and ``padding`` (bool, along time)."""
    facts = {"units": "s", "long_name": "time"}
    if cells.grid.smear > 1:
        facts["smear"] = (
            f"a column is the mean of {cells.grid.smear} positions, which make the codebooks of its frame; "
            f"neighbouring columns share {cells.grid.smear - 1} of them"
        )
    coords: dict[str, object] = {
        "time": ("time", cells.time, facts),
        "padding": ("time", cells.padding, {"long_name": "beyond the audio"}),
    }
    if cells.grid.has_freq:
        coords["freq"] = ("freq", cells.freq, {"units": "Hz", "long_name": "frequency"})
    return coords


def _check_axes(name: str, layer: LayerAttention, labels: TokenLabels, calls: int, grid: SpectrogramGrid) -> None:
    attention, dims = layer.attention, tuple(layer.dims)
    in_order = tuple(dim for dim in CAPTURED_DIMS if dim in dims)
    if dims != in_order or not set(CAPTURED_DIMS) - set(dims) <= _OPTIONAL_DIMS:
        raise MapsError(
            f"{name}: dims {dims} are not allowed; expected {CAPTURED_DIMS} in this order, where "
            "'branch', 'step' and 'head' are optional, and 'row' is absent without a frequency axis."
        )
    if ("row" in dims) != grid.has_freq:
        has = "has a frequency axis" if grid.has_freq else "has no frequency axis"
        raise MapsError(f"{name}: dims are {dims}, and the grid {has}: the two have to agree on 'row'.")
    if not isinstance(attention, np.ndarray) or attention.dtype.kind != "f":
        kind = attention.dtype if isinstance(attention, np.ndarray) else type(attention).__name__
        raise MapsError(f"{name}: attention must be a NumPy array of floats, not {kind}.")
    if attention.ndim != len(dims):
        raise MapsError(
            f"{name}: attention of shape {attention.shape} has {attention.ndim} axes, but dims names "
            f"{len(dims)}: {dims}. Was the grid flattened to one axis of positions?"
        )
    if 0 in attention.shape:
        raise MapsError(f"{name}: attention of shape {attention.shape} is empty.")
    if layer.heads < 1:
        raise MapsError(f"{name}: heads={layer.heads} must be at least 1.")
    expected = {
        "branch": (len(BRANCHES), "both branches"),
        "prompt": (len(labels.text), "one token table per prompt"),
        "step": (calls, "one timestep per denoiser call"),
        "head": (layer.heads, "the heads of the layer"),
        "token": (len(labels.positions), "the stored key positions"),
    }
    for dim, size in zip(dims, attention.shape, strict=True):
        if dim in expected and size != expected[dim][0]:
            raise MapsError(
                f"{name}: the {dim} axis has {size} entries; expected {expected[dim][0]} ({expected[dim][1]})."
            )
