"""Shuffle the weights of a denoiser temporarily, block by block from the output."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from attnviz.arguments import public
from attnviz.errors import CaptureError
from attnviz.models.families import Family

_PLACES = ("conv_out", "up_blocks", "mid_block", "down_blocks", "conv_in")
"""Parts of a U-Net, from its output to its input."""

_BEHIND = re.compile(
    r"(?:^|[._])(?:proj_out|norm_out|postprocess_conv|lm_heads|scale_shift_table|layer_norm)(?:$|[._])"
)
"""Names of what comes after the last block of a transformer."""


@public
def cascade(unet: nn.Module, family: Family | None = None) -> list[str]:
    """Return the blocks of a denoiser from its output to its input, in the order of randomisation.

    Parameters
    ----------
    unet : torch.nn.Module
        A U-Net of diffusers, or another denoiser or decoder of a family.
    family : Family, optional
        Family of a denoiser that is no U-Net.

    Returns
    -------
    list of str
        Of a U-Net: ``"conv_out"`` (with the preceding normalisation), ``"up_blocks.3"``, ..., ``"up_blocks.0"``,
        ``"mid_block"``, ``"down_blocks.3"``, ..., ``"conv_in"`` (with the timestep embedding). Of a transformer:
        ``"output"``, its blocks from the last to the first, such as ``"transformer_blocks.23"``, and ``"input"``
        (with all embeddings).
    """
    return list(dict.fromkeys(_blocks(unet, family).values()))


def _blocks(denoiser: nn.Module, family: Family | None) -> dict[str, str]:
    """Return the block of each weight, from the output to the input."""
    names = [name for name, _ in denoiser.named_parameters()]
    if any(name.startswith("down_blocks.") for name in names):  # a U-Net, which may have no middle block
        found = {name: _block_of(name) for name in names}
        order = sorted(set(found.values()), key=_from_the_output)
    else:
        sites = (
            []
            if family is None
            else [path for path, each in denoiser.named_modules() if family.is_site(path, each)]
        )
        blocks = list(dict.fromkeys(match[0] for path in sites if (match := re.match(r".*?\.\d+(?=\.)", path))))
        found = {
            name: next(
                (block for block in blocks if name.startswith(f"{block}.")),
                "output" if _BEHIND.search(name) else "input",
            )
            for name in names
        }
        order = ["output", *reversed(blocks), "input"]
    return dict(sorted(found.items(), key=lambda item: order.index(item[1])))


def _from_the_output(block: str) -> tuple[int, int]:
    place, _, number = block.partition(".")
    return _PLACES.index(place), -int(number or 0)


def randomized_blocks(unet: nn.Module, randomize: int | str, family: Family | None = None) -> list[str]:
    """Return the blocks of a denoiser to randomise.

    Parameters
    ----------
    unet : torch.nn.Module
        The denoiser.
    randomize : int or str
        Number of blocks from the output, or the name of the last one; see `cascade`.
    family : Family, optional
        As in `cascade`.

    Raises
    ------
    CaptureError
        If the number is too large or the name unknown, or if a weight cannot be shuffled because it is not in
        memory (offloaded) or not in floating point (quantised).
    """
    blocks = cascade(unet, family)
    if isinstance(randomize, str) and randomize in blocks:
        chosen = blocks[: blocks.index(randomize) + 1]
    elif isinstance(randomize, int) and not isinstance(randomize, bool) and 0 <= randomize <= len(blocks):
        chosen = blocks[:randomize]
    else:
        raise CaptureError(
            f"randomize={randomize!r} is neither a number of blocks from 0 to {len(blocks)}, counted from the "
            f"output, nor the last block's name: {', '.join(blocks)}."
        )
    for name, parameter in _parameters(unet, chosen, family):
        if parameter.is_meta:
            raise CaptureError(
                f"{name} is offloaded and not in memory, so it cannot be randomised. Load the pipeline without "
                "sequential offloading."
            )
        if not parameter.is_floating_point():
            raise CaptureError(
                f"{name} has the type {parameter.dtype}. Quantised weights cannot be shuffled meaningfully. Load "
                "the model in floating point."
            )
    return chosen


@contextmanager
def randomized(unet: nn.Module, blocks: list[str], seed: int, family: Family | None = None) -> Iterator[None]:
    """Shuffle the weights of blocks of a denoiser within a context, and restore them bit-identically on exit.

    Parameters
    ----------
    unet : torch.nn.Module
        The denoiser, which is changed in place and must not be used by others within the context.
    blocks : list of str
        Names returned by `cascade`.
    seed : int
        Seed. The permutation of a weight depends on the seed and its name only, so a block is randomised
        identically for any number of blocks.
    family : Family, optional
        As in `cascade`.

    Notes
    -----
    The values of each weight tensor are permuted. This keeps their mean, variance and outliers, but destroys what
    was learnt. Only the weights that change are saved, in CPU memory, which needs less memory than a copy of the
    U-Net and does not affect hooks, adapters and devices.

    The method is the cascading parameter randomisation of Adebayo et al., Sanity Checks for Saliency Maps
    (arXiv 1810.03292).

    Difference from the original: the authors reinitialise weights. For a diffusion U-Net, initial weights have
    another scale than the trained weights of the other blocks and make attention nearly uniform, which would
    change the maps by itself. A tensor of equal values, such as a bias of zeros, is left unchanged.
    """
    kept: dict[str, torch.Tensor] = {}
    weights = dict(_parameters(unet, blocks, family))
    try:
        # An interrupt may occur while weights are restored, and a second one during the next attempt.
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
    """Restore saved weights and remove each from `kept`, so that an interrupted call can be repeated."""
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


def _parameters(unet: nn.Module, blocks: list[str], family: Family | None) -> Iterator[tuple[str, nn.Parameter]]:
    of = _blocks(unet, family) if blocks else {}
    return ((name, parameter) for name, parameter in unet.named_parameters() if of.get(name) in blocks)


def _block_of(parameter: str) -> str:
    """Return the block of a weight. Weights outside the down, middle, up and output blocks belong to the input."""
    place, number, *_ = parameter.split(".")
    if place in ("down_blocks", "up_blocks"):
        return f"{place}.{number}"
    if place == "mid_block":
        return place
    return "conv_out" if place in ("conv_norm_out", "conv_out") else "conv_in"
