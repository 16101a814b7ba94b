"""A U-Net whose weights are shuffled, block by block from the output, for as long as it is looked at."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from attnviz.errors import CaptureError


def cascade(unet: nn.Module) -> list[str]:
    """List the blocks of a U-Net from its output to its input, in the order they are randomised.

    Parameters
    ----------
    unet : torch.nn.Module
        A diffusers U-Net.

    Returns
    -------
    list of str
        ``"conv_out"`` (with the normalisation before it), ``"up_blocks.3"``, ..., ``"up_blocks.0"``,
        ``"mid_block"``, ``"down_blocks.3"``, ..., ``"conv_in"`` (with all that embeds the timestep).
    """

    def from_the_output(block: str) -> tuple[int, int]:
        place, _, number = block.partition(".")
        return ("conv_out", "up_blocks", "mid_block", "down_blocks", "conv_in").index(place), -int(number or 0)

    return sorted({_block_of(name) for name, _ in unet.named_parameters()}, key=from_the_output)


def randomized_blocks(unet: nn.Module, randomize: int | str) -> list[str]:
    """Settle which blocks of a U-Net are randomised.

    Parameters
    ----------
    unet : torch.nn.Module
        The U-Net.
    randomize : int or str
        How many blocks from the output, or the name of the last one; see `cascade`.

    Raises
    ------
    CaptureError
        If there are not so many, or none of that name; or if a weight of them cannot be shuffled, for it is
        not in memory (offloaded) or no floating-point number (quantised).
    """
    blocks = cascade(unet)
    if isinstance(randomize, str) and randomize in blocks:
        chosen = blocks[: blocks.index(randomize) + 1]
    elif isinstance(randomize, int) and not isinstance(randomize, bool) and 0 <= randomize <= len(blocks):
        chosen = blocks[:randomize]
    else:
        raise CaptureError(
            f"randomize={randomize!r} is neither a number of blocks from 0 to {len(blocks)}, counted from the "
            f"output, nor the last block's name: {', '.join(blocks)}."
        )
    for name, parameter in _parameters(unet, chosen):
        if parameter.is_meta:
            raise CaptureError(
                f"{name} is offloaded and not in memory, so it cannot be randomised. Load the pipeline without "
                "sequential offloading."
            )
        if not parameter.is_floating_point():
            raise CaptureError(
                f"{name} is of the type {parameter.dtype}, a quantised weight, so shuffling its values means "
                "nothing. Load the model in floating point."
            )
    return chosen


@contextmanager
def randomized(unet: nn.Module, blocks: list[str], seed: int) -> Iterator[None]:
    """Shuffle the weights of some blocks of a U-Net; they are as they were, to the last bit, when the block ends.

    Parameters
    ----------
    unet : torch.nn.Module
        The U-Net, changed in place: nobody else may use it meanwhile.
    blocks : list of str
        Names out of `cascade`.
    seed : int
        With a weight's name, fixes its shuffle: a block is randomised alike however many are.

    Notes
    -----
    The values of each weight tensor are put into another order, so that their mean, spread and outliers stay and
    what was learnt is gone. The weights that change, and no others, are kept in CPU memory meanwhile, which is
    less than a copy of the U-Net and leaves its hooks, adapters and devices alone.

    Source: cascading parameter randomisation, Adebayo et al., Sanity Checks for Saliency Maps (arXiv 1810.03292).

    Differences from the original: it draws weights anew as they were before training. Those of a diffusion
    U-Net would be of another size than the trained ones around them (its attention nearly even), and maps would
    differ for that alone. A tensor of equal values (a bias of zeros) stays as it is.
    """
    kept: dict[str, torch.Tensor] = {}
    weights = dict(_parameters(unet, blocks))
    try:
        # An interrupt may strike while weights are put back, and a second one while they are put back again.
        try:
            try:
                for name, parameter in weights.items():
                    kept[name] = parameter.detach().to("cpu", copy=True)
                    _fill(parameter, _shuffled(kept[name], name, seed))
                yield
            finally:
                _put_back(weights, kept)
        finally:
            _put_back(weights, kept)
    finally:
        _put_back(weights, kept)


def _put_back(weights: Mapping[str, nn.Parameter], kept: dict[str, torch.Tensor]) -> None:
    """Put back what is kept, and forget it; what an interrupt leaves over is kept on."""
    while kept:
        name = next(iter(kept))
        _fill(weights[name], kept[name])
        del kept[name]


@torch.no_grad()
def _fill(parameter: nn.Parameter, values: torch.Tensor) -> None:
    parameter.copy_(values)


def _shuffled(values: torch.Tensor, name: str, seed: int) -> torch.Tensor:
    key = np.random.SeedSequence((seed, zlib.crc32(name.encode()))).generate_state(1, np.uint64)
    order = torch.randperm(values.numel(), generator=torch.Generator().manual_seed(int(key[0])))
    return values.flatten()[order].view_as(values)


def _parameters(unet: nn.Module, blocks: list[str]) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in unet.named_parameters() if _block_of(name) in blocks)


def _block_of(parameter: str) -> str:
    """Give the block a weight is of; what is neither down, middle, up nor output is before them all."""
    place, number, *_ = parameter.split(".")
    if place in ("down_blocks", "up_blocks"):
        return f"{place}.{number}"
    if place == "mid_block":
        return place
    return "conv_out" if place in ("conv_norm_out", "conv_out") else "conv_in"
