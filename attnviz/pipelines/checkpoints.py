"""Published checkpoints: finding them, reading both layouts, writing them back."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer

from attnviz.audio import MEL, HifiGan
from attnviz.errors import CheckpointError
from attnviz.storage import whole_folder
from attnviz.text import TextConditioner

_HUB_NAME = re.compile(r"[\w][\w.-]*/[\w.-]+")
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.md", "*.safetensors", "*.bin", "*.pt"]

# What diffusers, transformers and their parsers raise on files that are missing or damaged.
_DAMAGE = (OSError, ValueError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError, SafetensorError)


def locate(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> tuple[Path, str | None]:
    """Find a checkpoint's folder, downloading it from the Hugging Face hub where it is named so.

    Returns
    -------
    folder : pathlib.Path
        The checkpoint on this machine.
    commit : str or None
        The hub's commit; None for a local folder.

    Raises
    ------
    CheckpointError
        If there is no such folder, and no such repository or revision, or the hub cannot be reached.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(f"revision={revision!r} is for hub repositories, and {folder} is a folder.")
        return folder, None
    name = os.fspath(model)
    if not _HUB_NAME.fullmatch(name):
        raise CheckpointError(
            f"There is no folder {name!r}, and it is not the name of a hub repository ('owner/name')."
        )
    try:
        snapshot = snapshot_download(
            name,
            revision=revision,
            local_files_only=local_files_only,
            cache_dir=None if cache_dir is None else os.fspath(cache_dir),
            allow_patterns=_HUB_FILES,
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        where = "the local cache" if local_files_only else "the Hugging Face hub"
        raise CheckpointError(
            f"{name!r} (revision {revision or 'main'}) is not a folder and could not be had from {where}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    return Path(snapshot), Path(snapshot).name


def layout(folder: Path) -> str:
    """Tell a checkpoint's layout: ``"adapter"`` or ``"plain"``.

    Raises
    ------
    CheckpointError
        If it is neither; lists what is missing.
    """
    if (folder / "condition_config.json").is_file():
        return "adapter"
    if (folder / "text_encoder").is_dir() and (folder / "tokenizer").is_dir():
        return "plain"
    present = sorted(path.name for path in folder.iterdir()) or ["nothing"]
    raise CheckpointError(
        f"{folder} is no Auffusion checkpoint: neither condition_config.json (adapter layout) nor text_encoder/ "
        f"and tokenizer/ (plain Stable Diffusion layout) is there. Found: {', '.join(present[:12])}."
    )


def load_components(folder: Path, *, torch_dtype: torch.dtype | None = None) -> dict[str, Any]:
    """Read every part of a checkpoint, and check that the parts fit together.

    Parameters
    ----------
    folder : pathlib.Path
        A checkpoint in either layout.
    torch_dtype : torch.dtype, optional
        Precision of every part; float32 where left out.

    Returns
    -------
    dict
        Arguments of an Auffusion pipeline class.

    Raises
    ------
    CheckpointError
        Naming the part that is missing, malformed or does not fit. No pickle is ever executed.
    """
    dtype = torch_dtype or torch.float32
    adapter = layout(folder) == "adapter"
    parts: dict[str, Any] = {
        "unet": _model(UNet2DConditionModel, folder / "unet", dtype),
        "vae": _model(AutoencoderKL, folder / "vae", dtype),
        "scheduler": _scheduler(folder / "scheduler"),
        "vocoder": _vocoder(folder / "vocoder", dtype),
        "text_encoder": None,
        "tokenizer": None,
        "conditioner": None,
    }
    if adapter:
        parts["conditioner"] = TextConditioner.from_pretrained(folder, torch_dtype=dtype)
        width, source = parts["conditioner"].cross_attention_dim, "condition_config.json"
    else:
        parts["text_encoder"] = _model(CLIPTextModel, folder / "text_encoder", dtype)
        parts["tokenizer"] = _tokenizer(folder / "tokenizer")
        width, source = parts["text_encoder"].config.hidden_size, "text_encoder/config.json"
    _check_fit(parts, width, source)
    return parts


def is_checkpoint(folder: Path) -> bool:
    """Say whether a folder holds a checkpoint, or nothing, so that a checkpoint may replace it."""
    return folder.is_dir() and ((folder / "unet" / "config.json").is_file() or not any(folder.iterdir()))


def save_components(pipe: Any, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a pipeline's parts in its layout, whole or not at all.

    Raises
    ------
    OutputError
        If the folder exists and `overwrite` is not set, or cannot be written.
    """
    with whole_folder(folder, overwrite=overwrite, replaceable=is_checkpoint) as temporary:
        pipe.unet.save_pretrained(temporary / "unet")
        pipe.vae.save_pretrained(temporary / "vae")
        pipe.scheduler.save_pretrained(temporary / "scheduler")
        if pipe.vocoder is not None:
            pipe.vocoder.save_pretrained(temporary / "vocoder")
        if pipe.conditioner is not None:
            pipe.conditioner.save_pretrained(temporary)
        else:
            pipe.text_encoder.save_pretrained(temporary / "text_encoder")
            pipe.tokenizer.save_pretrained(temporary / "tokenizer")
            _write_model_index(pipe, temporary)


def _model(kind: type[Any], folder: Path, dtype: torch.dtype) -> Any:
    """Read one model, refusing weights that do not cover it instead of leaving random ones."""
    _expect_folder(folder, f"a {kind.__name__}: config.json and weights (.safetensors or .bin)")
    arguments: dict[str, Any] = {
        "dtype" if issubclass(kind, transformers.PreTrainedModel) else "torch_dtype": dtype,
        # Said outright, because diffusers otherwise prints that it falls back to .bin. Either way tensors only.
        "use_safetensors": any(folder.glob("*.safetensors")),
    }
    try:
        model, info = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True, **arguments)
    except _DAMAGE as error:
        raise CheckpointError(
            f"{folder} could not be read as a {kind.__name__}: {_first_line(error)}. Expected are config.json "
            "and weights as .safetensors, or .bin holding nothing but tensors."
        ) from error
    for trouble in ("missing_keys", "mismatched_keys", "error_msgs"):
        if found := list(info.get(trouble) or ()):
            raise CheckpointError(
                f"The weights in {folder} do not fit its config.json: {len(found)} {trouble.replace('_', ' ')}, "
                f"first {found[0]!r}. Is the file cut off, or from another model?"
            )
    return model.eval()


def _scheduler(folder: Path) -> SchedulerMixin:
    path = folder / "scheduler_config.json"
    _expect_folder(folder, "scheduler_config.json")
    try:
        name = json.loads(path.read_text())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} could not be read: {_first_line(error)}. Expected is JSON with the entry '_class_name', "
            "for example 'PNDMScheduler'."
        ) from error
    kind: Any = getattr(diffusers, str(name), None)
    if not isinstance(kind, type) or not issubclass(kind, SchedulerMixin):
        raise CheckpointError(
            f"{path} names the scheduler {name!r}, which diffusers {diffusers.__version__} has not."
        )
    try:
        return kind.from_pretrained(folder, local_files_only=True)  # type: ignore[attr-defined]  # diffusers is untyped
    except _DAMAGE as error:
        raise CheckpointError(f"{path} could not be read as a {name}: {_first_line(error)}.") from error


def _vocoder(folder: Path, dtype: torch.dtype) -> HifiGan:
    _expect_folder(folder, "config.json and vocoder.pt (or vocoder.safetensors)")
    vocoder = HifiGan.from_pretrained(folder, torch_dtype=dtype)
    for name, expected in (
        ("num_mels", MEL.n_mels),
        ("hop_size", MEL.hop_length),
        ("sampling_rate", MEL.sample_rate),
    ):
        if getattr(vocoder, name) != expected:
            raise CheckpointError(
                f"{folder / 'config.json'} describes another vocoder: {name} is {getattr(vocoder, name)}, and "
                f"Auffusion's spectrograms need {expected}."
            )
    return vocoder.eval()


def _tokenizer(folder: Path) -> CLIPTokenizer:
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except _DAMAGE as error:
        raise CheckpointError(
            f"{folder} could not be read as a CLIP tokenizer: {_first_line(error)}. Expected are vocab.json and "
            "merges.txt, or tokenizer.json."
        ) from error


def _check_fit(parts: dict[str, Any], width: int, source: str) -> None:
    unet, vae = parts["unet"].config, parts["vae"].config
    if unet.cross_attention_dim != width:
        raise CheckpointError(
            f"unet/config.json attends to embeddings {unet.cross_attention_dim} wide, and {source} gives {width}: "
            "these parts are of different models."
        )
    if unet.out_channels != vae.latent_channels:
        raise CheckpointError(
            f"unet/config.json draws {unet.out_channels} latent channels, and vae/config.json has "
            f"{vae.latent_channels}: these parts are of different models."
        )


def _write_model_index(pipe: Any, folder: Path) -> None:
    """Let diffusers' own StableDiffusionPipeline open the plain layout."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", type(pipe.scheduler).__name__],
        "text_encoder": ["transformers", type(pipe.text_encoder).__name__],
        "tokenizer": ["transformers", type(pipe.tokenizer).__name__],
        "unet": ["diffusers", type(pipe.unet).__name__],
        "vae": ["diffusers", type(pipe.vae).__name__],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _expect_folder(folder: Path, content: str) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"The folder {folder} is missing. Expected there: {content}.")


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
