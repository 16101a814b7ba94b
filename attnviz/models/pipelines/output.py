"""What an Auffusion pipeline returns."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.utils import BaseOutput

from attnviz.arguments import public
from attnviz.audio import MEL, write_wav
from attnviz.audio.files import is_wav
from attnviz.errors import AudioError
from attnviz.io.storage import whole_or_nothing
from attnviz.wording import short_repr


@dataclass
class AuffusionOutput(BaseOutput):
    """Output of an Auffusion pipeline call.

    Attributes
    ----------
    audios : list of numpy.ndarray or None
        One waveform per image: float32, 1-D, in [-1, 1], ``duration`` x 16 000 samples.
    spectrograms : numpy.ndarray or None, shape (n, 256, width), float32
        Natural-log mel spectrograms as given to the vocoder, lowest band first.
    images : numpy.ndarray or None, shape (n, 256, width), float32
        What the VAE drew, in [0, 1], lowest band in the bottom row.
    latents : torch.Tensor or None, shape (n, channels, rows, columns)
        Latents after the last step; set only with ``output_type="latent"``, and then alone.
    """

    audios: list[np.ndarray] | None = None
    spectrograms: np.ndarray | None = None
    images: np.ndarray | None = None
    latents: torch.Tensor | None = None

    __repr__ = short_repr

    @property
    def sampling_rate(self) -> int:
        """Samples a second of `audios`: 16 000."""
        return MEL.sampling_rate

    @public
    def save(self, path: str | os.PathLike[str], index: int = 0, *, overwrite: bool = False) -> Path:
        """Write one waveform as a WAV file: 16 bits, one channel.

        Parameters
        ----------
        path : path-like
            The file.
        index : int
            Which of `audios`.
        overwrite : bool
            Replace an existing WAV file.

        Returns
        -------
        pathlib.Path
            `path`.

        Raises
        ------
        AudioError
            There is no such waveform: the pipeline was asked for latents alone, or made fewer.
        OutputError
            The file exists and may not be replaced, or cannot be written.

        Examples
        --------
        >>> out = AuffusionOutput(audios=[np.zeros(16_000, dtype=np.float32)])
        >>> out.save("silence.wav").name, out.sampling_rate  # doctest: +SKIP
        ('silence.wav', 16000)
        """
        if self.audios is None:
            raise AudioError('There is no audio: output_type="latent" gives latents alone. Leave it out.')
        if not 0 <= index < len(self.audios):
            raise AudioError(f"There is no waveform {index}; there are {len(self.audios)}, from 0.")
        with whole_or_nothing(path, overwrite=overwrite, replaceable=is_wav) as partial:
            write_wav(partial, self.audios[index])
        return Path(path)
