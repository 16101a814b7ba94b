"""Plot attention over time in rows: tokens ("piano roll") and denoising steps."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from attnviz.arguments import public
from attnviz.audio.grid import SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps, Readout, step_activation, token_activation
from attnviz.plots.heat import SIGNED, normed, scale_bar
from attnviz.plots.style import (
    ATTENTION,
    FONTSIZE,
    Scale,
    attention_colours,
    check_scale,
    height_of,
    label_time,
    name_ticks,
    own_axes,
    readable,
    text_style,
    wrapped,
)


@public
def piano_roll(
    maps: AttentionMaps,
    *,
    prompt_index: int = 0,
    sample: int = 0,
    readout: Readout = "mean",
    special_tokens: bool = False,
    scale: Scale = "shared",
    ax: Axes | None = None,
) -> Axes:
    """Draw the attention to each token over time, one row per token.

    Parameters
    ----------
    maps : AttentionMaps
    prompt_index, sample, readout
        See `AttentionMaps.heatmap`.
    special_tokens : bool
        Also draw the start and end tokens, which are included in a shared scale.
    scale : {"shared", "own"}
        Scale all rows to the common maximum, or each row to its own. The colour bar indicates the choice.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on. By default, those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The array of its image is (token, time); columns of padding are masked and grey.

    Raises
    ------
    MapsError
        If no token was stored, no column contains audio, or the scale is unknown. See also
        `AttentionMaps.heatmap`.

    Examples
    --------
    >>> from attnviz.testing import example_maps
    >>> ax = piano_roll(example_maps())
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['a', 'dog', 'barks', ',', 'then', 'rain', 'falls']
    """
    check_scale(scale)
    rows = token_activation(
        maps, prompt_index=prompt_index, sample=sample, readout=readout, special_tokens=special_tokens
    )
    ax = own_axes(6.6, 1.2 + 0.19 * len(rows)) if ax is None else ax
    names = _token_names(rows)
    _roll(ax, rows, maps.grid, names, "token", scale=scale)
    return ax


@public
def denoising_steps(
    maps: AttentionMaps,
    phrase: str | tuple[int, int],
    *,
    occurrence: int | None = None,
    prompt_index: int = 0,
    sample: int = 0,
    readout: Readout = "mean",
    pool: str = "mean",
    scale: Scale = "shared",
    ax: Axes | None = None,
) -> Axes:
    """Draw the attention to a phrase over time at each denoising step, with the first step on top.

    Parameters
    ----------
    maps : AttentionMaps
        Maps made with ``keep=("step",)``.
    phrase : str or (int, int)
        Words of the prompt, or their character span.
    occurrence, prompt_index, sample, readout, pool
        See `AttentionMaps.activation`.
    scale : {"shared", "own"}
        Scale all steps to the common maximum, or each step to its own. The colour bar indicates the choice.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on. By default, those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The array of its image is (step, time); columns of padding are masked and grey. Rows are labelled with
        their timesteps.

    Raises
    ------
    MapsError
        If the steps were not kept, no column contains audio, or the scale is unknown. See also
        `AttentionMaps.activation`.
    PromptError
        See `AttentionMaps.activation`.

    Examples
    --------
    >>> from attnviz.testing import example_maps
    >>> ax = denoising_steps(example_maps(steps=5), "rain falls")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['981', '736', '491', '246', '1']
    """
    check_scale(scale)
    rows = step_activation(
        maps, phrase, occurrence=occurrence, prompt_index=prompt_index, sample=sample, readout=readout, pool=pool
    )
    ax = own_axes(6.6, min(4.5, 1.4 + 0.12 * len(rows))) if ax is None else ax
    names = [f"{timestep:.0f}" for timestep in rows["timestep"].to_numpy()]
    _roll(ax, rows, maps.grid, names, "step", scale=scale)
    ax.set_ylabel(wrapped("timestep (first step on top)", height_of(ax)), fontsize=FONTSIZE + 1)
    words = phrase if isinstance(phrase, str) else maps.prompts[prompt_index][slice(*phrase)]
    ax.set_title(readable(words, longest=60), fontsize=FONTSIZE + 1, loc="left", pad=3, **text_style())
    return ax


def _roll(
    ax: Axes, rows: xr.DataArray, grid: SpectrogramGrid, names: list[str], what: str, *, scale: Scale
) -> None:
    values = np.ma.masked_invalid(rows.to_numpy().astype(float))
    if values.mask.all():
        raise MapsError("No column of the maps contains audio: the clip is shorter than half a column.")
    quantity = str(rows.attrs.get("long_name", "attention"))
    if scale == "own":
        top = np.abs(values).max(axis=1, keepdims=True)
        values = values / np.where(top > 0, top, 1.0)
        quantity = f"share of each {what}'s own maximum"
    signed = bool((values < 0).any())
    colours = attention_colours(SIGNED, 1.0) if signed else attention_colours(ATTENTION)
    end = values.shape[1] * rows.attrs["stride"][1] * grid.hop_length / grid.sampling_rate
    image = ax.imshow(
        values, origin="upper", extent=(0.0, end, len(rows) - 0.5, -0.5), aspect="auto",
        interpolation="nearest", cmap=colours, norm=normed(float(np.abs(values).max()) or 1.0, signed=signed),
    )  # fmt: skip
    name_ticks(ax.yaxis, names, height_of(ax))
    label_time(ax, grid)
    ax.grid(visible=False)
    ax.set_ylabel(what, fontsize=FONTSIZE + 1)
    scale_bar(ax, image, quantity)


def _token_names(rows: xr.DataArray) -> list[str]:
    several = len(set(rows["token_encoder"].to_numpy().tolist())) > 1
    kinds, texts = rows["token_kind"].to_numpy(), rows["token_text"].to_numpy()
    return [
        (str(text) if kind == "text" else f"{kind} token") + (f"  (encoder {encoder})" if several else "")
        for kind, text, encoder in zip(kinds, texts, rows["token_encoder"].to_numpy(), strict=True)
    ]
