"""The parts of a checkpoint, one by one: read, or refused by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import SchedulerMixin
from safetensors import SafetensorError
from transformers import CLIPTokenizer, PreTrainedModel

from attnviz.audio import MEL
from attnviz.errors import CheckpointError, warn
from attnviz.io.weights import check_layers, read_json
from attnviz.models.conditioning.encoders import check_vocabulary, load_tokenizer, position_limit
from attnviz.models.pipelines import inputs
from attnviz.models.vocoder import HifiGan
from attnviz.text.tokenize import CLIP_LENGTH

# What diffusers, transformers and their parsers raise on files that are missing or damaged.
DAMAGE = (
    OSError,
    ValueError,
    RuntimeError,
    ArithmeticError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
)

# Advice in others' messages that is wrong here (nothing is fetched), or dangerous (unpickling code).
_NOT_PASSED_ON = ("weights_only", "huggingface.co", "trust_remote_code", "from_tf", "force_download")


def read_model(kind: type[Any], folder: Path, dtype: torch.dtype) -> Any:
    """Read one model, refusing weights that do not cover it instead of leaving random ones.

    Raises
    ------
    CheckpointError
        Naming the folder, and what is missing, malformed or does not fit.
    """
    expect_folder(folder, f"a {kind.__name__}: config.json and weights (.safetensors or .bin)")
    check_layers(folder, _expect_object(folder / "config.json", f"the configuration of a {kind.__name__}"))
    arguments: dict[str, Any] = {
        "dtype" if issubclass(kind, transformers.PreTrainedModel) else "torch_dtype": dtype,
        # Said outright, because diffusers otherwise prints that it falls back to .bin. Either way tensors only.
        "use_safetensors": any(folder.glob("*.safetensors")),
    }
    try:
        model, info = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True, **arguments)
    except DAMAGE as error:
        raise CheckpointError(
            f"{folder} could not be read as a {kind.__name__}: {reason(error)}. Expected are config.json "
            "and weights as .safetensors, or .bin holding nothing but tensors."
        ) from error
    for trouble in ("missing_keys", "mismatched_keys", "error_msgs"):
        if found := list(info.get(trouble) or ()):
            raise CheckpointError(
                f"The weights in {folder} do not fit its config.json: {len(found)} {trouble.replace('_', ' ')}, "
                f"first {found[0]!r}. Is the file cut off, or from another model?"
            )
    return model.eval()


def read_scheduler(folder: Path) -> SchedulerMixin:
    """Read the scheduler that ``scheduler_config.json`` names.

    Raises
    ------
    CheckpointError
        If the file is missing or malformed, or names what diffusers does not have.
    """
    path = folder / "scheduler_config.json"
    expect_folder(folder, "scheduler_config.json")
    expected = "JSON with the entry '_class_name', for example 'PNDMScheduler'"
    name = _expect_object(path, expected).get("_class_name")
    kind: Any = getattr(diffusers, str(name), None)
    if not isinstance(kind, type) or not issubclass(kind, SchedulerMixin):
        raise CheckpointError(
            f"{path} names the scheduler {name!r}, which diffusers {diffusers.__version__} has not; expected is "
            f"{expected}."
        )
    try:
        return kind.from_pretrained(folder, local_files_only=True)  # type: ignore[attr-defined]  # diffusers is untyped
    except DAMAGE as error:
        raise CheckpointError(f"{path} could not be read as a {name}: {reason(error)}.") from error


def read_vocoder(folder: Path, dtype: torch.dtype) -> HifiGan | None:
    """Load the vocoder, and check its spectrogram parameters; return None if its folder is missing.

    Raises
    ------
    CheckpointError
        If a file is missing or malformed, or the vocoder is for other spectrograms.

    Warns
    -----
    AttnVizWarning
        If there is none: audio then comes from Griffin-Lim.
    """
    if not folder.exists():
        warn(
            f"{folder.parent} has no vocoder, so audio is made by Griffin-Lim: slower, and less clean. Published "
            "checkpoints hold one in vocoder/ (config.json and vocoder.pt).",
        )
        return None
    expect_folder(folder, "config.json and vocoder.pt (or vocoder.safetensors)")
    vocoder = HifiGan.from_pretrained(folder, torch_dtype=dtype)
    for name, expected in (
        ("num_mels", MEL.n_mels),
        ("hop_size", MEL.hop_length),
        ("sampling_rate", MEL.sampling_rate),
    ):
        if getattr(vocoder, name) != expected:
            raise CheckpointError(
                f"{folder / 'config.json'} describes another vocoder: {name} is {getattr(vocoder, name)}, and "
                f"Auffusion's spectrograms need {expected}."
            )
    return vocoder.eval()


def read_tokenizer(folder: Path, encoder: PreTrainedModel) -> CLIPTokenizer:
    """Read the CLIP tokenizer of a text encoder.

    Raises
    ------
    CheckpointError
        If its files are missing or malformed, or it has more ids than the encoder knows.
    """
    tokenizer = load_tokenizer(folder, CLIPTokenizer)
    check_vocabulary(tokenizer, encoder, folder.name)
    # Diffusers pads to the tokenizer's limit, which a file may leave out or set beyond what the encoder has.
    tokenizer.model_max_length = min(tokenizer.model_max_length, position_limit(encoder) or CLIP_LENGTH)
    return tokenizer


def read_preprocessor(folder: Path) -> str | None:
    """Read ``feature_extractor/preprocessor_config.json``, kept for saving only; return None if it is missing.

    Raises
    ------
    CheckpointError
        If it cannot be read.
    """
    path = folder / "feature_extractor" / "preprocessor_config.json"
    if not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} could not be read: {reason(error)}. Expected is JSON.") from error


def check_fit(parts: dict[str, Any], width: int, source: str) -> None:
    """Raise if parts belong to different models.

    Parameters
    ----------
    parts : dict
        At least ``unet`` and ``vae``.
    width : int
        Of the text embeddings.
    source : str
        The file that says so.

    Raises
    ------
    CheckpointError
        Naming the two files that disagree.
    """
    unet, vae = parts["unet"].config, parts["vae"].config
    if not inputs.is_finite(vae.scaling_factor) or vae.scaling_factor <= 0:
        raise CheckpointError(
            f"vae/config.json has the scaling_factor {vae.scaling_factor!r}; a positive number is expected, "
            "such as 0.18215."
        )
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


def expect_folder(folder: Path, content: str) -> None:
    """Raise if a folder of the checkpoint is missing.

    Raises
    ------
    CheckpointError
        Naming the folder and what is expected in it.
    """
    if not folder.is_dir():
        raise CheckpointError(f"The folder {folder} is missing. Expected there: {content}.")


def reason(error: BaseException) -> str:
    """Say in a line why a file could not be read; never with others' advice on how to run its code."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in text:
        return "its weights hold more than tensors, or are damaged, and nothing in them was run"
    if any(advice in text for advice in _NOT_PASSED_ON):
        return "a file in it is missing or damaged"
    return text.splitlines()[0].rstrip(".")


def _expect_object(path: Path, expected: str) -> dict[str, Any]:
    content = read_json(path, expected)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object, but a {type(content).__name__}; expected {expected}.")
    return content
