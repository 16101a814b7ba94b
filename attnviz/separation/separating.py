"""`separate`: the audio of every phrase of a prompt, from the maps and the clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from attnviz.arguments import public
from attnviz.audio import griffin_lim, load_audio
from attnviz.audio.files import AudioSource
from attnviz.audio.settings import finite_number
from attnviz.errors import AudioError, MapsError, PromptError, warn
from attnviz.maps import AttentionMaps, Readout
from attnviz.maps.heats import sounding_phrases
from attnviz.maps.layer import cells_of
from attnviz.maps.phrases import Phrase
from attnviz.maps.settling import readout_name, settled
from attnviz.maps.sharing import refined, relative_logarithms, shares
from attnviz.separation.filtering import filtered
from attnviz.text.content import FUNCTION_WORDS
from attnviz.text.tokens import TokenTable
from attnviz.text.words import split_words
from attnviz.wording import short_repr

Span = tuple[int, int]

EXPONENT = 16.0
"""Power of the maps in a mask, chosen on scenes of folds 2 and 3."""

LONGER = 0.05  # seconds by which the audio may differ in length from the clip of the maps


@dataclass(frozen=True, eq=False)
class Separation:
    """The sounds of the phrases of a prompt.

    Attributes
    ----------
    phrases : tuple of str
        The phrases, as written in the prompt.
    spans : tuple of (int, int)
        Their characters in the prompt.
    audios : numpy.ndarray, shape (phrases, samples), float32
        The sound of each phrase. Together with `rest` they sum to the clip.
    rest : numpy.ndarray, shape (samples,), float32
        What is left of the clip: nothing but rounding errors, unless no phrase has a map above 0.
    masks : xarray.DataArray, dims (phrase, freq, time) or (phrase, time)
        Share of each phrase in each cell, in [0, 1]; sums to at most 1 over phrases.
    sampling_rate : int
        Samples per second of `audios` and `rest`.
    estimated : bool
        Whether the clip was estimated from the spectrogram of the maps, because no audio was given.
    readout : str
        Name of the readout.
    """

    phrases: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    audios: np.ndarray
    rest: np.ndarray
    masks: xr.DataArray
    sampling_rate: int
    estimated: bool
    readout: str

    __repr__ = short_repr


@public
def separate(
    maps: AttentionMaps,
    audio: AudioSource | None = None,
    *,
    phrases: Sequence[Phrase] | None = None,
    sampling_rate: int | None = None,
    prompt_index: int = 0,
    sample: int = 0,
    readout: Readout = "mean",
    exponent: float = EXPONENT,
) -> Separation:
    """Separate a clip into the sounds of the phrases of its prompt.

    Each cell of the clip is shared out among the phrases: the map of a phrase, relative to its maximum, to the
    power `exponent`, over the sum of all phrases. The spectrogram refines the maps first, so that the cells of one
    sound are decided together (`attnviz.maps.sharing`). The shares are soft masks on the short-time Fourier
    transform of the clip, whose phase is kept. No model was trained to separate.

    Parameters
    ----------
    maps : AttentionMaps
        Maps of the clip, of any method of attribution. Negative values count as 0.
    audio : path, array or tensor, optional
        The clip: a file, or samples. By default, the clip is estimated from the spectrogram of the maps with
        Griffin-Lim, so that its phase, and some of its quality, is not that of the clip.
    phrases : sequence of str or (int, int), optional
        Phrases that share the clip: words of the prompt, or their character spans. By default, all phrases that
        may name a sound, without function words (`attnviz.text.content`).
    sampling_rate : int, optional
        Sampling rate of an array in Hz. By default, that of the maps, which is 16 000 for Auffusion. Not allowed
        for files.
    prompt_index, sample : int
        Indices, from 0, of the prompt and of its sample (image).
    readout : str, FittedReadout or SharpReadout
        How layers are combined into one map; see `AttentionMaps.heatmap`.
    exponent : float
        Power of the maps, above 0. A low power leaves every sound a little of all others; a high power gives each
        cell to one phrase.

    Returns
    -------
    Separation

    Raises
    ------
    PromptError
        If a phrase is not in the prompt, is repeated and given without its span, or overlaps another one; or if
        the prompt has no phrase.
    MapsError
        As for `AttentionMaps.heatmap`; if there is neither audio nor a spectrogram; or if `exponent` is not above
        0.
    AudioError
        If the audio cannot be read, or has another length than the clip of the maps.

    Notes
    -----
    Maps of models without a frequency axis give masks over time: a phrase is faded in and out, at all frequencies.
    The transform has windows of 64 ms, four of which cover a sample. A single phrase gets the whole clip, unless
    its map is nowhere above 0. Sounds that no phrase names are shared out, too.
    """
    table = _checked(maps, prompt_index, sample)
    power = finite_number("exponent", exponent)
    if power <= 0:
        raise MapsError(f"exponent is {power:g}; it must be above 0. 1 shares in proportion to the maps.")
    spans = _spans(maps, phrases, prompt_index)
    masks = masks_of(maps, spans, prompt_index=prompt_index, sample=sample, readout=readout, exponent=power)
    clip = _clip(maps, audio, sampling_rate, prompt_index, sample)
    cells = cells_of(masks[0], maps.grid)
    gains = masks.to_numpy().reshape(len(spans), *cells.shape)
    audios = np.stack(filtered(clip, maps.grid.sampling_rate, gains, cells))
    return Separation(
        phrases=tuple(" ".join(table.prompt[slice(*span)].split()) for span in spans),
        spans=tuple(spans),
        audios=audios,
        rest=clip - audios.sum(axis=0),
        masks=masks,
        sampling_rate=maps.grid.sampling_rate,
        estimated=audio is None,
        readout=readout_name(settled(readout, maps.provenance)),
    )


def masks_of(
    maps: AttentionMaps,
    spans: Sequence[Span],
    *,
    prompt_index: int,
    sample: int,
    readout: Readout,
    exponent: float,
) -> xr.DataArray:
    """Return the shares of phrases in every cell of their maps, dims (phrase, [freq], time)."""
    heats = [
        maps.heatmap(span, prompt_index=prompt_index, sample=sample, readout=readout, grid="image")
        for span in spans
    ]
    first, prompt = heats[0], maps.prompts[prompt_index]
    logarithms = relative_logarithms([np.atleast_2d(heat.to_numpy()) for heat in heats])
    if maps.spectrogram is not None and maps.grid.has_freq:
        log_mel = maps.spectrogram[prompt_index, sample].to_numpy()
        logarithms = refined(logarithms, log_mel, cells_of(first, maps.grid))
    values = shares(logarithms, exponent)
    return xr.DataArray(
        values.reshape(len(heats), *first.shape).astype(np.float32),
        {"phrase": [prompt[slice(*span)] for span in spans], **first.coords},
        ("phrase", *first.dims),
        name="mask",
        attrs={"long_name": "share of the phrase", "stride": first.attrs["stride"]},
    )


def _checked(maps: AttentionMaps, prompt_index: int, sample: int) -> TokenTable:
    """Return the token table of a prompt, or raise MapsError if prompt or sample does not exist."""
    maps.occurrences(prompt_index)
    if not 0 <= sample < maps.images:
        raise MapsError(f"There is no sample {sample}; each prompt has {maps.images}, from 0.")
    return maps.tokens[prompt_index]


def _spans(maps: AttentionMaps, phrases: Sequence[Phrase] | None, prompt_index: int) -> list[Span]:
    """Return the spans of the phrases, in the order in which they are given, or of the prompt."""
    table = maps.tokens[prompt_index]
    if phrases is None:
        spans = sounding_phrases(maps, prompt_index)
        if not spans:
            raise PromptError(f"The prompt {table.prompt!r} has no phrase that may name a sound; give phrases.")
        return spans
    if isinstance(phrases, str):
        raise PromptError(f"phrases is the text {phrases!r}; give a sequence of phrases, [{phrases!r}].")
    spans = [table.phrase_span(phrase) for phrase in phrases]
    if not spans:
        raise PromptError("phrases=[] separates nothing; leave it out to separate all phrases of the prompt.")
    for number, (start, end) in enumerate(spans):
        for other in spans[:number]:
            if start < other[1] and other[0] < end:
                raise PromptError(
                    f"The phrases {table.prompt[slice(*other)]!r} and {table.prompt[start:end]!r} overlap in the "
                    f"prompt {table.prompt!r}, so they cannot share the clip."
                )
    return spans


def _clip(
    maps: AttentionMaps, audio: AudioSource | None, sampling_rate: int | None, prompt_index: int, sample: int
) -> np.ndarray:
    """Return the clip at the sampling rate of the maps, or estimate it from their spectrogram."""
    grid = maps.grid
    seconds = grid.seconds if grid.audio_seconds is None else grid.audio_seconds
    if audio is None:
        if sampling_rate is not None:
            raise AudioError(f"sampling_rate is {sampling_rate}, but no audio is given.")
        if maps.spectrogram is None:
            raise MapsError("These maps have no spectrogram from which to estimate the clip. Give audio=.")
        log_mel = maps.spectrogram[prompt_index, sample].to_numpy()
        return griffin_lim(log_mel)[: round(seconds * grid.sampling_rate)]
    clip = load_audio(audio, grid.sampling_rate, source_rate=sampling_rate)
    given = len(clip) / grid.sampling_rate
    if abs(given - seconds) > LONGER:
        raise AudioError(
            f"the audio lasts {given:.2f} s, and the clip of the maps {seconds:.2f} s. Is it another clip, or is "
            "its sampling rate another one (sampling_rate=)?"
        )
    return clip


def _warn_of_function_words(prompt: str, spans: Sequence[Span], sounding: Sequence[Span]) -> None:
    """Warn of phrases that name no sound, and list those that may."""
    for start, end in spans:
        words = [word.text.lower() for word in split_words(prompt[start:end])]
        if words and FUNCTION_WORDS.issuperset(words):
            named = ", ".join(repr(prompt[slice(*span)]) for span in sounding)
            others = f" Phrases that may name a sound: {named}." if named else ""
            warn(
                f"{prompt[start:end]!r} names no sound; its solo is the part of the clip where the model attended "
                f"more to it than to the other phrases.{others}"
            )


def with_others(
    maps: AttentionMaps, phrases: Sequence[Phrase] | None, prompt_index: int = 0
) -> tuple[list[Span], int]:
    """Return the spans of phrases, then those of the other phrases that share the clip; and how many come first.

    None stands for all phrases that may name a sound.

    Warns
    -----
    AttnVizWarning
        If a phrase has only function words, such as "then", which name no sound.
    """
    found = sounding_phrases(maps, prompt_index)
    if phrases is None:
        return found, len(found)
    own = [maps.tokens[prompt_index].phrase_span(phrase) for phrase in phrases]
    _warn_of_function_words(maps.prompts[prompt_index], own, found)
    others = [one for one in found if all(one[1] <= start or end <= one[0] for start, end in own)]
    return [*own, *others], len(own)
