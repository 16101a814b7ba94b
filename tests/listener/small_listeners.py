"""Listeners made by formula, for tests of what is done with their answers."""

from __future__ import annotations

import torch

from attnviz.listener import Listener, ListenerConfig


def small_listener(seed: int = 0, **values) -> Listener:
    """Of random weights, whose answer at one time depends on the whole image."""
    torch.manual_seed(seed)
    listener = Listener(ListenerConfig(**{"channels": (4, 6), "hidden": 5, "mel_bands": 32} | values))
    listener(torch.rand(3, 256, 48))  # so that the batch normalisation's statistics are not those of a new one
    listener.out.weight.data *= 4
    return listener.eval()


def certain_listener(*sure: str) -> Listener:
    """Of these classes it is always sure, and never hears another."""
    listener = small_listener()
    listener.out.weight.data.zero_()
    listener.out.bias.data = torch.tensor([4.0 if name in sure else -4.0 for name in listener.config.classes])
    return listener


class Loudness(Listener):
    """Hears "high" and "low" where the upper and the lower half of the image are bright; keeps the images."""

    def __init__(self, **values) -> None:
        super().__init__(ListenerConfig(classes=("high", "low"), channels=(1,), hidden=1, **values))
        self.images: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images.append(images[0].clone())
        brightest = images.unflatten(1, (2, 128)).amax(2)  # (batch, halves, columns)
        frames = torch.nn.functional.avg_pool1d(brightest, self.config.columns_per_frame)
        return 40 * (frames - 0.45)
