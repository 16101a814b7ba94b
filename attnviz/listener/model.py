"""Network of the listener: a convolutional recurrent sound event detector on mel images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import safetensors.torch
import torch
from torch import nn

from attnviz.arguments import public, whole_number
from attnviz.audio import MEL
from attnviz.errors import AudioError, CheckpointError
from attnviz.io.json_files import as_json, read_json
from attnviz.io.paths import checked_path
from attnviz.io.storage import files_into
from attnviz.scenes.recordings import CLASSES

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "listener.safetensors"
_WIDEST = 2**31 - 1  # the weights say what fits; no layer of PyTorch is wider


@public
@dataclass(frozen=True)
class ListenerConfig:
    """Configuration of a listener.

    Parameters
    ----------
    classes : tuple of str
        Class names, in the order of the outputs.
    channels : tuple of int
        Channels of the convolutional blocks. All blocks halve the frequency axis, and the first `time_halvings`
        blocks also halve the time axis.
    hidden : int
        Width of the recurrent layers in each direction.
    recurrent_layers : int
        Number of recurrent layers.
    time_halvings : int
        Number of blocks that halve the time axis. With 1, and `columns_averaged` of 2, a frame is 4 columns of the
        spectrogram (40 ms).
    dropout : float
        Dropout probability after the convolutions in training.
    mel_bands : int
        Rows of the mel image after averaging of adjacent bands. Must divide 256.
    columns_averaged : int
        Number of adjacent columns averaged before the first convolution.

    Raises
    ------
    CheckpointError
        If a value has the wrong type or is out of range.
    """

    classes: tuple[str, ...] = CLASSES
    channels: tuple[int, ...] = (16, 32, 64, 96, 128)
    hidden: int = 96
    recurrent_layers: int = 1
    time_halvings: int = 1
    dropout: float = 0.3
    mel_bands: int = 64
    columns_averaged: int = 2

    def __post_init__(self) -> None:
        for name in ("classes", "channels"):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)) or not value:
                raise CheckpointError(f"{name} is {value!r}; expected a non-empty list.")
            object.__setattr__(self, name, tuple(value))
        names = self.classes
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            raise CheckpointError(f"classes is {list(names)}; expected names without duplicates.")
        counts = {
            name: getattr(self, name) for name in ("hidden", "recurrent_layers", "mel_bands", "columns_averaged")
        }
        counts |= {f"channels[{i}]": value for i, value in enumerate(self.channels)}
        for name, value in counts.items():
            whole_number(name, value, most=_WIDEST, error=CheckpointError)
        if MEL.n_mels % self.mel_bands or self.mel_bands % 2 ** len(self.channels):
            raise CheckpointError(
                f"mel_bands is {self.mel_bands}; it must divide {MEL.n_mels} and be halved "
                f"{len(self.channels)} times."
            )
        whole_number("time_halvings", self.time_halvings, least=0, most=len(self.channels), error=CheckpointError)
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise CheckpointError(f"dropout is {self.dropout!r}; expected a value of at least 0 and below 1.")

    @classmethod
    @public
    def from_dict(cls, values: Mapping[str, Any]) -> ListenerConfig:
        """Create a configuration from the contents of ``config.json``; raise CheckpointError if invalid."""
        names = [item.name for item in fields(cls)]
        if not isinstance(values, Mapping) or set(values) - set(names):
            unknown = sorted(set(values) - set(names)) if isinstance(values, Mapping) else type(values).__name__
            raise CheckpointError(f"the configuration of a listener has the fields {names}, not {unknown}.")
        return cls(**values)

    @property
    def columns_per_frame(self) -> int:
        """Number of spectrogram columns per output frame."""
        return self.columns_averaged * 2**self.time_halvings


@public
class Listener(nn.Module):
    """Sound event detector (CRNN) that maps a mel image to the logits of each class in each frame.

    Parameters
    ----------
    config : ListenerConfig
        Configuration of the network.

    Notes
    -----
    The network consists of blocks of two 3 x 3 convolutions with batch normalisation, a bidirectional GRU over
    time and a linear layer, following Cakir et al. 2017 (arXiv 1702.06286).
    """

    def __init__(self, config: ListenerConfig) -> None:
        super().__init__()
        self.config = config
        blocks, before = [], 1
        for i, width in enumerate(config.channels):
            blocks.append(_block(before, width, (2, 2 if i < config.time_halvings else 1)))
            before = width
        self.blocks = nn.Sequential(*blocks)
        rows = config.mel_bands // 2 ** len(config.channels)
        self.dropout = nn.Dropout(config.dropout)
        self.gru = nn.GRU(
            before * rows, config.hidden, config.recurrent_layers, batch_first=True, bidirectional=True
        )
        self.out = nn.Linear(2 * config.hidden, len(config.classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute logits.

        Parameters
        ----------
        images : torch.Tensor
            ``(batch, 256, columns)`` in [0, 1], with the highest frequency in row 0. The number of columns is a
            multiple of ``config.columns_per_frame``.

        Returns
        -------
        torch.Tensor
            ``(batch, classes, frames)``, before the sigmoid.

        Raises
        ------
        AudioError
            If the images have another shape.
        """
        return self.out(self.dropout(self.features(images))).transpose(1, 2)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Compute what the last layer classifies.

        Parameters
        ----------
        images : torch.Tensor
            See `forward`.

        Returns
        -------
        torch.Tensor
            ``(batch, frames, 2 * hidden)``: outputs of the recurrent layers.

        Raises
        ------
        AudioError
            If the images have another shape.
        """
        if images.ndim != 3 or images.shape[1] != MEL.n_mels or images.shape[2] % self.config.columns_per_frame:
            raise AudioError(
                f"the images have the shape {tuple(images.shape)}; expected (batch, {MEL.n_mels}, columns) "
                f"with columns a multiple of {self.config.columns_per_frame}."
            )
        averaged = (images.shape[1] // self.config.mel_bands, self.config.columns_averaged)
        x = nn.functional.avg_pool2d(images[:, None], averaged)
        x = self.blocks(2 * x - 1)  # (batch, channels, rows, frames)
        x = self.dropout(x.flatten(1, 2).transpose(1, 2))
        return self.gru(x)[0]

    @classmethod
    @public
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Listener:
        """Read ``config.json`` and ``listener.safetensors``.

        Returns
        -------
        Listener
            Listener in float32 and evaluation mode, on the CPU.

        Raises
        ------
        CheckpointError
            If a file is missing or damaged, or if the weights do not match the configuration.
        """
        root = checked_path(folder, "the folder of a listener", CheckpointError)
        hint = f"{root} does not contain a readable listener."
        try:
            config = ListenerConfig.from_dict(read_json(root / CONFIG_NAME, error=CheckpointError, hint=hint))
            state = safetensors.torch.load_file(root / WEIGHTS_NAME)
            # Allocate no weights here: a damaged configuration may specify any size.
            with torch.device("meta"):
                model = cls(config)
            # Clone: tensors in the file buffer have arbitrary alignment, which affects rounding in kernels.
            state = {name: part.clone() for name, part in state.items()}
            model.load_state_dict(state, assign=True)
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{root} does not contain a readable listener: {error}") from error
        except RuntimeError as error:
            raise CheckpointError(f"{root / WEIGHTS_NAME} does not match {CONFIG_NAME}: {error}") from error
        broken = [name for name, part in model.state_dict().items() if not torch.isfinite(part).all()]
        if broken:
            raise CheckpointError(f"{root / WEIGHTS_NAME} contains NaN or infinite weights: {broken[:5]}.")
        return model.float().eval()

    @public
    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and ``listener.safetensors`` into a folder, which is created if necessary.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        with files_into(folder) as root:
            (root / WEIGHTS_NAME).write_bytes(safetensors.torch.save(state, metadata={"format": "pt"}))
            (root / CONFIG_NAME).write_bytes(as_json(asdict(self.config), CONFIG_NAME))


def _block(before: int, width: int, pool: tuple[int, int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.SiLU()]
    return nn.Sequential(*layers, nn.AvgPool2d(pool))
