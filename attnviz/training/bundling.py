"""Combine trained parts into one small checkpoint in half precision."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from attnviz.bundled import NAME
from attnviz.errors import TrainingError
from attnviz.io.json_files import as_json, read_json
from attnviz.io.storage import make_parents, whole_or_nothing
from attnviz.models.conditioning.specs import CONFIG_NAME, read_specs
from attnviz.training.vae import ENCODER

#: Files and folders of a run's model that go into the checkpoint, by trained part.
_TAKEN = {
    "vae": ("vae",),
    "listener": ("listener",),
    "vocoder": ("vocoder",),
    "unet": ("unet", "scheduler", CONFIG_NAME, "sounds.json"),  # and its text encoders
}

_OF_A_PLACE = frozenset({"_name_or_path", "is_local", "local_files_only"})


def bundle(runs: Mapping[str, str | os.PathLike[str]], out: str | os.PathLike[str]) -> list[str]:
    """Copy trained parts into a checkpoint, with weights in float16.

    The training record is copied as well: ``training/PART.json`` is the configuration and ``training/PART.csv``
    the metrics. If a part was trained further from the bundled model, the records of its previous trainings are
    kept as ``training/PART-1.*`` (the first), ``training/PART-2.*`` (the second) and so on.

    Parameters
    ----------
    runs : mapping
        Run folder of each part: keys among "vae", "listener", "unet", "vocoder".
    out : path-like
        Checkpoint folder. Existing parts that are not in `runs` are kept. Parts in `runs` are replaced completely,
        including their measurements.

    Returns
    -------
    list of str
        Files and folders that were replaced, relative to `out`.

    Raises
    ------
    TrainingError
        If a run has no finished model, if a weight exceeds the range of float16 (65 504), or if the denoiser was
        trained on latents of an auto-encoder other than the checkpoint's.
    CheckpointError
        If the text encoders of a denoiser are not listed correctly.
    OutputError
        If `out` cannot be written.
    """
    target = Path(out)
    sources = {name: Path(run) / "model" / name for part, run in runs.items() for name in _TAKEN[part]}
    for part, run in runs.items():
        sources |= {
            f"training/{part}.json": Path(run) / "config.json",
            f"training/{part}.csv": Path(run) / "metrics.csv",
        }
    missing = [os.fspath(path) for path in sources.values() if not path.exists()]
    if missing:
        raise TrainingError(f"no trained part at {', '.join(missing)}. Has the training finished?")
    conditioning: set[str] = set()
    if "unet" in runs:
        model = Path(runs["unet"]) / "model"
        conditioning = _conditioning(model)
        sources |= {name: model / name for name in conditioning}
        _check_latents(Path(runs["unet"]) / "model" / "vae", sources.get("vae", target / "vae"))
    make_parents(target)
    # Copy the whole checkpoint, so that files from other sources are kept.
    with whole_or_nothing(target, overwrite=True, replaceable=_is_checkpoint) as temporary:
        if target.is_dir():
            shutil.copytree(target, temporary)
        else:
            temporary.mkdir()
        for part, run in runs.items():
            if _goes_on(Path(run) / "config.json"):
                _keep_before(temporary / "training", part)
        if conditioning:
            for name in _conditioning(temporary) - conditioning:  # of a denoiser with more text encoders
                shutil.rmtree(temporary / name, ignore_errors=True)
        for name, source in sources.items():
            if source.is_file():
                (temporary / name).parent.mkdir(exist_ok=True)
                shutil.copy(source, temporary / name)
                continue
            shutil.rmtree(temporary / name, ignore_errors=True)
            shutil.copytree(source, temporary / name)
            for path in (temporary / name).rglob("*.safetensors"):
                _halve(path)
            for path in (temporary / name).rglob("*.json"):
                _forget_place(path)
    return sorted(sources)


def _conditioning(folder: Path) -> set[str]:
    """Return the names of the folders of text encoders and adapters of a checkpoint."""
    if not (folder / CONFIG_NAME).is_file():
        return set()
    specs = read_specs(folder / CONFIG_NAME)
    return {name for spec in specs for name in (spec.text_encoder_name, spec.condition_adapter_name)}


def _is_checkpoint(folder: Path) -> bool:
    """Return whether a folder is empty or contains parts of a checkpoint."""
    if not folder.is_dir():
        return False
    known = {name.partition("/")[0] for names in _TAKEN.values() for name in names}
    entries = {path.name for path in folder.iterdir()}
    return not entries or not known.isdisjoint(entries)


def _goes_on(config: Path) -> bool:
    model = read_json(config, error=TrainingError).get("model", {})
    return NAME in (model.get("checkpoint"), model.get("pretrained"))


def _keep_before(folder: Path, part: str) -> None:
    count = 1
    while list(folder.glob(f"{part}-{count}.*")):
        count += 1
    for path in (folder / f"{part}.json", folder / f"{part}.csv"):
        if path.is_file():
            path.replace(path.with_stem(f"{part}-{count}"))


def _check_latents(trained_on: Path, shipped: Path) -> None:
    """Check that the denoiser was trained on latents of the given encoder; decoders may differ."""
    theirs, ours = (_encoder(next(folder.glob("*.safetensors"), folder)) for folder in (trained_on, shipped))
    if theirs.keys() != ours.keys() or not all(torch.equal(theirs[name], ours[name]) for name in ours):
        raise TrainingError(
            f"the denoiser was trained on the latents of {trained_on}, but {shipped} has a different encoder. "
            "Train the denoiser again with model.vae set to this auto-encoder."
        )


def _encoder(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in _halved(path).items() if name.startswith(ENCODER)}


def _forget_place(path: Path) -> None:
    """Remove the local source folder that diffusers and transformers record in a configuration."""
    values = read_json(path, error=TrainingError)
    if isinstance(values, dict) and not _OF_A_PLACE.isdisjoint(values):
        kept = {name: value for name, value in values.items() if name not in _OF_A_PLACE}
        path.write_bytes(as_json(kept, path.name))


def _halved(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"cannot read weights from {path}: {error}") from error
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _halve(path: Path) -> None:
    halved = _halved(path)
    for name, tensor in halved.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TrainingError(f"{path}: {name} has values above 65504, the maximum of float16.")
    # Write bytes to a new file, because save_file creates files that only their owner can read.
    path.unlink()
    path.write_bytes(safetensors.torch.save(halved, metadata={"format": "pt"}))
