"""The HiFi-GAN generator: from log-mel spectrograms to waveforms."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.nn.functional import leaky_relu

from attnviz.arguments import public
from attnviz.audio.settings import MelConfig
from attnviz.errors import AudioError, CheckpointError
from attnviz.io.json_files import as_json
from attnviz.io.paths import checked_path
from attnviz.io.storage import files_into
from attnviz.models.vocoder.config import HifiGanConfig
from attnviz.models.vocoder.files import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    fold_weight_norm,
    read_config,
    read_weights,
)
from attnviz.models.vocoder.mel_correction import correct_mel

_SLOPE = 0.1  # of every leaky ReLU except the last
_LAST_SLOPE = 0.01  # torch's default, which the original uses before conv_post
_DILATIONS_USED = {"1": 3, "2": 2}  # number of dilations that a block uses, even if more are listed


class _PairedBlock(nn.Module):
    """Residual block "1": for each dilation, a dilated and a plain convolution, added to the input."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_same_length(channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_same_length(channels, kernel, 1) for _ in dilations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = plain(leaky_relu(dilated(leaky_relu(x, _SLOPE)), _SLOPE)) + x
        return x


class _SingleBlock(nn.Module):
    """Residual block "2": for each dilation, a dilated convolution, added to the input."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_same_length(channels, kernel, dilation) for dilation in dilations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for dilated in self.convs:
            x = dilated(leaky_relu(x, _SLOPE)) + x
        return x


def _same_length(channels: int, kernel: int, dilation: int) -> nn.Conv1d:
    return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)


def _upsampling(channels: int, rate: int, kernel: int) -> nn.ConvTranspose1d:
    surplus = kernel - rate
    # Padding removes the surplus at both ends; an odd surplus loses one sample too many, restored at the end.
    return nn.ConvTranspose1d(
        channels,
        channels // 2,
        kernel,
        stride=rate,
        padding=(surplus + 1) // 2,
        output_padding=surplus % 2,
    )


@public
class HifiGan(nn.Module):
    """HiFi-GAN generator: from log-mel spectrograms to waveforms.

    Parameters
    ----------
    config : HifiGanConfig or mapping
        The architecture; a mapping has the content of the published ``config.json``.

    Raises
    ------
    CheckpointError
        If `config` is not that of a HiFi-GAN.

    Notes
    -----
    Source: HiFi-GAN (arXiv 2010.05646) with the parameters of Auffusion (arXiv 2401.01044): leaky ReLU with
    slope 0.1, but 0.01 before the last convolution. Differences from the original: weight normalization is folded
    into the weights on loading; ``resblock`` may be the integer 1 or 2; a configuration may enable
    ``mel_corrections`` of the waveform, for generators trained without discriminators.
    """

    def __init__(self, config: HifiGanConfig | Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config if isinstance(config, HifiGanConfig) else HifiGanConfig.from_dict(config)
        block = _PairedBlock if self.config.resblock == "1" else _SingleBlock
        used = _DILATIONS_USED[self.config.resblock]
        channels = self.config.upsample_initial_channel
        self.conv_pre = nn.Conv1d(self.config.num_mels, channels, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        blocks = list(zip(self.config.resblock_kernel_sizes, self.config.resblock_dilation_sizes, strict=True))
        for rate, kernel in zip(self.config.upsample_rates, self.config.upsample_kernel_sizes, strict=True):
            self.ups.append(_upsampling(channels, rate, kernel))
            channels //= 2
            self.resblocks.extend(block(channels, size, dilations[:used]) for size, dilations in blocks)
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.conv_pre.weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.conv_pre.weight.device

    @property
    def num_mels(self) -> int:
        """Mel bands of the input."""
        return self.config.num_mels

    @property
    def hop_size(self) -> int:
        """Output samples per frame."""
        return self.config.hop_size

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of the output in Hz."""
        return self.config.sampling_rate

    @property
    def mel(self) -> MelConfig:
        """Parameters of the input spectrogram."""
        return self.config.mel

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Compute waveforms from log-mel spectrograms.

        Parameters
        ----------
        log_mel : torch.Tensor
            ``(n, bands, frames)`` natural-log mel, lowest band first, of any floating-point dtype, on the device
            of the weights.

        Returns
        -------
        torch.Tensor
            ``(n, frames * hop_size)`` float32 in [-1, 1].

        Raises
        ------
        AudioError
            If the number of axes or bands differs, or there are no frames.
        """
        if log_mel.ndim != 3 or log_mel.shape[1] != self.num_mels or log_mel.shape[2] == 0:
            raise AudioError(
                f"log_mel has the shape {tuple(log_mel.shape)}; this vocoder needs "
                f"(n, {self.num_mels}, frames). "
                "Is the batch axis missing, or are frames and bands swapped?"
            )
        x = self.conv_pre(log_mel.to(self.dtype))
        per_stage = len(self.config.resblock_kernel_sizes)
        for stage, up in enumerate(self.ups):
            x = up(leaky_relu(x, _SLOPE))
            outputs = [block(x) for block in self.resblocks[stage * per_stage : (stage + 1) * per_stage]]
            # Added from left to right as in the original: the order determines the last bits.
            total = outputs[0]
            for output in outputs[1:]:
                total = total + output
            x = total / per_stage
        waves = torch.tanh(self.conv_post(leaky_relu(x, _LAST_SLOPE)))[:, 0].float()
        if self.training or not self.config.mel_corrections:
            return waves
        if waves.shape[1] < self.mel.shortest:
            raise AudioError(
                f"log_mel has {log_mel.shape[2]} frames, {waves.shape[1]} samples; with mel_corrections this "
                f"vocoder needs at least {self.mel.shortest} samples to compute a spectrogram."
            )
        return correct_mel(waves, log_mel.float(), self.mel, rounds=self.config.mel_corrections)

    @classmethod
    @public
    def from_pretrained(cls, folder: str | os.PathLike[str], torch_dtype: torch.dtype | None = None) -> HifiGan:
        """Load a vocoder from a folder.

        Parameters
        ----------
        folder : path
            Contains ``config.json`` and the weights: ``vocoder.safetensors`` (as written by
            :meth:`save_pretrained`) or, if that is missing, the published ``vocoder.pt``:
            ``{"generator": state dict}``.
        torch_dtype : torch.dtype, optional
            Dtype of the weights; default: float32.

        Returns
        -------
        HifiGan
            On the CPU, in evaluation mode.

        Raises
        ------
        CheckpointError
            If a file is missing or damaged, a pickle contains more than tensors (no part of it is run), or the
            tensors do not match ``config.json``. The message names the file.
        """
        root = checked_path(folder, "the folder of a vocoder", CheckpointError)
        config = read_config(root)
        path, state = read_weights(root)
        dtype = torch.float32 if torch_dtype is None else torch_dtype
        with torch.device("meta"):  # detect a wrong size before allocating memory for it
            model = cls(config)
        _check_tensors(path, state, model.state_dict())
        model.load_state_dict({name: tensor.to(dtype).contiguous() for name, tensor in state.items()}, assign=True)
        return model.eval()

    @public
    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and ``vocoder.safetensors`` into a folder, which is created if necessary.

        Raises
        ------
        OutputError
            If the folder or a file cannot be written.
        """
        state = fold_weight_norm({name: tensor.detach().cpu() for name, tensor in self.state_dict().items()})
        plain = {name: tensor.contiguous() for name, tensor in state.items()}
        with files_into(folder) as root:
            (root / WEIGHTS_NAME).write_bytes(safetensors.torch.save(plain, metadata={"format": "pt"}))
            (root / CONFIG_NAME).write_bytes(as_json(self.config.to_dict(), CONFIG_NAME))


def _check_tensors(path: Path, given: Mapping[str, torch.Tensor], needed: Mapping[str, torch.Tensor]) -> None:
    """Raise CheckpointError unless the tensors of `path` match the architecture."""
    problems = [f"{name} is missing" for name in needed if name not in given]
    problems += [f"{name} is not expected" for name in given if name not in needed]
    for name, tensor in needed.items():
        if name in given and given[name].shape != tensor.shape:
            problem = f"{name} has the shape {tuple(given[name].shape)}, expected {tuple(tensor.shape)}"
            if name == "conv_pre.weight" and given[name].ndim == 3:
                problem += f" (weights for {given[name].shape[1]} mel bands, num_mels is {tensor.shape[1]})"
            problems.insert(0, problem)
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{path} does not fit {CONFIG_NAME} beside it: {'; '.join(problems[:3])}{more}. "
            "Is this the vocoder of another checkpoint?"
        )
