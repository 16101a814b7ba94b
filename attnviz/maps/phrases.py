"""Find the stored tokens of phrases, and average heat maps to curves."""

from __future__ import annotations

import numpy as np
import xarray as xr

from attnviz.errors import MapsError
from attnviz.maps.words import words_with_maps
from attnviz.text.tokens import KINDS, TokenTable

Phrase = str | tuple[int, int]
"""Words of the prompt, or their character span."""


def phrase_positions(
    table: TokenTable, phrase: Phrase, occurrence: int | None, *, stored: np.ndarray, encoder: int | None
) -> np.ndarray:
    """Return the key positions of a phrase.

    Parameters
    ----------
    table : TokenTable
        Tokens of the prompt.
    phrase : str or (int, int)
        Words of the prompt, or their character span.
    occurrence : int or None
        Index of the occurrence, from 0.
    stored : numpy.ndarray of int
        Stored key positions.
    encoder : int or None
        Encoder whose tokens were selected.

    Raises
    ------
    PromptError
        If the phrase is not in the prompt, was truncated, or is repeated and `occurrence` is not given.
    MapsError
        If a token of the phrase is not stored.
    """
    found = np.asarray(table.find(phrase, occurrence))
    rows = table.rows.set_index("position")
    if encoder is not None:
        found = found[rows.loc[found, "encoder"].to_numpy() == encoder]
        if found.size == 0:
            raise MapsError(f"{phrase!r} has no token in encoder {encoder}: it was truncated there.")
    missing = found[~np.isin(found, stored)]
    if missing.size:
        named = ", ".join(f"{rows.loc[position, 'text']!r} (position {position})" for position in missing)
        words = ", ".join(word.label for word in words_with_maps(table, stored.tolist(), encoder)) or "none"
        raise MapsError(
            f"{phrase!r} was not stored in full: {named} is missing. Stored words: {words}. "
            "Trace again with more tokens."
        )
    return found


def token_positions(table: TokenTable, token: int | str, *, stored: np.ndarray) -> np.ndarray:
    """Return one key position, or the stored positions of a kind of token.

    Raises
    ------
    MapsError
        If the position or kind is unknown or not stored.
    """
    if isinstance(token, str):
        if token not in KINDS:
            raise MapsError(
                f"There is no kind of token {token!r}; kinds are {', '.join(KINDS)}. "
                "For a word of the prompt use heatmap."
            )
        rows = table.rows
        found = stored[np.isin(stored, rows.loc[rows["kind"] == token, "position"])]
        if found.size == 0:
            raise MapsError(f"No {token} token was stored; trace with tokens='all' to keep them.")
        return found
    if token not in stored:
        raise MapsError(f"Key position {token} was not stored; stored positions: {stored.tolist()}.")
    return np.array([token])


def activation_of(heat: xr.DataArray, axis: str) -> xr.DataArray:
    """Average a heat map over the other axis, excluding padding."""
    if axis not in ("time", "freq"):
        raise MapsError(f"axis={axis!r} is unknown; expected 'time' or 'freq'.")
    if axis not in heat.dims:
        raise MapsError(
            "These maps have no frequency axis: the model's latents or codes are a sequence in time. Use "
            "axis='time'."
        )
    values = heat.to_numpy().astype(np.float64)
    padding = heat["padding"].to_numpy()
    if axis == "time":
        curve = np.where(padding, np.nan, values.mean(axis=0) if "freq" in heat.dims else values)
    else:
        heard = values[:, ~padding]
        curve = heard.mean(axis=1) if heard.shape[1] else np.full(len(values), np.nan)
    coords = {name: coord for name, coord in heat.coords.items() if coord.dims == (axis,)}
    return xr.DataArray(curve.astype(np.float32), dims=(axis,), coords=coords, name="activation", attrs=heat.attrs)
