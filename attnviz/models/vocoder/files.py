"""Read and write the files of a vocoder: configuration and weights."""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from attnviz.errors import CheckpointError
from attnviz.io.json_files import read_json
from attnviz.models.vocoder.config import HifiGanConfig

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "vocoder.safetensors"
PUBLISHED_NAME = "vocoder.pt"

# Names that torch has given the length and the direction of a weight-normalized tensor.
_PAIRS = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)
# Besides OSError, torch.load raises these on damaged files; found by damaging files at random positions.
_LOAD_ERRORS = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
    OverflowError,
    MemoryError,
)


def read_config(folder: Path) -> HifiGanConfig:
    """Read ``config.json``; raise a CheckpointError with the file and the expected content."""
    path = folder / CONFIG_NAME
    hint = f"A vocoder folder contains {CONFIG_NAME} and {WEIGHTS_NAME} or {PUBLISHED_NAME}."
    values = read_json(path, error=CheckpointError, hint=hint)
    try:
        return HifiGanConfig.from_dict(values)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def read_weights(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Read a vocoder's weights, with weight normalization folded in; return the file's path, too.

    Raises
    ------
    CheckpointError
        If the weights are missing or damaged, a pickle contains anything but tensors (no part of it is run), or
        values are not finite floating-point tensors.
    """
    path = folder / WEIGHTS_NAME
    if path.exists():
        try:
            state = safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    else:
        path = folder / PUBLISHED_NAME
        if not path.exists():
            raise CheckpointError(
                f"{folder} has neither {WEIGHTS_NAME} nor {PUBLISHED_NAME}; "
                "a vocoder's weights are in one of them."
            )
        state = _read_published(path)
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"{path}: tensor {name} is {tensor.dtype}; expected floating point.")
    try:
        folded = fold_weight_norm(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    for name, tensor in folded.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} contains NaN or infinity; every weight must be finite.")
    return path, folded


def _read_published(path: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except _LOAD_ERRORS as error:
        raise CheckpointError(
            f"{path} is damaged, or a pickle that contains more than tensors, which is never loaded (no part of "
            f"it was run); expected {{'generator': state dict}}. {type(error).__name__}"
        ) from error
    state = content.get("generator") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        held = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} contains {held}; expected {{'generator': state dict}}.")
    if not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()):
        raise CheckpointError(f"{path}: 'generator' is not a state dict (names to tensors).")
    return dict(state)


def fold_weight_norm(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Replace each weight-normalized pair (length g, direction v) by the weight ``g * v / |v|``.

    Raises
    ------
    CheckpointError
        If a tensor of a pair is missing, or their shapes do not match.
    """
    folded: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        for g_end, v_end in _PAIRS:
            if name.endswith(v_end):
                stem = name.removesuffix(v_end)
                folded[stem + ".weight"] = _folded(stem, state.get(stem + g_end), tensor)
                break
            if name.endswith(g_end):
                if name.removesuffix(g_end) + v_end not in state:
                    raise CheckpointError(f"tensor {name} has no {name.removesuffix(g_end) + v_end} beside it.")
                break
        else:
            folded[name] = tensor
    return folded


def _folded(stem: str, g: torch.Tensor | None, v: torch.Tensor) -> torch.Tensor:
    expected = (v.shape[0],) + (1,) * (v.ndim - 1) if v.ndim else ()
    if g is None or v.ndim == 0 or tuple(g.shape) != expected:
        got = "missing" if g is None else f"of shape {tuple(g.shape)}"
        raise CheckpointError(f"the length (g) of {stem}.weight is {got}; expected {expected}.")
    # Computed by torch rather than by the formula: bit-exact audio requires the original's rounding.
    holder = torch.nn.Linear(1, 1, bias=False)
    holder.weight = torch.nn.Parameter(v.detach().clone(), requires_grad=False)
    torch.nn.utils.parametrizations.weight_norm(holder)
    pair = holder.state_dict()
    pair["parametrizations.weight.original0"] = g
    pair["parametrizations.weight.original1"] = v
    holder.load_state_dict(pair)
    return holder.weight.detach().clone()


def split_weight_norm(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Split each convolution's weight into the pair (``weight_g``, ``weight_v``) of the published files."""
    split: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if re.search(r"\.weight$", name) and tensor.ndim > 1:
            split[name + "_g"] = torch.linalg.vector_norm(tensor, dim=tuple(range(1, tensor.ndim)), keepdim=True)
            split[name + "_v"] = tensor
        else:
            split[name] = tensor
    return split
