"""Write tiny random-weight checkpoints in each published layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import PNDMScheduler
from safetensors.torch import save_file
from transformers import PreTrainedModel

from attnviz.arguments import public, whole_number
from attnviz.errors import CheckpointError
from attnviz.io.paths import checked_path
from attnviz.models.pipelines.recommended import FILE_NAME as RECOMMENDED_NAME
from attnviz.testing.models import (
    ENCODER_WIDTHS,
    ENCODERS,
    UNET_CONFIG,
    VAE_CONFIG,
    VOCODER_CONFIG,
    adapter_state,
    make_encoder,
    make_unet,
    make_vae,
    vocoder_state,
)
from attnviz.testing.tokenizer_files import write_tokenizer

SCHEDULER_CONFIG: dict[str, Any] = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
}

_FEATURE_EXTRACTOR: dict[str, Any] = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 224},
}

_CONDITION_TYPES = {
    "clip": ("clip-vit-large-patch14_text", "openai/clip-vit-large-patch14"),
    "t5": ("flan-t5-large_text", "google/flan-t5-large"),
    "clap": ("clap-htsat-unfused_text", "laion/clap-htsat-unfused"),
    "bert": ("bert-base-uncased_text", "google-bert/bert-base-uncased"),
}

_WIDEST = 4096
_VAE_OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@public
def write_adapter_checkpoint(
    folder: str | Path,
    *,
    encoders: Sequence[str] = ("clip",),
    seed: int = 0,
    published: bool = True,
    cross_attention_dim: int = 24,
    condition_max_length: int = 77,
    recommended: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write a tiny random-weight checkpoint in the adapter layout.

    Parameters
    ----------
    folder : str or Path
        Output folder, created if necessary. Files of the same names are overwritten.
    encoders : sequence of {"clip", "t5", "clap", "bert"}
        Kinds of text encoders, each with one adapter, in this order. Kinds may be repeated.
    seed : int
        Seed of all weights. The global random state is not changed.
    published : bool
        If True, write ``.bin`` / ``.pt`` files, configurations and VAE attention names as diffusers 0.18 and
        transformers 4.31. If False, write safetensors and current tokenizer files.
    cross_attention_dim : int
        Width of the U-Net's keys.
    condition_max_length : int
        Length to which the hidden states of each encoder are padded or truncated.
    recommended : mapping, optional
        Content of ``recommended_settings.json``. By default, there is none, as in a published checkpoint.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    CheckpointError
        If `encoders` is empty or names an unknown kind.

    Notes
    -----
    U-Net: three cross-attention down blocks and a plain one, a middle block, and the mirrored up blocks (16
    cross-attention modules with 4 heads). VAE: factor 8. Vocoder: HiFi-GAN, 256 mel bands, hop 160, with one stage
    whose kernel size minus stride is odd.
    """
    _check_encoders(encoders)
    cross_attention_dim = whole_number(
        "cross_attention_dim", cross_attention_dim, most=_WIDEST, error=CheckpointError
    )
    folder = checked_path(folder, "the folder of a checkpoint", CheckpointError)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        entries = []
        for i, kind in enumerate(encoders):
            condition_type, origin = _CONDITION_TYPES[kind]
            entry = {
                "text_encoder_name": f"text_encoder_{i}",
                "condition_adapter_name": f"condition_adapter_{i}",
                "condition_type": condition_type,
                "pretrained_model_name_or_path": origin,
                "condition_max_length": condition_max_length,
                "condition_dim": ENCODER_WIDTHS[kind],
                "cross_attention_dim": cross_attention_dim,
            }
            entries.append(entry)
            _write_encoder(folder / f"text_encoder_{i}", make_encoder(kind), published)
            write_tokenizer(folder / f"text_encoder_{i}", kind, published=published)
            adapter = folder / f"condition_adapter_{i}"
            _write_json(
                adapter / "config.json",
                {
                    "condition_type": condition_type,
                    "condition_dim": ENCODER_WIDTHS[kind],
                    "cross_attention_dim": cross_attention_dim,
                    "model_name": "adapter",
                    "condition_adapter_name": f"condition_adapter_{i}",
                },
            )
            state = adapter_state(ENCODER_WIDTHS[kind], cross_attention_dim)
            _write_weights(adapter / "condition_adapter", state, ".pt" if published else ".safetensors")
        _write_json(folder / "condition_config.json", entries)
        _write_shared_parts(folder, cross_attention_dim, published)
    if recommended is not None:
        _write_json(folder / RECOMMENDED_NAME, recommended)
    return folder


@public
def write_plain_checkpoint(
    folder: str | Path, *, seed: int = 0, published: bool = True, vocoder: bool = True
) -> Path:
    """Write a tiny random-weight checkpoint in the plain Stable Diffusion layout, with an additional ``vocoder/``.

    Parameters
    ----------
    folder : str or Path
        Output folder, created if necessary. Files of the same names are overwritten.
    seed : int
        Seed of all weights. The global random state is not changed.
    published : bool
        If True, write ``.bin`` / ``.pt`` files as diffusers 0.18 and transformers 4.31. If False, write
        safetensors and current tokenizer files.
    vocoder : bool
        If False, omit ``vocoder/`` (a plain Stable Diffusion checkpoint).

    Returns
    -------
    Path
        `folder`. Its text encoder is a CLIP model of width 32, which equals ``cross_attention_dim`` of the U-Net.
    """
    folder = checked_path(folder, "the folder of a checkpoint", CheckpointError)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _write_encoder(folder / "text_encoder", make_encoder("clip"), published)
        write_tokenizer(folder / "tokenizer", "clip", published=published)
        _write_shared_parts(folder, ENCODER_WIDTHS["clip"], published, vocoder=vocoder)
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.18.2",
        "feature_extractor": ["transformers", "CLIPImageProcessor"] if published else [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    _write_json(folder / "model_index.json", index)
    return folder


def _check_encoders(encoders: Sequence[str]) -> None:
    if isinstance(encoders, str) or not encoders or any(kind not in ENCODERS for kind in encoders):
        raise CheckpointError(
            f"encoders must be a sequence of one or more of {', '.join(ENCODERS)}, such as ('clip', 't5');"
            f" got {encoders!r}"
        )


def _write_shared_parts(folder: Path, cross_attention_dim: int, published: bool, vocoder: bool = True) -> None:
    unet, vae = make_unet(cross_attention_dim), make_vae()
    if published:
        unet_config = {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.18.2", **UNET_CONFIG}
        _write_json(folder / "unet/config.json", {**unet_config, "cross_attention_dim": cross_attention_dim})
        _write_weights(folder / "unet/diffusion_pytorch_model", unet.state_dict(), ".bin")
        vae_config = {"_class_name": "AutoencoderKL", "_diffusers_version": "0.18.2", **VAE_CONFIG}
        _write_json(folder / "vae/config.json", vae_config)
        _write_weights(folder / "vae/diffusion_pytorch_model", _old_vae_names(vae.state_dict()), ".bin")
        scheduler = {"_class_name": "PNDMScheduler", "_diffusers_version": "0.18.2", **SCHEDULER_CONFIG}
        _write_json(folder / "scheduler/scheduler_config.json", scheduler)
        _write_json(folder / "feature_extractor/preprocessor_config.json", _FEATURE_EXTRACTOR)
    else:
        unet.save_pretrained(folder / "unet")
        vae.save_pretrained(folder / "vae")
        PNDMScheduler(**SCHEDULER_CONFIG).save_pretrained(folder / "scheduler")
    if vocoder:
        state = vocoder_state()
        _write_json(folder / "vocoder/config.json", VOCODER_CONFIG)
        if published:
            torch.save({"generator": state}, folder / "vocoder/vocoder.pt")
        else:
            _write_weights(folder / "vocoder/vocoder", state, ".safetensors")


def _old_vae_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the mid-block attention as before diffusers 0.18."""
    renamed = {}
    for name, tensor in state.items():
        new = name
        if ".mid_block.attentions.0." in name:
            for today, old in _VAE_OLD_NAMES.items():
                new = new.replace(f".{today}.", f".{old}.")
        renamed[new] = tensor
    return renamed


def _write_encoder(folder: Path, model: PreTrainedModel, published: bool) -> None:
    config = {**model.config.to_diff_dict(), "architectures": [type(model).__name__]}
    config.pop("dtype", None)
    state = dict(model.state_dict())
    if published:
        config = {**config, "torch_dtype": "float32", "transformers_version": "4.31.0"}
        if type(model).__name__ == "CLIPTextModel":  # the module was one level deeper before transformers 5
            state = {f"text_model.{name}": tensor for name, tensor in state.items()}
        _write_weights(folder / "pytorch_model", state, ".bin")
    else:
        config["dtype"] = "float32"
        state.pop("encoder.embed_tokens.weight", None)  # tied copy in T5: safetensors stores a tensor once
        _write_weights(folder / "model", state, ".safetensors")
    _write_json(folder / "config.json", config)


def _write_weights(stem: Path, state: dict[str, torch.Tensor], suffix: str) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    path = stem.with_name(stem.name + suffix)
    if suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, path, metadata={"format": "pt"})
    else:
        torch.save(state, path)


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
