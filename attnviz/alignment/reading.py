"""Read the curves to score from the maps of a clip and of its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from attnviz.alignment.arrays import column_means
from attnviz.alignment.phrases import ACTIVE_SHARE, AlignedPhrase, Draws, PhraseEvents
from attnviz.audio.grid import CellGrid, SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.events import column_activity
from attnviz.maps import AttentionMaps, Readout
from attnviz.maps.layer import cells_of
from attnviz.maps.readouts import resample
from attnviz.maps.sharp import SharpReadout, sharpened
from attnviz.text.words import find_phrase

MAP = "map"
ENERGY = "energy"


@dataclass(frozen=True)
class How:
    """Settings that select the map of a phrase."""

    prompt_index: int
    sample: int
    readout: Readout
    pool: str


def read_phrase(
    maps: AttentionMaps,
    events: PhraseEvents,
    how: How,
    controls: Mapping[str, Sequence[AttentionMaps]],
    masks: xr.DataArray | None,
) -> AlignedPhrase:
    """Read the curves and activity of a phrase on the columns of the readout, without padding.

    Raises
    ------
    PromptError, MapsError
        See `AttentionMaps.heatmap`. Also if no column contains audio, a control has another grid, or the masks are
        invalid.
    """
    heat = maps.heatmap(
        events.span, prompt_index=how.prompt_index, sample=how.sample, readout=how.readout, pool=how.pool
    )
    cells = cells_of(heat, maps.grid)
    heard = ~heat["padding"].to_numpy()
    if not heard.any():
        raise MapsError(
            f"The audio is {maps.grid.audio_seconds:g} s long, and a column of the readout "
            f"{heat.attrs['readout']!r} is {cells.column_seconds:g} s, so no column contains audio. "
            "Use a finer layer."
        )
    found: dict[str, Draws] = {MAP: (_cells_of_map(heat),)}
    for name, others in controls.items():
        found[name] = tuple(
            resample(_cells_of_map(other_heat), cells_of(other_heat, maps.grid), cells)
            for other in others
            for other_heat in _control_heats(name, other, maps, events.span, how)
        )
    envelope, picture = _energy(maps, how, cells)
    mask = _mask(events, masks, cells)
    heats = {name: tuple(draw[:, heard] for draw in draws) for name, draws in found.items()}
    curves = {name: tuple(draw.mean(axis=0) for draw in draws) for name, draws in heats.items()}
    if picture is not None:
        heats[ENERGY] = (picture[:, heard],)
    return AlignedPhrase(
        events=events,
        sample=how.sample,
        seconds=audio_seconds(maps.grid),
        column_seconds=cells.column_seconds,
        share=column_activity(events.times[:, 0], events.times[:, 1], cells)[heard],
        curves=curves,
        energy=None if envelope is None else envelope[heard],
        mask=None if mask is None else mask[:, heard],
        seeds={name: len(others) for name, others in controls.items()},
        heats={} if mask is None else heats,
    )


def _cells_of_map(heat: xr.DataArray) -> np.ndarray:
    """Return a heat map as rows and columns; one row without a frequency axis."""
    return np.atleast_2d(heat.to_numpy()).astype(np.float64)


def audio_seconds(grid: SpectrogramGrid) -> float:
    """Return the duration of the audio of a grid in seconds."""
    return grid.seconds if grid.audio_seconds is None else grid.audio_seconds


def _control_heats(
    name: str, other: AttentionMaps, maps: AttentionMaps, span: tuple[int, int], how: How
) -> list[xr.DataArray]:
    """Return the heat map of the phrase in the maps of a control, or of all words if the caption lacks it."""
    if other.grid != maps.grid:
        raise MapsError(
            f"The control {name!r} has a different grid than the maps: {other.grid} and {maps.grid}. Is it of the "
            "same clip? Maps of other clips become a control when results are pooled with Alignment.concat."
        )
    prompt = _counterpart(name, "prompts", len(other.prompts), len(maps.prompts), how.prompt_index)
    image = _counterpart(name, "images", other.images, maps.images, how.sample)
    caption, own = other.prompts[prompt], maps.prompts[how.prompt_index]
    found = [span] if caption == own else find_phrase(caption, own[span[0] : span[1]])
    spans = found if len(found) == 1 else [word.span for word in other.occurrences(prompt)]
    if not spans:
        raise MapsError(f"The control {name!r} contains no map of a word.")
    return [
        other.heatmap(one, prompt_index=prompt, sample=image, readout=how.readout, pool=how.pool) for one in spans
    ]


def _counterpart(name: str, what: str, have: int, wanted: int, chosen: int) -> int:
    """Return the index of the prompt or image of a control: 0 if there is only one, or the same index."""
    if have not in (1, wanted):
        raise MapsError(
            f"The control {name!r} has {have} {what}, but the maps have {wanted}; it must have 1 or {wanted}."
        )
    return 0 if have == 1 else chosen


def _energy(maps: AttentionMaps, how: How, cells: CellGrid) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Return the log energy of each column (summed over bands) and of each cell.

    For a sharp readout, return the sharp map of a constant one instead.
    """
    if maps.spectrogram is None:
        return None, None
    log_mel = maps.spectrogram.isel(prompt=how.prompt_index, image=how.sample).to_numpy().astype(np.float64)
    if isinstance(how.readout, SharpReadout):  # refined as the maps are, so that they get no credit for it
        whole = maps.grid.cells(*log_mel.shape)
        picture = sharpened(np.ones_like(log_mel), [], log_mel, whole, cells)
        return picture.mean(axis=0), picture
    energy = np.exp(2 * log_mel)
    audio = (~maps.grid.padding(log_mel.shape[1])).astype(np.float64)
    by_band = column_means(energy, cells.frame_edges, audio)
    with np.errstate(invalid="ignore"):  # columns of padding are NaN and are removed
        by_cell = column_means(by_band.T, cells.band_edges, np.ones(len(log_mel))).T
        return np.log(by_band.sum(axis=0)), np.log(by_cell)


def _mask(events: PhraseEvents, masks: xr.DataArray | None, cells: CellGrid) -> np.ndarray | None:
    """Return the cells of the sound, including padding, or None if they are unknown or the maps have no rows."""
    if not cells.grid.has_freq:
        return None
    if masks is not None and events.label in masks["source"].to_numpy():
        shares = masks.sel(source=events.label).to_numpy().astype(np.float64)
        # Masks may have another size than the spectrogram; their edges are fractions of it.
        bands, frames = shares.shape[0] / cells.grid.bands, shares.shape[1] / cells.grid.width
        across = column_means(shares, cells.frame_edges * frames, np.ones(shares.shape[1]))
        return np.asarray(column_means(across.T, cells.band_edges * bands, np.ones(len(shares))).T >= ACTIVE_SHARE)
    if events.bands is None:
        return None
    mask = np.zeros(cells.shape, dtype=bool)
    centres = cells.freq
    for onset, offset, low, high in events.bands:
        there = column_activity([onset], [offset], cells) >= ACTIVE_SHARE
        mask |= ((centres >= low) & (centres <= high))[:, None] & there
    return mask


def check_masks(masks: xr.DataArray) -> None:
    """Check an array of masks.

    Raises
    ------
    MapsError
        If the dims are not (source, freq, time), a label is repeated, or a fraction is not in [0, 1].
    """
    if masks.dims != ("source", "freq", "time") or "source" not in masks.coords:
        raise MapsError(
            f"masks has the dims {masks.dims}; it must have ('source', 'freq', 'time') with labels along source, "
            "as returned by Scene.masks()."
        )
    labels = masks["source"].to_numpy().tolist()
    if len(set(labels)) != len(labels):
        raise MapsError(f"masks has repeated labels: {labels}. Each label must be unique.")
    values = masks.to_numpy()
    if not (np.isfinite(values).all() and ((values >= 0) & (values <= 1 + 1e-6)).all()):
        raise MapsError("masks must be fractions of the energy of each cell, in [0, 1]; some values are not.")
