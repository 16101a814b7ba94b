"""Read weight files: safetensors, or pickles that contain only tensors."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from attnviz.errors import CheckpointError
from attnviz.io import json_files


def read_json(path: Path, expected: str) -> Any:
    """Return the content of a JSON file.

    Raises
    ------
    CheckpointError
        If the file is missing or is not JSON. The message states what was `expected`.
    """
    return json_files.read_json(path, error=CheckpointError, hint=f"Expected {expected}.")


# Up to this many layers a model is made quickly, and loading then reports the missing weights.
_FEW = 1000


def check_layers(folder: Path, config: dict[str, Any]) -> None:
    """Raise if a configuration has more layers than the weights beside it can fill, before a model is made.

    Raises
    ------
    CheckpointError
        With the field and the number of tensors.
    """
    files = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pt")]
    most = sum(_most_tensors(path) for path in files)
    for name, value in config.items():
        counts = value if isinstance(value, list) else [value]
        for count in counts:
            if "layers" in name and isinstance(count, int) and files and count > max(most, _FEW):
                raise CheckpointError(
                    f"{folder / 'config.json'} requires {count} layers ({name}), but the weights beside it have "
                    f"no more than {most} tensors. Is it damaged?"
                )


def _most_tensors(path: Path) -> int:
    """Return the number of tensors in a safetensors header, or an upper bound from the size of a pickle."""
    if path.suffix != ".safetensors":
        return path.stat().st_size // 4
    try:
        with safe_open(path, framework="pt") as file:
            return len(file.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error})") from error


def read_weights(folder: Path, names: Sequence[str], expected: str) -> dict[str, torch.Tensor]:
    """Return the tensors of the first of `names` that exists in a folder.

    Parameters
    ----------
    folder : Path
    names : sequence of str
        File names in order of preference. ``.safetensors`` is read as such; ``.index.json`` lists several files,
        which are read together; anything else is read with ``torch.load(weights_only=True)``.
    expected : str
        What the file should contain, for the messages.

    Returns
    -------
    dict of str to torch.Tensor
        On the CPU, in the dtype of the file.

    Raises
    ------
    CheckpointError
        If none of the files exists, or the file is damaged or contains anything but tensors. A pickle that
        contains code is rejected, and no part of it runs.
    """
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        given = "it is empty or missing" if not folder.is_dir() else f"it has {_contents(folder)}"
        raise CheckpointError(f"{folder} has no {' or '.join(names)} ({expected}); {given}")
    if not path.name.endswith(".index.json"):
        return _read_file(path, expected)
    shards = read_json(path, f"the index of {expected}")
    mapping = shards.get("weight_map") if isinstance(shards, dict) else None
    if not isinstance(mapping, dict) or not all(_plain_name(shard) for shard in mapping.values()):
        raise CheckpointError(f"{path} has no weight_map from tensor names to names of files beside it")
    state: dict[str, torch.Tensor] = {}
    for shard in sorted(set(mapping.values())):
        if not (folder / shard).is_file():
            raise CheckpointError(f"{folder / shard} is missing, but {path.name} lists it ({expected})")
        state.update(_read_file(folder / shard, expected))
    return state


def _plain_name(name: object) -> bool:
    return isinstance(name, str) and name != "" and Path(name).name == name


def _contents(folder: Path) -> str:
    return ", ".join(sorted(item.name for item in folder.iterdir())) or "nothing in it"


def _read_file(path: Path, expected: str) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was rejected, and no part of it was run: it contains more than tensors, or is damaged"
            f" (expected {expected}). Only pickles of plain tensors are read; ask the author for safetensors."
        ) from error
    except (
        SafetensorError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
    ) as error:
        raise CheckpointError(f"{path} is damaged ({error}); expected {expected}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path} is not a dictionary of tensors; expected {expected}")
    return dict(state)
