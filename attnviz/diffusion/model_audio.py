"""Prepare real audio as input of a family's model: at the model's rate, in windows, as waveform or spectrogram."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import librosa
import numpy as np
import torch

from attnviz.arguments import whole_number
from attnviz.audio import MEL, MelConfig, load_audio, log_mel, peak_normalize
from attnviz.audio.files import AudioSource
from attnviz.diffusion.clip import warn_of_level
from attnviz.errors import AudioError, CaptureError
from attnviz.models.families import AudioEncoding, Family, Seconds, setting
from attnviz.wording import short_repr

_LONGEST = 1 << 24


@dataclass(frozen=True)
class ModelAudio:
    """Audio at the rate of a family's model, and how its encoder takes it.

    Attributes
    ----------
    samples : numpy.ndarray, shape (samples, channels), float32
        The whole clip.
    rate : int
        Sampling rate in Hz.
    hop_length : int
        Samples of one column of the maps' grid: a spectrogram frame, or a latent.
    frames : int
        Columns of the grid in one latent.
    mel : MelConfig or None
        Parameters of the spectrogram; None where the encoder takes waveforms.
    longest : int or None
        Latents of the longest call, where the model states it.
    """

    samples: np.ndarray
    rate: int
    hop_length: int
    frames: int
    mel: MelConfig | None
    longest: int | None

    __repr__ = short_repr

    @property
    def seconds(self) -> float:
        """Duration of the clip."""
        return len(self.samples) / self.rate

    @property
    def longest_seconds(self) -> float:
        """Duration of the longest call; infinite where the model states none."""
        # In one division, as pipelines compute the limit that they check.
        return math.inf if self.longest is None else self.longest * self.frames * self.hop_length / self.rate

    @property
    def latent_seconds(self) -> float:
        """Duration of one latent."""
        return self.frames * self.hop_length / self.rate

    @property
    def latents(self) -> int:
        """Latents that hold the clip."""
        return -(-len(self.samples) // (self.frames * self.hop_length))

    def encoded(self, columns: int) -> np.ndarray:
        """Return the clip, followed by silence, as the encoder takes it.

        Parameters
        ----------
        columns : int
            Columns of the grid, at least as many as the clip has.

        Returns
        -------
        numpy.ndarray, float32
            A waveform (channels, samples), or a log-mel spectrogram (bands, columns), lowest band first.
        """
        missing = columns * self.hop_length - len(self.samples)
        whole = np.pad(self.samples, ((0, max(missing, 0)), (0, 0)))[: columns * self.hop_length]
        return whole.T if self.mel is None else log_mel(whole[:, 0], self.mel)


def read_model_audio(
    source: AudioSource, owner: Any, model: Any, family: Family, *, source_rate: int | None, normalize: bool
) -> ModelAudio:
    """Read audio at the rate, and with the channels, of a family's model.

    Parameters
    ----------
    source : path, array or tensor
        A file, or samples; see `attnviz.audio.load_audio`.
    owner : object
        What has the audio encoder: the pipeline, or the object around it.
    model : object
        The pipeline.
    family : Family
        With `audio` and `seconds`.
    source_rate : int, optional
        Sampling rate of an array; default: that of the model.
    normalize : bool
        Scale the clip to the peak of the model's training, if it was trained with one.

    Raises
    ------
    CaptureError
        If the family does not say how audio is encoded, or the encoder is missing.
    AudioError
        If the audio cannot be read, or is shorter than one latent.

    Warns
    -----
    InaudibleWarning, ClippingWarning
        If the clip, at its own level, is inaudible or clipped.
    """
    encoding, seconds = checked_encoding(owner, family)
    rate, hop = (_whole(model, each) for each in (seconds.rate, seconds.samples))
    mel = None if seconds.bands is None else _mel(model, encoding, seconds, rate, hop)
    channels = 1 if mel is not None else _whole(owner, encoding.channels)
    samples = load_audio(source, rate, source_rate=source_rate, channels=channels).reshape(-1, channels)
    frames = _whole(owner, encoding.frames)
    if len(samples) < frames * hop:
        raise AudioError(
            f"audio has {len(samples)} samples at {rate} Hz, but one latent of {family.name} is {frames * hop} "
            f"samples ({frames * hop / rate:.3f} s)."
        )
    warn_of_level(_at_16_khz(samples.mean(axis=1), rate))
    if normalize and encoding.peak is not None:
        samples = peak_normalize(samples.ravel(), encoding.peak).reshape(samples.shape)
    longest = None if encoding.longest is None else setting(owner, encoding.longest)
    return ModelAudio(samples, rate, hop, frames, mel, None if longest is None else int(longest))


def read_rate(model: Any, family: Family) -> int:
    """Return the sampling rate of a family's model, in Hz.

    Raises
    ------
    CaptureError
        If the family states no seconds.
    """
    if family.seconds is None:
        raise CaptureError(f"The family {family.name} states no seconds=Seconds(...), so its rate is not known.")
    return _whole(model, family.seconds.rate)


def checked_encoding(owner: Any, family: Family) -> tuple[AudioEncoding, Seconds]:
    """Return how a family encodes audio, and what its columns are in seconds.

    Raises
    ------
    CaptureError
        If the family does not say so, or the audio encoder is missing.
    """
    encoding, seconds = family.audio, family.seconds
    if encoding is None or seconds is None:
        missing = "audio=AudioEncoding(...)" if encoding is None else "seconds=Seconds(...)"
        raise CaptureError(
            f"The family {family.name} states no {missing}, so a clip cannot be encoded for it. See "
            "attnviz.models.families.AudioEncoding."
        )
    if getattr(owner, encoding.encoder, None) is None:
        raise CaptureError(
            f"{type(owner).__name__} has no {encoding.encoder}, so it cannot encode a clip. Was the model loaded "
            "without its audio encoder, or is that part of another object (Tango, TangoFluxInference), which is "
            "to be passed instead?"
        )
    return encoding, seconds


def encode_window(owner: Any, family: Family, window: np.ndarray) -> torch.Tensor:
    """Encode a window of a clip as latents of a family's denoiser.

    Parameters
    ----------
    owner : object
        What has the audio encoder.
    family : Family
        With `audio`.
    window : numpy.ndarray
        Waveform (channels, samples), or log-mel spectrogram (bands, columns), lowest band first.

    Returns
    -------
    torch.Tensor, shape (1, ...), float32
        Mean of the posterior, on the scale and with the axes of the denoiser's latents.

    Raises
    ------
    AudioError
        If the encoder returns values that are not finite.
    """
    encoding = checked_encoding(owner, family)[0]
    encoder = getattr(owner, encoding.encoder)
    weight = next(encoder.parameters())
    device = getattr(owner, "_execution_device", weight.device)  # with offloading, the weights are elsewhere
    given = torch.from_numpy(np.ascontiguousarray(window)).to(device, weight.dtype)[None]
    queries = family.queries
    if queries.has_freq:
        rows = given.flip(-2) if queries.first_row == "highest" else given
        given = (rows.transpose(-1, -2) if queries.order == ("time", "freq") else rows)[:, None]
    how = {"sample_posterior": False} if "sample_posterior" in inspect.signature(encoder.encode).parameters else {}
    result = encoder.encode(given, **how)
    latents = result.latents if hasattr(result, "latents") else getattr(result, "latent_dist", result).mode()
    if not bool(torch.isfinite(latents).all()):
        raise AudioError(
            f"The {encoding.encoder} returned NaN or infinite latents in {weight.dtype}. In float16, this is an "
            "overflow: load with torch_dtype=torch.bfloat16 or torch.float32. Otherwise, a weight is not finite."
        )
    if not queries.has_freq and queries.axis == 1:
        latents = latents.transpose(1, 2)
    return latents.float() * setting(owner, encoding.scale)


def _mel(model: Any, encoding: AudioEncoding, seconds: Seconds, rate: int, hop: int) -> MelConfig:
    bands = _whole(model, seconds.bands)
    return MelConfig(rate, encoding.n_fft, encoding.n_fft, hop, bands, seconds.low, seconds.high)


def _whole(owner: Any, value: Any) -> int:
    return whole_number(str(value), setting(owner, value), most=_LONGEST, error=CaptureError)


def _at_16_khz(mono: np.ndarray, rate: int) -> np.ndarray:
    if rate == MEL.sampling_rate:
        return mono
    return librosa.resample(mono, orig_sr=rate, target_sr=MEL.sampling_rate, res_type="soxr_hq")
