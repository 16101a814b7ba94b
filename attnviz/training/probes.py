"""What lies where, asked of a denoiser's features while it is trained; nothing of it is shipped."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch.nn.functional import adaptive_avg_pool1d, binary_cross_entropy_with_logits

from attnviz.errors import TrainingError


class PositionProbe(torch.nn.Module):
    """Linear readings of row and column from what the cross-attention of a denoiser makes its queries of.

    Stable Diffusion's U-Net is told no position. All it can know leaks from the zeros beyond the edges that its
    convolutions pad with (Islam et al. 2020, arXiv 2001.08248), and a small denoiser need not find it: to the one
    this was written for, "X, then Y" and "Y, then X" were the same at the last timestep, where the layout of a
    sample is decided. Asked for it, features carry it within a hundred steps, and words that know when they sound
    have something to meet. The denoiser keeps Stable Diffusion's layout.

    Asked are the middle block and those behind it, where what leaks has come across the grid.

    Parameters
    ----------
    unet : UNet2DConditionModel
        Hooks stay on it for as long as it lives.

    Raises
    ------
    TrainingError
        The denoiser attends to no words there.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        attending = _attending(unet, "objective.position_weight")
        self.readings = torch.nn.ModuleList(torch.nn.Conv2d(one.config.in_channels, 2, 1) for one in attending)
        self._features: dict[int, torch.Tensor] = {}
        for i, one in enumerate(attending):
            one.register_forward_pre_hook(lambda _, given, i=i: self._features.update({i: given[0]}))

    def error(self) -> torch.Tensor:
        """Return the mean squared error of the readings of the last forward pass.

        Positions go from -1 to 1: where nothing is known of long rows and columns the error is 1/3.
        """
        errors = []
        for i, reading in enumerate(self.readings):
            read = reading(self._features.pop(i)).float()
            rows, columns = (torch.linspace(-1, 1, n, device=read.device) for n in read.shape[2:])
            errors.append((read[:, 0] - rows[:, None]).square().mean() + (read[:, 1] - columns).square().mean())
        return torch.stack(errors).mean() / 2


class ActivityProbe(torch.nn.Module):
    """Linear readings of which sound is active in which column, from what cross-attention leaves behind.

    The error of a denoiser is mostly noise, and a short sound is a small part of it. Features that are asked for
    what they should mean are learnt in fewer steps (representation alignment, Yu et al. 2024, arXiv 2410.06940);
    there it is another model's features that are to be read from them, here what the composer knows. Attention
    itself is told nothing: no map is compared with any truth.

    Parameters
    ----------
    unet : UNet2DConditionModel
        Hooks stay on it for as long as it lives.
    classes : int
        Sounds that are told apart.

    Raises
    ------
    TrainingError
        The denoiser attends to no words in its middle block and those behind it.
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
        """Return the cross-entropy of the readings of the last forward pass, in nats a class and column.

        Parameters
        ----------
        activity : torch.Tensor, shape (batch, classes, frames)
            1 where a sound is active; of a column, the share of its frames.
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
            f"{setting} asks the cross-attention of the middle block and of those behind it, and this U-Net has "
            "none there."
        )
    return found
