"""`diagnose`: check attention maps and the generated sound for known faults."""

from __future__ import annotations

import numpy as np
import xarray as xr

from attnviz.arguments import public
from attnviz.audio import load_audio
from attnviz.audio.files import AudioSource
from attnviz.audio.levels import clipped_milliseconds, mel_levels
from attnviz.diagnosis.finding import Diagnosis, Finding
from attnviz.diagnosis.signs import (
    clipped_share,
    entropy_share,
    moran,
    reconstruction_error,
    relative_difference,
    total_variation,
)
from attnviz.diagnosis.thresholds import (
    ALIKE,
    ARTEFACTS,
    CLIPPED,
    DISTORTED,
    IGNORED,
    NOISY,
    SILENT,
    SINK,
    THRESHOLDS,
    UNCONDITIONED,
    UNIFORM,
    UNMOVED,
)
from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps, Readout
from attnviz.maps.layer import level_of
from attnviz.maps.summaries import correlations, heard_maps
from attnviz.maps.words import StoredWord

Pair = tuple[np.ndarray, np.ndarray]


@public
def diagnose(
    maps: AttentionMaps,
    *,
    prompt_index: int = 0,
    sample: int = 0,
    readout: Readout = "mean",
    predictions: Pair | None = None,
    reconstruction: Pair | None = None,
    audio: AudioSource | None = None,
) -> Diagnosis:
    """Check the maps of the words of a prompt, its conditioning and its sound for common faults.

    Parameters
    ----------
    maps : AttentionMaps
    prompt_index, sample : int
        Indices, from 0, of the prompt and of its sample (image).
    readout : str or FittedReadout
        Readout for the uniformity and similarity of maps, as for `AttentionMaps.heatmap`. Signs based on
        probabilities (attention sink, ignored words) always use ``"mean"``. Noise is measured in the finest
        layers, because resizing would smooth it.
    predictions : (array, array), optional
        Predictions of the U-Net with and without the prompt, for the same latents and timestep; arrays of equal
        shape.
    reconstruction : (array, array), optional
        A log-mel spectrogram and its reconstruction by the auto-encoder, ``(bands, frames)`` each.
    audio : path, array or tensor, optional
        The audio of this prompt and sample: a file, or samples at 16 kHz. Needed to find clipping of the audio.

    Returns
    -------
    Diagnosis
        ``.found`` names the faults; ``.table`` and ``.summary()`` contain all values and thresholds.

    Raises
    ------
    MapsError
        If the maps are not of attention, or contain the unconditional branch only, the prompt or sample does not
        exist, no column contains audio, or the arrays of a pair differ in shape or are not finite.
    AudioError
        If `audio` cannot be read.

    Notes
    -----
    A sign that cannot be measured is not judged, and the reason is reported. For example, the effect of
    conditioning requires ``branch="both"`` or `predictions`. Words with uniform maps are excluded from the signs
    for noise and similarity, so that one fault is not reported three times. The limits are in `THRESHOLDS`.

    Examples
    --------
    >>> from attnviz.testing import example_maps
    >>> diagnose(example_maps(both=True))
    <Diagnosis: nothing found; not judged: prediction without guidance, clipped audio, reconstruction artefacts>
    """
    if maps.branch == "unconditional":
        raise MapsError(
            "These maps contain the unconditional branch only, which has no words. Give the conditional branch."
        )
    if maps.content["method"] != "attention":
        raise MapsError(
            f"These maps hold {maps.content['quantity']} (method {maps.content['method']!r}); the signs and their "
            "limits are those of attention. Diagnose maps of method='attention'."
        )
    pairs = {UNMOVED: _checked("predictions", predictions), ARTEFACTS: _checked("reconstruction", reconstruction)}
    words = maps.occurrences(prompt_index)
    findings = [
        *_shapes(maps, words, prompt_index, sample, readout),
        _sink(maps, prompt_index, sample),
        _ignored(maps, words, prompt_index, sample),
        _unconditioned(maps, prompt_index, sample),
        _of_pair(UNMOVED, pairs[UNMOVED], "predictions with and without the prompt"),
        *_sound(maps, prompt_index, sample),
        _distorted(audio),
        _of_pair(ARTEFACTS, pairs[ARTEFACTS], "a spectrogram with its reconstruction"),
    ]
    order = list(THRESHOLDS)
    findings.sort(key=lambda finding: order.index(finding.name))
    return Diagnosis(tuple(findings), maps.prompts[prompt_index])


def _shapes(
    maps: AttentionMaps, words: list[StoredWord], prompt_index: int, sample: int, readout: Readout
) -> list[Finding]:
    """Check the maps of words for uniformity, noise and similarity."""
    if not words:
        return [Finding(name, unjudged="no word was stored in full") for name in (UNIFORM, NOISY, ALIKE)]
    heats = [maps.heatmap(word.span, prompt_index=prompt_index, sample=sample, readout=readout) for word in words]
    values = heard_maps(heats)
    entropies = np.array([entropy_share(row[None]) for row in values])
    flat = np.isnan(entropies) | np.array([THRESHOLDS[UNIFORM].passed(one) for one in entropies])
    level = float(np.nanmedian(entropies)) if not np.isnan(entropies).all() else float("nan")
    named = _listed([word.label for word, one in zip(words, flat, strict=True) if one], "flat: ")
    uniform = Finding(UNIFORM, level, named, "" if np.isfinite(level) else "every map is zero")
    shaped = [word for word, one in zip(words, flat, strict=True) if not one]
    if not shaped:
        return [uniform, *(Finding(name, unjudged="every word's map is flat") for name in (NOISY, ALIKE))]
    return [uniform, _noisy(maps, shaped, prompt_index, sample), _alike(values[~flat], shaped)]


def _noisy(maps: AttentionMaps, words: list[StoredWord], prompt_index: int, sample: int) -> Finding:
    cells = {name: int(np.prod(level_of(maps[name]))) for name in maps.layers}
    finest = [name for name, size in cells.items() if size == max(cells.values())]
    view = maps.select(layers=finest)
    values = []
    for word in words:
        heat = view.heatmap(word.span, prompt_index=prompt_index, sample=sample)
        values.append(moran(np.atleast_2d(heat.to_numpy())[:, ~heat["padding"].to_numpy()]))
    if np.isnan(values).all():
        return Finding(NOISY, unjudged="all adjacent cells of the finest layers are equal")
    least = int(np.nanargmin(values))
    return Finding(NOISY, float(np.nanmedian(values)), f"least: {words[least].label}, {values[least]:.2f}")


def _alike(values: np.ndarray, words: list[StoredWord]) -> Finding:
    if len(words) < 2:
        return Finding(ALIKE, unjudged="fewer than two words have maps that are not flat")
    one, other = np.triu_indices(len(words), k=1)
    pairs = correlations(values)[one, other]
    if np.isnan(pairs).all():
        return Finding(ALIKE, unjudged="the maps are constant")
    most = int(np.nanargmax(pairs))
    closest = f"{words[one[most]].label} and {words[other[most]].label}"
    return Finding(ALIKE, float(np.nanmedian(pairs)), f"most: {closest}, {pairs[most]:.2f}")


def _sink(maps: AttentionMaps, prompt_index: int, sample: int) -> Finding:
    rows = maps.tokens[prompt_index].rows
    text = rows.loc[rows["kind"] == "text", "position"]
    if maps.encoder is not None:
        return Finding(SINK, unjudged="the maps were narrowed to one text encoder")
    if not len(text) or not text.isin(maps.positions).all():
        return Finding(SINK, unjudged="not every token of the words was stored")
    heat = maps.token_heatmap("text", prompt_index=prompt_index, sample=sample)
    own = (maps[name].isel(prompt=prompt_index, image=sample) for name in maps.layers)
    if any(bool((layer.isel(time=~layer["padding"].to_numpy()) < 0).any()) for layer in own):
        return Finding(SINK, unjudged="words have negative weights, so attention does not sum to 1")
    share = 1.0 - len(text) * float(_heard(heat).mean())
    return Finding(SINK, min(max(share, 0.0), 1.0))


def _ignored(maps: AttentionMaps, words: list[StoredWord], prompt_index: int, sample: int) -> Finding:
    if len(words) < 2:
        return Finding(IGNORED, unjudged="there are fewer than two words to compare")
    kinds = maps[maps.layers[0]].isel(prompt=prompt_index)["token_kind"].to_numpy()
    text = [
        maps.token_heatmap(int(one), prompt_index=prompt_index, sample=sample)
        for one in maps.positions[kinds == "text"]
    ]
    base = float(np.mean([np.abs(_heard(heat)).mean() for heat in text]))  # negative weights count by magnitude
    if base <= 0:
        return Finding(IGNORED, unjudged="no word receives attention")
    heats = [_heard(maps.heatmap(word.span, prompt_index=prompt_index, sample=sample)) for word in words]
    peaks = [float(np.abs(heat).max()) / base for heat in heats]
    below = [word.label for word, peak in zip(words, peaks, strict=True) if THRESHOLDS[IGNORED].passed(peak)]
    least = words[int(np.argmin(peaks))].label
    return Finding(IGNORED, min(peaks), _listed(below, "") or f"least: {least}")


def _unconditioned(maps: AttentionMaps, prompt_index: int, sample: int) -> Finding:
    if maps.branch != "both":
        return Finding(UNCONDITIONED, unjudged="only one guidance branch was stored; trace with branch='both'")
    moved = {}
    for name in maps.layers:
        layer = maps[name].isel(prompt=prompt_index, image=sample)
        heard = np.flatnonzero(~layer["padding"].to_numpy())
        kept = layer.isel(time=heard).mean([dim for dim in ("step", "head") if dim in layer.dims])
        if heard.size:
            one, other = (kept.sel(branch=branch).to_numpy() for branch in ("conditional", "unconditional"))
            moved[name] = total_variation(one, other)
    if not moved:
        return Finding(UNCONDITIONED, unjudged="no column of the maps contains audio")
    most = max(moved, key=lambda name: moved[name])
    return Finding(UNCONDITIONED, float(np.mean(list(moved.values()))), f"most: {most}, {moved[most]:.2f}")


def _sound(maps: AttentionMaps, prompt_index: int, sample: int) -> list[Finding]:
    if maps.spectrogram is None:
        return [Finding(name, unjudged="the maps have no spectrogram") for name in (CLIPPED, SILENT)]
    own = maps.spectrogram.isel(prompt=prompt_index, image=sample)
    log_mel = _heard(own)
    silent = Finding(SILENT, float(mel_levels(log_mel).max()))
    if silent.found:
        return [Finding(CLIPPED, unjudged="the spectrogram is silent"), silent]
    return [Finding(CLIPPED, clipped_share(log_mel)), silent]


def _distorted(audio: AudioSource | None) -> Finding:
    if audio is None:
        return Finding(DISTORTED, unjudged="not given: the audio")
    return Finding(DISTORTED, clipped_milliseconds(load_audio(audio)))


def _of_pair(name: str, pair: Pair | None, what: str) -> Finding:
    if pair is None:
        return Finding(name, unjudged=f"not given: {what}")
    first, second = pair
    value = relative_difference(first, second) if name == UNMOVED else reconstruction_error(first, second)
    return Finding(name, value, unjudged="" if np.isfinite(value) else "the unguided prediction is zero")


def _checked(name: str, pair: Pair | None) -> Pair | None:
    if pair is None:
        return None
    try:
        one, other = (np.asarray(array, dtype=np.float64) for array in pair)
    except (TypeError, ValueError) as error:
        raise MapsError(f"{name} must be a pair of numeric arrays: {error}") from error
    if one.shape != other.shape or not one.size:
        raise MapsError(
            f"{name} has arrays of the shapes {one.shape} and {other.shape}; expected equal, non-empty shapes."
        )
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise MapsError(f"{name} contains NaN or infinite values.")
    return one, other


def _heard(array: xr.DataArray) -> np.ndarray:
    """Return ``(rows, columns)`` without padding columns."""
    heard = np.atleast_2d(array.to_numpy())[:, ~array["padding"].to_numpy()]
    if not heard.size:
        raise MapsError("No column of the maps contains audio: the clip is shorter than half a column.")
    return np.asarray(heard)


def _listed(words: list[str], before: str) -> str:
    shown = ", ".join(words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "")
    return before + shown if words else ""
