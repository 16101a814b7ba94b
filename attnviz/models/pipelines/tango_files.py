"""Read Tango and TangoFlux from the folders that their authors publish.

Both hold the weights of the whole model in one file, T5's included, but neither T5's tokenizer nor, of Tango, the
configuration of the U-Net and the scheduler. Those come from a subfolder of the name that the configuration
states, if there is one; otherwise the tokenizer comes from the hub, and the rest is as in the authors' code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderOobleck,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from transformers import AutoTokenizer, SpeechT5HifiGan, SpeechT5HifiGanConfig, T5Config, T5EncoderModel

from attnviz.errors import CheckpointError
from attnviz.io.json_files import read_json
from attnviz.models.pipelines.tango import TangoFluxConditioner, TangoFluxPipeline, TangoPipeline

State = dict[str, torch.Tensor]

TANGO_CONFIG = "main_config.json"
FLUX_NAMES = {"joint_attention_dim", "num_single_layers", "audio_seq_len"}
"""Entries of ``config.json`` by which a TangoFlux folder is known."""

_T5_COPY = "encoder.embed_tokens.weight"  # tied to shared.weight: files may leave it out

_UNET: dict[str, Any] = {
    "act_fn": "silu",
    "attention_head_dim": [5, 10, 20, 20],
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 8,
    "layers_per_block": 2,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 8,
    "sample_size": [32, 2],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "upcast_attention": True,
    "use_linear_projection": True,
}
_UNETS = {
    "diffusion_model_config.json": {**_UNET, "cross_attention_dim": 1024},
    "diffusion_model_xl_config.json": {**_UNET, "cross_attention_dim": 2048},
}
"""U-Nets of the authors' repository, by the names that published configurations state."""

_SCHEDULERS = {
    # Of stabilityai/stable-diffusion-2-1, which the folders name without holding it.
    "stable-diffusion-2-1": {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "prediction_type": "v_prediction",
    }
}
_AS_THEN = {"steps_offset": 0, "timestep_spacing": "leading"}
"""What the DDPMScheduler of the authors' diffusers (0.15) did: it had no such settings. Files say otherwise."""

_VOCODER: dict[str, Any] = {
    "sampling_rate": 16000,
    "upsample_rates": [5, 4, 2, 2, 2],
    "upsample_kernel_sizes": [16, 16, 8, 4, 4],
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    "normalize_before": False,
}
"""AudioLDM's HiFi-GAN for 64 bands, as in the authors' code; widths are read from the weights."""


def load_tango(folder: Path, dtype: torch.dtype, hub: Mapping[str, Any]) -> TangoPipeline:
    """Load Tango or Tango 2.

    Parameters
    ----------
    folder : pathlib.Path
        With ``main_config.json``, ``vae_config.json``, ``pytorch_model_main.bin`` and ``pytorch_model_vae.bin``.
    dtype : torch.dtype
    hub : mapping
        ``local_files_only`` and ``cache_dir``, for what the folder does not hold.

    Returns
    -------
    TangoPipeline

    Raises
    ------
    CheckpointError
        If a file is missing, damaged or does not fit the others.
    """
    config = _object(folder / TANGO_CONFIG)
    unet = _unet_config(folder, config)
    scheduler = _scheduler(folder, config)
    vae_config = _object(folder / "vae_config.json")
    main = _weights(folder / "pytorch_model_main.bin")
    sound = _weights(folder / "pytorch_model_vae.bin")
    encoder, tokenizer = _t5(folder, config, _below("text_encoder.", main), dtype, hub)
    return TangoPipeline(
        vae=_vae(folder / "pytorch_model_vae.bin", vae_config, sound, dtype),
        vocoder=_vocoder(folder / "pytorch_model_vae.bin", _below("vocoder.", sound), dtype),
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=_filled(
            folder / "pytorch_model_main.bin",
            lambda: UNet2DConditionModel.from_config(unet),
            _below("unet.", main),
            dtype,
        ),
        scheduler=scheduler,
    )


def load_tango_flux(folder: Path, dtype: torch.dtype, hub: Mapping[str, Any]) -> TangoFluxPipeline:
    """Load TangoFlux.

    Parameters
    ----------
    folder : pathlib.Path
        With ``config.json``, ``tangoflux.safetensors`` and ``vae.safetensors``.
    dtype, hub
        As in `load_tango`.

    Returns
    -------
    TangoFluxPipeline

    Raises
    ------
    CheckpointError
        If a file is missing, damaged or does not fit the others.

    Notes
    -----
    An entry ``"vae"`` of ``config.json``, which no published file has, gives other settings of the auto-encoder
    than Stable Audio Open's.
    """
    config = _object(folder / "config.json")
    path = folder / "tangoflux.safetensors"
    main = _weights(path)
    sound = _weights(folder / "vae.safetensors")
    encoder, tokenizer = _t5(folder, config, _below("text_encoder.", main), dtype, hub)
    width = encoder.config.d_model
    conditioner = {
        "weights": "duration_emebdder.time_positional_embedding.0.weights",  # the spelling is theirs
        "duration.weight": "duration_emebdder.time_positional_embedding.1.weight",
        "duration.bias": "duration_emebdder.time_positional_embedding.1.bias",
        "pooled.weight": "fc.0.weight",
        "pooled.bias": "fc.0.bias",
    }
    pooled = _number(config, "joint_attention_dim", 1024)
    return TangoFluxPipeline(
        vae=_filled(
            folder / "vae.safetensors", lambda: AutoencoderOobleck(**_mapping(config, "vae")), sound, dtype
        ),
        text_encoder=encoder,
        tokenizer=tokenizer,
        conditioner=_filled(
            path,
            lambda: TangoFluxConditioner(width, pooled, _number(config, "max_duration", 30)),
            {ours: main[theirs] for ours, theirs in conditioner.items() if theirs in main},
            dtype,
        ),
        transformer=_filled(
            path,
            lambda: FluxTransformer2DModel(
                in_channels=_number(config, "in_channels", 64),
                num_layers=_number(config, "num_layers", 6),
                num_single_layers=_number(config, "num_single_layers", 18),
                attention_head_dim=_number(config, "attention_head_dim", 128),
                num_attention_heads=_number(config, "num_attention_heads", 8),
                joint_attention_dim=pooled,
                pooled_projection_dim=width,
                guidance_embeds=False,
            ),
            _below("transformer.", main),
            dtype,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000),
        audio_seq_len=_number(config, "audio_seq_len", 645),
    )


# Parts ---------------------------------------------------------------------------------------------------


def _t5(
    folder: Path, config: Mapping[str, Any], state: State, dtype: torch.dtype, hub: Mapping[str, Any]
) -> tuple[Any, Any]:
    """Return T5's encoder, and the tokenizer of the repository that the configuration names."""
    name = config.get("text_encoder_name", "google/flan-t5-large")
    if not isinstance(name, str):
        raise CheckpointError(f"{folder} names {name!r} as its text_encoder_name; a name is needed.")
    source: str | Path = folder / name if (folder / name).is_dir() else name
    found = T5Config.from_pretrained(source, **hub)
    if not isinstance(found, T5Config):
        raise CheckpointError(f"{folder} names {name!r} as its text encoder, which is no T5.")
    if _T5_COPY not in state and "shared.weight" in state:
        state = {**state, _T5_COPY: state["shared.weight"]}
    encoder = _filled(folder, lambda: T5EncoderModel(found), state, dtype)
    encoder.set_input_embeddings(encoder.shared)
    return encoder, AutoTokenizer.from_pretrained(source, **hub)


def _unet_config(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    stated = config.get("unet_model_config_path")
    if not isinstance(stated, str):
        raise CheckpointError(
            f"{folder / TANGO_CONFIG} states no unet_model_config_path. Tango models that start from Stable "
            "Diffusion's U-Net (unet_model_name) are not loaded."
        )
    if (folder / stated).is_file():
        return _object(folder / stated)
    if (known := _UNETS.get(Path(stated).name)) is None:
        raise CheckpointError(
            f"{folder / TANGO_CONFIG} names {stated!r} as the configuration of its U-Net, which is neither in "
            f"the folder nor one of {', '.join(_UNETS)} of Tango's authors. Put the file there. (Mustango, whose "
            "U-Net also attends to beats and chords, is not loaded.)"
        )
    return known


def _scheduler(folder: Path, config: Mapping[str, Any]) -> DDPMScheduler:
    stated = str(config.get("scheduler_name"))
    if (folder / stated / "scheduler").is_dir():
        return DDPMScheduler.from_pretrained(
            folder / stated, subfolder="scheduler", local_files_only=True, **_AS_THEN
        )
    if (known := _SCHEDULERS.get(stated.rpartition("/")[2])) is None:
        raise CheckpointError(
            f"{folder / TANGO_CONFIG} names the scheduler of {stated!r}; that of {', '.join(_SCHEDULERS)} is "
            f"known. Put another's folder 'scheduler' into {folder / stated}."
        )
    return DDPMScheduler(**known, **_AS_THEN)


def _vae(path: Path, config: Mapping[str, Any], state: State, dtype: torch.dtype) -> AutoencoderKL:
    """Return the mel VAE, from the layout of latent diffusion."""
    inner = _mapping(config, "ddconfig")
    needed = ("ch", "ch_mult", "in_channels", "out_ch", "num_res_blocks")
    lacking = [f"ddconfig.{name}" for name in needed if name not in inner]
    lacking += [name for name in ("embed_dim", "scale_factor") if name not in config]
    if lacking:
        raise CheckpointError(f"{path.parent / 'vae_config.json'} lacks {', '.join(lacking)}.")
    widths = [int(inner["ch"]) * int(factor) for factor in inner["ch_mult"]]
    ours = {
        "in_channels": inner["in_channels"],
        "out_channels": inner["out_ch"],
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": inner["num_res_blocks"],
        "latent_channels": config["embed_dim"],
        "norm_num_groups": 32,
        "scaling_factor": config["scale_factor"],
    }
    theirs = {name: value for name, value in state.items() if not name.startswith("vocoder.")}
    return _filled(path, lambda: AutoencoderKL(**ours), convert_ldm_vae_checkpoint(theirs, ours), dtype)


def _vocoder(path: Path, state: State, dtype: torch.dtype) -> SpeechT5HifiGan:
    """Return HiFi-GAN, whose input width and first layer are read from the weights."""
    first = state.get("conv_pre.weight")
    if first is None:
        raise CheckpointError(f"{path} has no vocoder.conv_pre.weight. Is it the file of another model?")
    config = SpeechT5HifiGanConfig(
        **_VOCODER, model_in_dim=first.shape[1], upsample_initial_channel=first.shape[0]
    )
    renamed = {re.sub(r"^ups\.", "upsampler.", name): value for name, value in state.items()}
    # Statistics of the input, which this vocoder does not use.
    renamed |= {"mean": torch.zeros(first.shape[1]), "scale": torch.ones(first.shape[1])}
    return _filled(path, lambda: SpeechT5HifiGan(config), renamed, dtype)


# Files ---------------------------------------------------------------------------------------------------


def _filled(path: Path, make: Callable[[], Any], state: State, dtype: torch.dtype) -> Any:
    """Return a model with the given weights, all of them and no other.

    The model is made without memory for weights, which then are those of the file.
    """
    with torch.device("meta"):
        model = make()
    wanted, name = set(model.state_dict()), type(model).__name__
    missing, surplus = sorted(wanted - set(state)), sorted(set(state) - wanted)
    if missing or surplus:
        trouble = (
            f"lacks {len(missing)} weights of its {name}, first {missing[0]!r}"
            if missing
            else f"has {len(surplus)} weights that its {name} does not, first {surplus[0]!r}"
        )
        raise CheckpointError(f"{path} {trouble}. Is the file cut off, or from another model?")
    try:
        model.load_state_dict({key: value.to(dtype) for key, value in state.items()}, assign=True)
    except RuntimeError as error:
        line = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(f"{path} does not fit the configuration of its {name}: {line}") from error
    return model.eval()


def _weights(path: Path) -> State:
    """Return the tensors of a file; a pickle that holds anything else is refused."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing.")
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no mapping of names to tensors.")
    return dict(state)


def _below(prefix: str, state: State) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _object(path: Path) -> dict[str, Any]:
    content = read_json(path, error=CheckpointError)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object: it holds a {type(content).__name__}.")
    return content


def _mapping(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name, {})
    if not isinstance(found, dict):
        raise CheckpointError(f"{name!r} of a configuration is a {type(found).__name__}; an object is needed.")
    return found


def _number(config: Mapping[str, Any], name: str, default: int) -> int:
    found = config.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise CheckpointError(f"{name}={found!r} of config.json is not a number above 0.")
    return found
