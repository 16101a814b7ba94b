"""Find, read and write published checkpoints in both layouts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import CLIPTextModel

from attnviz.errors import CheckpointError
from attnviz.io.choices import check_model
from attnviz.io.json_files import as_json
from attnviz.io.ownership import Kind
from attnviz.io.paths import checked_path
from attnviz.io.storage import whole_folder
from attnviz.models.conditioning import TextConditioner
from attnviz.models.pipelines import parts as read
from attnviz.models.pipelines.known_sounds import write_known_sounds
from attnviz.models.pipelines.recommended import RecommendedSettings, write_recommended

_HUB_FILES = ["*.json", "*.txt", "*.model", "*.md", "LICENSE*", "*.safetensors", "*.bin", "*.pt"]

CHECKPOINT = Kind("checkpoint")


def locate(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    files: Sequence[str] = _HUB_FILES,
) -> tuple[Path, str | None]:
    """Find a checkpoint's folder; download it from the Hugging Face hub if a repository name is given.

    Parameters
    ----------
    model, revision, local_files_only, cache_dir
        As in `attnviz.load`.
    files : sequence of str
        Patterns of the files to download.

    Returns
    -------
    folder : pathlib.Path
        The checkpoint on this machine.
    commit : str or None
        The hub's commit; None for a local folder.

    Raises
    ------
    CheckpointError
        If neither the folder nor the repository or revision exists, or the hub cannot be reached.
    """
    folder = _as_path(model, "model")
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(f"revision={revision!r} is for hub repositories, but {folder} is a folder.")
        return folder, None
    check_model(model)
    name = os.fspath(model)
    try:
        snapshot = snapshot_download(
            name,
            revision=revision,
            local_files_only=local_files_only,
            cache_dir=None if cache_dir is None else _as_path(cache_dir, "cache_dir"),
            allow_patterns=list(files),
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        where = "the local cache" if local_files_only else "the Hugging Face hub"
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{name!r} (revision {revision or 'main'}) is not a folder and could not be loaded from {where}: "
            f"{why if why.endswith('.') else why + '.'} {_advice(error, local_files_only)}"
        ) from error
    return Path(snapshot), Path(snapshot).name


def _advice(error: Exception, local_files_only: bool) -> str:
    """Say what to do about a checkpoint that could not be downloaded."""
    if local_files_only:
        return "It was not downloaded before: load it once with access to the hub, or give its folder."
    response = getattr(error, "response", None)
    if response is None and not isinstance(error, HFValidationError):
        return (
            "Is this machine offline? Download the checkpoint elsewhere (hf download NAME --local-dir FOLDER) and "
            "give its folder. The bundled model, the default, needs no download."
        )
    if response is not None and response.status_code in (401, 403):
        return "If the repository is gated, accept its conditions on its page and log in (hf auth login)."
    return "Is the name spelled as on the hub, owner/name?"


def layout(folder: Path) -> str:
    """Return a checkpoint's layout: ``"adapter"`` or ``"plain"``.

    Raises
    ------
    CheckpointError
        If it is neither. The message lists what is missing.
    """
    if (folder / "condition_config.json").is_file():
        return "adapter"
    if (folder / "text_encoder").is_dir() and (folder / "tokenizer").is_dir():
        return "plain"
    present = sorted(path.name for path in folder.iterdir()) or ["nothing"]
    raise CheckpointError(
        f"{folder} is not an Auffusion checkpoint: neither condition_config.json (adapter layout) nor "
        f"text_encoder/ and tokenizer/ (plain Stable Diffusion layout) is there. Found: {', '.join(present[:12])}."
    )


def load_components(folder: Path, *, torch_dtype: torch.dtype | None = None) -> dict[str, Any]:
    """Load every part of a checkpoint, and check that the parts match.

    Parameters
    ----------
    folder : pathlib.Path
        A checkpoint in either layout.
    torch_dtype : torch.dtype, optional
        Dtype of every part; default: float32.

    Returns
    -------
    dict
        Arguments of an Auffusion pipeline class.

    Raises
    ------
    CheckpointError
        If a part is missing, malformed or does not match. No pickle is ever executed.
    """
    check_dtype(torch_dtype)
    dtype = torch_dtype or torch.float32
    adapter = layout(folder) == "adapter"
    parts: dict[str, Any] = {
        "unet": read.read_model(UNet2DConditionModel, folder / "unet", dtype),
        "vae": read.read_model(AutoencoderKL, folder / "vae", dtype),
        "scheduler": read.read_scheduler(folder / "scheduler"),
        "vocoder": read.read_vocoder(folder / "vocoder", dtype),
        "text_encoder": None,
        "tokenizer": None,
        "conditioner": None,
    }
    if adapter:
        parts["conditioner"] = TextConditioner.from_pretrained(folder, torch_dtype=dtype)
        width, source = parts["conditioner"].cross_attention_dim, "condition_config.json"
    else:
        parts["text_encoder"] = read.read_model(CLIPTextModel, folder / "text_encoder", dtype)
        parts["tokenizer"] = read.read_tokenizer(folder / "tokenizer", parts["text_encoder"])
        width, source = parts["text_encoder"].config.hidden_size, "text_encoder/config.json"
    read.check_fit(parts, width, source)
    return parts


def check_dtype(torch_dtype: Any) -> None:
    """Raise unless a precision is None or a floating-point dtype.

    Raises
    ------
    CheckpointError
        With the allowed values.
    """
    if torch_dtype is None or (isinstance(torch_dtype, torch.dtype) and torch_dtype.is_floating_point):
        return
    raise CheckpointError(
        f"torch_dtype={torch_dtype!r} is not a floating-point torch.dtype; pass torch.float32, torch.bfloat16 or "
        "torch.float16, not a name as text."
    )


def save_components(pipe: Any, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a pipeline's parts in its layout, completely or not at all.

    Raises
    ------
    CheckpointError
        If a LoRA is attached: the layouts cannot store it.
    OutputError
        If the folder exists and `overwrite` is not set, or cannot be written.
    """
    _refuse_lora(pipe)
    with whole_folder(folder, overwrite=overwrite, kind=CHECKPOINT) as temporary:
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
        _write_feature_extractor(pipe, temporary)
        write_known_sounds(getattr(pipe, "known_sounds", None), temporary)
        write_recommended(getattr(pipe, "recommended", RecommendedSettings()), temporary)


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
    (folder / "model_index.json").write_bytes(as_json(index, "model_index.json"))


def _write_feature_extractor(pipe: Any, folder: Path) -> None:
    preprocessor = getattr(pipe, "preprocessor", None)
    if pipe.feature_extractor is not None:
        pipe.feature_extractor.save_pretrained(folder / "feature_extractor")
    elif preprocessor is not None:
        (folder / "feature_extractor").mkdir()
        (folder / "feature_extractor" / "preprocessor_config.json").write_text(preprocessor, encoding="utf-8")


def _refuse_lora(pipe: Any) -> None:
    for name, part in pipe.components.items():
        if getattr(part, "peft_config", None):
            raise CheckpointError(
                f"A LoRA ({', '.join(part.peft_config)}) is attached to the {name}, but a checkpoint cannot store "
                "it. Merge it first: pipe.fuse_lora(), then pipe.unload_lora_weights(); or remove it."
            )


def _as_path(path: Any, name: str) -> Path:
    return checked_path(path, name, CheckpointError)
