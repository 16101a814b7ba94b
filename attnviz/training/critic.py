"""A critic of image patches, which keeps a decoder from smoothing textures away."""

from __future__ import annotations

import itertools

import torch
from torch import nn

_WIDTHS = (32, 64, 128)


class PatchCritic(nn.Module):
    """Convolutional classifier of patches: recorded or decoded.

    Source: Isola et al. 2017 (PatchGAN, arXiv 1611.07004), as in the auto-encoders of latent diffusion (Rombach et
    al. 2022, arXiv 2112.10752). Differences from the original: half the width, a patch of 46 x 46 pixels, and
    group instead of batch normalisation, which does not depend on the other images of a batch.

    Parameters
    ----------
    channels : int
        Channels of the images.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, _WIDTHS[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for narrow, wide in itertools.pairwise(_WIDTHS):
            layers += [nn.Conv2d(narrow, wide, 4, 2, 1), nn.GroupNorm(8, wide), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(_WIDTHS[-1], 1, 4, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return a score of each patch, positive for recorded ones: shape ``(batch, 1, rows, columns)``."""
        return self.layers(images)


def hinge_loss(recorded: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """Return the hinge loss of a critic, given its scores (Lim and Ye 2017, arXiv 1705.02894)."""
    return 0.5 * ((1 - recorded).clamp(min=0).mean() + (1 + decoded).clamp(min=0).mean())


def balanced_weight(error: torch.Tensor, deceit: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Return the weight at which two losses have equal gradients in the last layer of a decoder, at most 1e4.

    Source: Esser et al. 2021, arXiv 2012.09841, eq. 7.
    """
    ours, theirs = (torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (error, deceit))
    return (ours / (theirs + 1e-6)).clamp(max=1e4).detach()
