"""Write tiny checkpoints of Tango and TangoFlux in their authors' own layouts.

The parts that the published configurations name but do not hold (T5's configuration and tokenizer, Tango's U-Net)
are in subfolders of the names they are published under, so that nothing is downloaded.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from attnviz.testing.tokenizer_files import make_tokenizer

State = dict[str, torch.Tensor]

T5_NAME = "google/flan-t5-large"
T5_WIDTH = 20

_VAE: dict[str, Any] = {
    "image_key": "fbank",
    "subband": 1,
    "embed_dim": 8,
    "time_shuffle": 1,
    "ddconfig": {
        "double_z": True,
        "z_channels": 8,
        "resolution": 256,
        "downsample_time": False,
        "in_channels": 1,
        "out_ch": 1,
        "ch": 32,
        "ch_mult": [1, 1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    },
    "scale_factor": 0.9227914214134216,
}
_STFT = {
    "filter_length": 1024,
    "hop_length": 160,
    "win_length": 1024,
    "n_mel_channels": 64,
    "sampling_rate": 16000,
    "mel_fmin": 0,
    "mel_fmax": 8000,
}
_UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "attention_head_dim": [2, 4, 4, 4],  # numbers of heads, as published
    "block_out_channels": [8, 16, 16, 16],
    "cross_attention_dim": T5_WIDTH,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "in_channels": 8,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "out_channels": 8,
    "sample_size": [32, 2],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "upcast_attention": True,
    "use_linear_projection": True,
}
_FLUX: dict[str, Any] = {
    "num_layers": 1,
    "num_single_layers": 2,
    "in_channels": 8,
    "attention_head_dim": 128,  # to which the rotary embedding of the published code is tied
    "joint_attention_dim": T5_WIDTH,
    "num_attention_heads": 2,
    "audio_seq_len": 40,
    "max_duration": 30,
    "uncondition": False,
    "text_encoder_name": T5_NAME,
    "vae": {
        "encoder_hidden_size": 16,
        "downsampling_ratios": [2, 4],
        "decoder_channels": 4,
        "decoder_input_channels": 8,
        "audio_channels": 2,
        "channel_multiples": [1, 2],
        "sampling_rate": 160,
    },
}


def write_tango(folder: Path) -> None:
    """Write Tango: latents of the published size (256 columns x 16 rows), and narrow layers."""
    from diffusers import UNet2DConditionModel

    from attnviz.models.vocoder import HifiGan

    main = {
        "text_encoder_name": T5_NAME,
        "scheduler_name": "stabilityai/stable-diffusion-2-1",
        "unet_model_name": None,
        "unet_model_config_path": "configs/diffusion_model_config.json",
        "snr_gamma": 5.0,
    }
    for name, content in (
        ("main_config.json", main),
        ("vae_config.json", _VAE),
        ("stft_config.json", _STFT),
        (main["unet_model_config_path"], _UNET),
    ):
        _write_json(folder / str(name), content)
    encoder = _write_t5(folder)
    unet = UNet2DConditionModel.from_config(_UNET)
    _save(folder / "pytorch_model_main.bin", {"text_encoder.": encoder, "unet.": unet.state_dict()})
    vocoder = HifiGan(
        {
            "resblock": "1",
            "upsample_rates": [5, 4, 2, 2, 2],
            "upsample_kernel_sizes": [16, 16, 8, 4, 4],
            "upsample_initial_channel": 32,
            "resblock_kernel_sizes": [3, 7, 11],
            "resblock_dilation_sizes": [[1, 3, 5]] * 3,
            "num_mels": 64,
            "n_fft": 1024,
            "hop_size": 160,
            "win_size": 1024,
            "sampling_rate": 16000,
            "fmin": 0,
            "fmax": 8000,
        }
    )
    _save(folder / "pytorch_model_vae.bin", {"": latent_vae_state(_VAE), "vocoder.": vocoder.state_dict()})


def write_tango_flux(folder: Path) -> None:
    """Write TangoFlux: 40 columns, one joint block and two single blocks."""
    from diffusers import AutoencoderOobleck, FluxTransformer2DModel

    _write_json(folder / "config.json", _FLUX)
    encoder = _write_t5(folder)
    encoder.pop("encoder.embed_tokens.weight", None)  # safetensors stores a tied tensor once
    transformer = FluxTransformer2DModel(
        in_channels=_FLUX["in_channels"],
        num_layers=_FLUX["num_layers"],
        num_single_layers=_FLUX["num_single_layers"],
        attention_head_dim=_FLUX["attention_head_dim"],
        num_attention_heads=_FLUX["num_attention_heads"],
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=T5_WIDTH,
        guidance_embeds=False,
    )
    sines = 128
    duration = torch.nn.Linear(2 * sines + 1, T5_WIDTH)
    pooled = torch.nn.Linear(T5_WIDTH, T5_WIDTH)
    state = {
        **{f"text_encoder.{name}": value for name, value in encoder.items()},
        **{f"transformer.{name}": value for name, value in transformer.state_dict().items()},
        "duration_emebdder.time_positional_embedding.0.weights": torch.randn(sines),
        **{f"duration_emebdder.time_positional_embedding.1.{n}": v for n, v in duration.state_dict().items()},
        **{f"fc.0.{name}": value for name, value in pooled.state_dict().items()},
    }
    safetensors.torch.save_file(_plain(state), folder / "tangoflux.safetensors")
    vae = AutoencoderOobleck(**_FLUX["vae"])
    safetensors.torch.save_file(_plain(vae.state_dict()), folder / "vae.safetensors")


def latent_vae_state(config: dict[str, Any]) -> State:
    """Return random weights of the auto-encoder of latent diffusion, by their original names.

    Parameters
    ----------
    config : dict
        Content of ``vae_config.json``.
    """
    inner = config["ddconfig"]
    channels, inside = inner["z_channels"], config["embed_dim"]
    widths = [inner["ch"] * factor for factor in inner["ch_mult"]]
    state: State = {}

    def conv(name: str, given: int, made: int, size: int = 3) -> None:
        state[f"{name}.weight"] = torch.randn(made, given, size, size) / math.sqrt(given * size * size)
        state[f"{name}.bias"] = 0.05 * torch.randn(made)

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = 1 + 0.2 * torch.randn(width)
        state[f"{name}.bias"] = 0.1 * torch.randn(width)

    def block(name: str, given: int, made: int) -> None:
        norm(f"{name}.norm1", given)
        conv(f"{name}.conv1", given, made)
        norm(f"{name}.norm2", made)
        conv(f"{name}.conv2", made, made)
        if given != made:
            conv(f"{name}.nin_shortcut", given, made, 1)

    def middle(name: str) -> None:
        width = widths[-1]
        block(f"{name}.mid.block_1", width, width)
        norm(f"{name}.mid.attn_1.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.mid.attn_1.{part}", width, width, 1)
        block(f"{name}.mid.block_2", width, width)

    conv("encoder.conv_in", inner["in_channels"], widths[0])
    given = widths[0]
    for level, width in enumerate(widths):
        for number in range(inner["num_res_blocks"]):
            block(f"encoder.down.{level}.block.{number}", given, width)
            given = width
        if level < len(widths) - 1:
            conv(f"encoder.down.{level}.downsample.conv", width, width)
    middle("encoder")
    norm("encoder.norm_out", given)
    conv("encoder.conv_out", given, 2 * channels)
    conv("decoder.conv_in", channels, given)
    middle("decoder")
    for level in reversed(range(len(widths))):
        for number in range(inner["num_res_blocks"] + 1):
            block(f"decoder.up.{level}.block.{number}", given, widths[level])
            given = widths[level]
        if level:
            conv(f"decoder.up.{level}.upsample.conv", given, given)
    norm("decoder.norm_out", given)
    conv("decoder.conv_out", given, inner["out_ch"])
    conv("quant_conv", 2 * channels, 2 * inside, 1)
    conv("post_quant_conv", inside, channels, 1)
    return state


def _write_t5(folder: Path) -> State:
    """Write the configuration and tokenizer of T5 under their published name; return its weights."""
    from transformers import T5Config, T5EncoderModel

    tokenizer = make_tokenizer("t5")
    model = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=T5_WIDTH,
            d_kv=5,
            d_ff=2 * T5_WIDTH,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    )
    tokenizer.save_pretrained(folder / T5_NAME)
    model.config.save_pretrained(folder / T5_NAME)
    return dict(model.state_dict())


def _save(path: Path, parts: dict[str, State]) -> None:
    torch.save({prefix + name: value for prefix, state in parts.items() for name, value in state.items()}, path)


def _plain(state: State) -> State:
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
