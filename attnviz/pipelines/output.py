"""What an Auffusion pipeline returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.utils import BaseOutput


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
