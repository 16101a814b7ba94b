"""Summaries of maps for figures and diagnoses: by denoising step, token, layer and head, and pairs of words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from attnviz.arguments import public
from attnviz.errors import MapsError
from attnviz.maps.attention_maps import AttentionMaps
from attnviz.maps.layer import PROBABILITY, short_name
from attnviz.maps.phrases import Phrase
from attnviz.maps.readouts import picked_tokens
from attnviz.maps.settling import Readout


@public
def step_activation(maps: AttentionMaps, phrase: Phrase, **how: Any) -> xr.DataArray:
    """Compute the activation of a phrase at each denoising step.

    Parameters
    ----------
    maps : AttentionMaps
        Maps traced with ``keep=("step",)``.
    phrase : str or (int, int)
        Words of the prompt, or their character span.
    **how
        Keyword arguments of `AttentionMaps.activation`.

    Returns
    -------
    xarray.DataArray, float32, dims (step, time)
        One `AttentionMaps.activation` per step, with the coordinate ``timestep``; NaN in padding.

    Raises
    ------
    MapsError
        If the steps were averaged out, or as for `AttentionMaps.activation`.
    PromptError
        As for `AttentionMaps.activation`.
    """
    first = maps[maps.layers[0]]
    steps = first["step"].to_numpy().tolist() if "step" in first.dims else [0]  # without steps, select() raises
    curves = [maps.select(steps=step).activation(phrase, **how) for step in steps]
    joined = xr.concat(curves, dim="step", combine_attrs="override")
    return joined.assign_coords(step=steps, timestep=("step", first["timestep"].to_numpy()))


@public
def token_activation(
    maps: AttentionMaps,
    *,
    prompt_index: int = 0,
    sample: int = 0,
    readout: Readout = "mean",
    special_tokens: bool = False,
) -> xr.DataArray:
    """Compute the activation of each token over time.

    Parameters
    ----------
    maps : AttentionMaps
    prompt_index, sample, readout
        As for `AttentionMaps.heatmap`.
    special_tokens : bool
        Include the start and end tokens. Padding tokens are always excluded.

    Returns
    -------
    xarray.DataArray, float32, dims (token, time)
        One `AttentionMaps.token_activation` per stored token, in order of key position, with the coordinates
        ``token_text``, ``token_kind`` and ``token_encoder``; NaN in padding.

    Raises
    ------
    MapsError
        If no such token was stored, or as for `AttentionMaps.token_activation`.
    """
    layer = maps[maps.layers[0]]
    if not 0 <= prompt_index < len(maps.prompts):
        raise MapsError(f"There is no prompt {prompt_index}; there are {len(maps.prompts)}, from 0.")
    wanted = ("text", "start", "end") if special_tokens else ("text",)
    tokens = layer.isel(prompt=prompt_index)["token_kind"]
    positions = tokens["token"].to_numpy()[np.isin(tokens.to_numpy(), wanted)]
    if not positions.size:
        raise MapsError(f"No {' or '.join(wanted)} token of the prompt {maps.prompts[prompt_index]!r} was stored.")
    curves = [
        maps.token_activation(int(position), prompt_index=prompt_index, sample=sample, readout=readout)
        for position in positions
    ]
    joined = xr.concat(curves, dim="token", combine_attrs="override")
    named = layer.isel(prompt=prompt_index).sel(token=positions)
    labels: dict[str, Any] = {
        name: ("token", named[name].to_numpy()) for name in ("token_text", "token_kind", "token_encoder")
    }
    return joined.assign_coords({"token": positions} | labels)


@public
def attention_share(
    maps: AttentionMaps, phrase: Phrase, *, occurrence: int | None = None, prompt_index: int = 0, sample: int = 0
) -> pd.DataFrame:
    """Tabulate the share of the attention of each layer and head that the tokens of a phrase receive.

    Parameters
    ----------
    maps : AttentionMaps
        Maps. Heads are separate if they were traced with ``keep=("head",)``.
    phrase, occurrence, prompt_index, sample
        As for `AttentionMaps.heatmap`.

    Returns
    -------
    pandas.DataFrame
        ``layer`` (short name, in the order of the model), ``head`` (from 0; -1 is the mean of all heads),
        ``share``: the attention probability of a token of the phrase, in [0, 1]: the mean over the tokens of the
        phrase (as in all maps, so that it does not grow with the length of the phrase), stored steps and cells
        that are not padding, and ``of_words``: what all tokens of the phrase receive together, as a fraction of
        what all words receive. Where padding is not masked, it takes attention, so that ``share`` depends on the
        length of the prompt and ``of_words`` does not. Both are NaN in a layer with padding columns only, and
        ``of_words`` where not all words were stored, or maps have a sign.
        For words reweighted by an edit, it is the reweighted attention, which may be negative or above 1.

    Raises
    ------
    PromptError, MapsError
        As for `AttentionMaps.heatmap`.
    """
    positions = maps.heatmap(phrase, occurrence=occurrence, prompt_index=prompt_index, sample=sample).attrs[
        "positions"
    ]
    table = maps.tokens[prompt_index].rows
    text = table.loc[table["kind"] == "text", "position"]
    if maps.encoder is not None:
        text = text[text.isin(maps.positions)]
    known = bool(text.isin(maps.positions).all()) and not maps.content["signed"]
    rows: list[dict[str, Any]] = []
    for name in maps.layers:
        sums = _mean_sum(maps[name], positions, prompt_index, sample)
        means = sums / len(positions)
        of_words = sums / _mean_sum(maps[name], text.to_numpy(), prompt_index, sample) if known else sums * np.nan
        heads = means["head"].to_numpy().tolist() if "head" in means.dims else [-1]
        both = zip(np.atleast_1d(means.to_numpy()), np.atleast_1d(of_words.to_numpy()), strict=True)
        for head, (share, fraction) in zip(heads, both, strict=True):
            found = {"share": float(share), "of_words": float(fraction)}
            rows.append({"layer": short_name(name), "head": int(head), **found})
    return pd.DataFrame(rows)


@public
def segment_share(maps: AttentionMaps, *, prompt_index: int = 0, sample: int = 0) -> pd.DataFrame:
    """Tabulate what the keys of each kind receive together: words, and what stands for no word.

    Keys that stand for no word (start and end tokens, padding that is not masked, a duration, ...) often hold most
    of the attention: they are sinks, and the probabilities of words depend on them.

    Parameters
    ----------
    maps : AttentionMaps
        Maps. Heads are separate if they were traced with ``keep=("head",)``.
    prompt_index, sample : int
        Indices of the prompt and of its sample.

    Returns
    -------
    pandas.DataFrame
        ``layer`` (short name), ``head`` (from 0; -1 is the mean of all heads), ``kind`` (as in the token table, in
        the order of the keys; ``"text"`` are the words), ``keys`` (their number) and ``share``: what they receive
        together, averaged over stored steps and cells that are not padding. The shares of a layer sum to 1 with
        the last kind, ``"rest"``: what was not stored, which is padding, and keys of the audio where attention is
        joint. There is no ``"rest"`` where maps have a sign, or hold another quantity than probabilities.

    Raises
    ------
    MapsError
        If there is no such prompt or sample.
    """
    if not 0 <= prompt_index < len(maps.prompts) or not 0 <= sample < maps.images:
        raise MapsError(
            f"There is no sample {sample} of prompt {prompt_index}; there are {len(maps.prompts)} prompts of "
            f"{maps.images} samples, indexed from 0."
        )
    table = maps.tokens[prompt_index].rows
    table = table[table["position"].isin(maps.positions)]
    kinds = {str(kind): own["position"].to_numpy() for kind, own in table.groupby("kind", sort=False)}
    rows: list[dict[str, Any]] = []
    for name in maps.layers:
        sums = {kind: _mean_sum(maps[name], at, prompt_index, sample) for kind, at in kinds.items()}
        if maps.content["quantity"] == PROBABILITY:
            stored: Any = sum(sums.values())
            sums["rest"] = 1.0 - stored
        heads = next(iter(sums.values()))
        numbers = heads["head"].to_numpy().tolist() if "head" in heads.dims else [-1]
        for at, head in enumerate(numbers):
            rows += [
                {
                    "layer": short_name(name), "head": int(head), "kind": kind,
                    "keys": len(kinds[kind]) if kind in kinds else 0, "share": float(np.atleast_1d(share)[at]),
                }
                for kind, share in sums.items()
            ]  # fmt: skip
    return pd.DataFrame(rows)


def _mean_sum(layer: xr.DataArray, positions: np.ndarray, prompt_index: int, sample: int) -> xr.DataArray:
    """Return the attention to some tokens together, averaged over steps and cells of audio; heads stay apart."""
    picked = picked_tokens(layer, positions, prompt_index, sample).sum("token", dtype=np.float64)
    heard = picked.isel(time=np.flatnonzero(~picked["padding"].to_numpy()))
    return heard.mean([dim for dim in heard.dims if dim != "head"]) if heard.size else heard.sum() * np.nan


@public
def word_overlap(
    maps: AttentionMaps,
    *,
    prompt_index: int = 0,
    sample: int = 0,
    readout: Readout = "mean",
    measure: str = "overlap",
) -> xr.DataArray:
    """Compare the heat maps of all pairs of words of a prompt, over columns that are not padding.

    Parameters
    ----------
    maps : AttentionMaps
    prompt_index, sample, readout
        As for `AttentionMaps.heatmap`.
    measure : {"overlap", "correlation"}
        ``"overlap"``: histogram intersection of the maps, each divided by the sum of its magnitudes; 1 for
        identical maps, 0 for disjoint ones. Cells of opposite sign do not overlap. Nearly flat maps overlap almost
        completely. ``"correlation"``: Pearson correlation, which is invariant to a common offset.

    Returns
    -------
    xarray.DataArray, float64, dims (word, other)
        Symmetric matrix with the labels of the words as coordinates (``"dog (2nd)"``). NaN for a map of zeros, and
        for the correlation of a constant map.

    Raises
    ------
    MapsError
        If no word was stored, no column contains audio, the measure is unknown, or as for `AttentionMaps.heatmap`.

    References
    ----------
    M. J. Swain, D. H. Ballard, "Color indexing", IJCV 1991 (histogram intersection).
    """
    if measure not in ("overlap", "correlation"):
        raise MapsError(f"measure={measure!r} is unknown; expected 'overlap' or 'correlation'.")
    words = maps.occurrences(prompt_index)
    if not words:
        raise MapsError("No word of the prompt was stored in full, so there is nothing to compare.")
    heats = heard_maps(
        [maps.heatmap(word.span, prompt_index=prompt_index, sample=sample, readout=readout) for word in words]
    )
    if measure == "correlation":
        values = correlations(heats)
    else:
        total = np.abs(heats).sum(axis=1, keepdims=True)
        shares = np.divide(heats, total, out=np.full_like(heats, np.nan), where=total > 0)
        rising, falling = np.maximum(shares, 0.0), np.maximum(-shares, 0.0)
        values = np.array(
            [_common(one, rising) + _common(other, falling) for one, other in zip(rising, falling, strict=True)]
        )
    labels = [word.label for word in words]
    attrs = {"long_name": "overlap (histogram intersection)" if measure == "overlap" else "Pearson correlation"}
    return xr.DataArray(
        values, dims=("word", "other"), coords={"word": labels, "other": labels}, name=measure, attrs=attrs
    )


def _common(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection of one histogram with each of several others."""
    return np.minimum(one, others).sum(axis=1)


def heard_maps(heats: list[xr.DataArray]) -> np.ndarray:
    """Return maps of one grid as ``(maps, cells)`` float64, without padding columns.

    Raises
    ------
    MapsError
        If every column is padding.
    """
    heard = ~heats[0]["padding"].to_numpy()
    if not heard.any():
        raise MapsError("No column of the maps contains audio: the clip is shorter than half a column.")
    return np.array([heat.to_numpy()[..., heard].ravel() for heat in heats], dtype=np.float64)


def correlations(values: np.ndarray) -> np.ndarray:
    """Return the Pearson correlations of all pairs of rows; NaN if a row is constant up to float32 rounding."""
    centred = values - values.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1)
    flat = norm <= 1e-6 * np.linalg.norm(values, axis=1)
    unit = np.divide(centred, norm[:, None], out=np.full_like(centred, np.nan), where=~flat[:, None])
    return np.asarray(np.clip(unit @ unit.T, -1.0, 1.0))
