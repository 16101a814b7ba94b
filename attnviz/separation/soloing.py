"""`solo`: the audio of one phrase of a prompt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from attnviz.arguments import public
from attnviz.audio import write_wav
from attnviz.audio.files import AudioSource, is_wav
from attnviz.audio.levels import loudest_level, warn_if_inaudible
from attnviz.io.storage import whole_or_nothing
from attnviz.maps import AttentionMaps, Readout
from attnviz.maps.phrases import Phrase
from attnviz.separation.separating import EXPONENT, Separation, separate, with_others
from attnviz.wording import short_repr


@dataclass(frozen=True, eq=False)
class Solo:
    """The sound of one phrase.

    Attributes
    ----------
    phrase : str
        The phrase, as written in the prompt.
    audio : numpy.ndarray, shape (samples,), float32
        Its sound, as long as the clip.
    sampling_rate : int
        Samples per second.
    mask : xarray.DataArray, dims (freq, time) or (time)
        Share of the phrase in each cell, in [0, 1].
    others : tuple of str
        The phrases that share the clip with it.
    estimated : bool
        Whether the clip was estimated from the spectrogram of the maps, because no audio was given.
    """

    phrase: str
    audio: np.ndarray
    sampling_rate: int
    mask: xr.DataArray
    others: tuple[str, ...]
    estimated: bool

    __repr__ = short_repr

    @property
    def level(self) -> float:
        """Level of the loudest 0.4 s, in dB of full scale."""
        return loudest_level(self.audio, self.sampling_rate)

    @public
    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the sound as a WAV file: 16 bits, one channel.

        Parameters
        ----------
        path : path-like
            The file.
        overwrite : bool
            Replace an existing WAV file.

        Returns
        -------
        pathlib.Path
            `path`.

        Raises
        ------
        OutputError
            The file exists and may not be replaced, or cannot be written.
        """
        with whole_or_nothing(path, overwrite=overwrite, replaceable=is_wav) as partial:
            write_wav(partial, self.audio, self.sampling_rate)
        return Path(path)


@public
def solo(
    maps: AttentionMaps,
    phrase: Phrase,
    audio: AudioSource | None = None,
    *,
    occurrence: int | None = None,
    others: Sequence[Phrase] | None = None,
    sampling_rate: int | None = None,
    prompt_index: int = 0,
    sample: int = 0,
    readout: Readout = "mean",
    exponent: float = EXPONENT,
) -> Solo:
    """Return the audio of what a phrase made: the clip, filtered by the share of the phrase in every cell.

    Parameters
    ----------
    maps : AttentionMaps
        Maps of the clip, of any method of attribution.
    phrase : str or (int, int)
        Words of the prompt, or their character span.
    audio : path, array or tensor, optional
        The clip; see `separate`.
    occurrence : int, optional
        Index of the occurrence, from 0. Required if the phrase occurs more than once in the prompt.
    others : sequence of str or (int, int), optional
        Phrases that share the clip with it. By default, all phrases of the prompt that may name a sound and do
        not overlap it. Without others, the phrase gets the whole clip.
    sampling_rate, prompt_index, sample, readout, exponent
        As for `separate`.

    Returns
    -------
    Solo
        Its audio is as long as the clip and in time with it.

    Raises
    ------
    PromptError, MapsError, AudioError
        As for `separate`.

    Warns
    -----
    InaudibleWarning
        If the result is below -50 dBFS.
    AttnVizWarning
        If the phrase has only function words, such as "then", which name no sound.

    Examples
    --------
    ``attnviz.solo(maps, "dog barks", "dog.wav").save("only-the-dog.wav")``
    """
    maps.occurrences(prompt_index)  # raises if the prompt does not exist
    span = maps.tokens[prompt_index].phrase_span(phrase, occurrence)
    spans = with_others(maps, [span], prompt_index)[0] if others is None else [span, *others]
    found = separate(
        maps, audio, phrases=spans, sampling_rate=sampling_rate, prompt_index=prompt_index,
        sample=sample, readout=readout, exponent=exponent,
    )  # fmt: skip
    one = solo_of(found, 0)
    warn_if_inaudible(one.level, f"The solo of {one.phrase!r}")
    return one


def solo_of(found: Separation, number: int) -> Solo:
    """Return one sound of a separation."""
    return Solo(
        phrase=found.phrases[number],
        audio=found.audios[number],
        sampling_rate=found.sampling_rate,
        mask=found.masks[number],
        others=tuple(one for at, one in enumerate(found.phrases) if at != number),
        estimated=found.estimated,
    )
