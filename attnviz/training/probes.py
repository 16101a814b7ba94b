"""Auxiliary probes of a denoiser's features during training; they are not part of the trained model."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch.nn.functional import adaptive_avg_pool1d, binary_cross_entropy_with_logits

from attnviz.errors import TrainingError


class PositionProbe(torch.nn.Module):
    """Linear probes of row and column position from the features that cross-attention computes its queries from.

    Stable Diffusion's U-Net has no position input. It can infer position only from the zero padding of its
    convolutions (Islam et al. 2020, arXiv 2001.08248), and a small denoiser may fail to. The denoiser for which
    this probe was written gave the same result for "X, then Y" and "Y, then X" at the last timestep, where the
    layout of a sample is determined. With this loss, features encode position within a hundred steps, so that
    words with temporal information can attend by position. The denoiser keeps Stable Diffusion's architecture.

    The middle block and the up blocks are probed, where information from the borders has spread over the grid.

    Parameters
    ----------
    unet : UNet2DConditionModel
        The hooks remain on it for its lifetime.

    Raises
    ------
    TrainingError
        If these blocks of the denoiser have no cross-attention.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        attending = _attending(unet, "objective.position_weight")
        self.readings = torch.nn.ModuleList(torch.nn.Conv2d(one.config.in_channels, 2, 1) for one in attending)
        self._features: dict[int, torch.Tensor] = {}
        for i, one in enumerate(attending):
            one.register_forward_pre_hook(lambda _, given, i=i: self._features.update({i: given[0]}))

    def error(self) -> torch.Tensor:
        """Return the mean squared error of the probes in the last forward pass.

        Positions range from -1 to 1. Without any information the error is 1/3, for long rows and columns.
        """
        errors = []
        for i, reading in enumerate(self.readings):
            read = reading(self._features.pop(i)).float()
            rows, columns = (torch.linspace(-1, 1, n, device=read.device) for n in read.shape[2:])
            errors.append((read[:, 0] - rows[:, None]).square().mean() + (read[:, 1] - columns).square().mean())
        return torch.stack(errors).mean() / 2


class ActivityProbe(torch.nn.Module):
    """Linear probes of the active sounds in each column from the output of cross-attention.

    Most of a denoiser's error is noise, and a short sound contributes little to it. Models learn faster if their
    features are trained to predict meaningful targets (representation alignment, Yu et al. 2024, arXiv
    2410.06940). There, the targets are features of another model; here, they are the activity known from the
    composer. The attention maps themselves are not supervised.

    Parameters
    ----------
    unet : UNet2DConditionModel
        The hooks remain on it for its lifetime.
    classes : int
        Number of sound classes.

    Raises
    ------
    TrainingError
        If the middle block and the up blocks of the denoiser have no cross-attention.
    """

    def __init__(self, unet: UNet2DConditionModel, classes: int) -> None:
        super().__init__()
        attending = _attending(unet, "objective.activity_weight")
        self.readings = torch.nn.ModuleList(
            torch.nn.Conv1d(one.config.in_channels, classes, 1) for one in attending
        )
        self._features: dict[int, torch.Tensor] = {}
        for i, one in enumerate(attending):
            one.register_forward_hook(lambda _, given, left, i=i: self._features.update({i: left[0]}))

    def error(self, activity: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of the probes in the last forward pass, in nats per class and column.

        Parameters
        ----------
        activity : torch.Tensor, shape (batch, classes, frames)
            1 where a sound is active; averaged over the frames of each column.
        """
        errors = []
        for i, reading in enumerate(self.readings):
            read = reading(self._features.pop(i).mean(2)).float()
            wanted = adaptive_avg_pool1d(activity.float(), read.shape[2])
            errors.append(binary_cross_entropy_with_logits(read, wanted))
        return torch.stack(errors).mean()


def _attending(unet: UNet2DConditionModel, setting: str) -> list[Any]:
    found = [
        module
        for name, module in unet.named_modules()
        if isinstance(module, Transformer2DModel) and name.startswith(("mid_block", "up_blocks"))
    ]
    if not found:
        raise TrainingError(
            f"{setting} needs cross-attention in the middle block or the up blocks, and this U-Net has none there."
        )
    return found
