"""Random-weight parts of a tiny text-to-audio checkpoint: U-Net, VAE, text encoders, adapter, vocoder.

The architecture is that of the published models, with smaller widths. Weights are drawn so that errors are
visible: attention is peaked rather than near-uniform, norms have gains and biases, and weight-norm magnitudes
differ from the norms of their directions.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import (
    BertConfig,
    BertModel,
    ClapTextConfig,
    ClapTextModelWithProjection,
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
)

from attnviz.errors import CheckpointError
from attnviz.testing.vocabularies import bert_wordpiece, clip_bpe, roberta_bpe, t5_unigram

ENCODERS: tuple[str, ...] = ("clip", "t5", "clap", "bert")
#: Width of the hidden states of each tiny encoder; all differ, so that confused adapters cause an error.
ENCODER_WIDTHS: dict[str, int] = {"clip": 32, "t5": 20, "clap": 28, "bert": 36}
#: Maximum sequence length of each tiny encoder (relative positions of T5 have no limit).
ENCODER_POSITIONS: dict[str, int | None] = {"clip": 77, "t5": None, "clap": 128, "bert": 128}

UNET_CONFIG: dict[str, Any] = {
    "act_fn": "silu",
    "attention_head_dim": 4,  # in Stable Diffusion 1.x this is the number of heads
    "block_out_channels": [16, 32, 32, 32],
    "center_input_sample": False,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 8,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}

VAE_CONFIG: dict[str, Any] = {
    "act_fn": "silu",
    "block_out_channels": [8, 8, 16, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "out_channels": 3,
    "sample_size": 256,
    "scaling_factor": 0.18215,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}

VOCODER_CONFIG: dict[str, Any] = {
    "resblock": "1",
    "upsample_rates": [5, 4, 4, 2],
    "upsample_kernel_sizes": [10, 8, 8, 4],  # 10 - 5 is odd: the stage with an output padding
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
    "num_mels": 256,
    "n_fft": 2048,
    "hop_size": 160,
    "win_size": 1024,
    "sampling_rate": 16000,
    "fmin": 0,
    "fmax": 8000,
}


def make_unet(cross_attention_dim: int) -> UNet2DConditionModel:
    """Return a U-Net with the architecture of Stable Diffusion 1.x: 16 cross-attention modules of 4 heads."""
    unet = UNet2DConditionModel(**UNET_CONFIG, cross_attention_dim=cross_attention_dim)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if name.endswith("attn2.to_q.weight"):
                parameter.mul_(6.0)
    return unet.eval()


def make_vae() -> AutoencoderKL:
    """Return an 8x auto-encoder: 4 levels, 3 image channels, 4 latent channels."""
    return AutoencoderKL(**VAE_CONFIG).eval()


def make_encoder(kind: str) -> PreTrainedModel:
    """Return a one- or two-layer text encoder.

    Parameters
    ----------
    kind : {"clip", "t5", "clap", "bert"}

    Raises
    ------
    CheckpointError
        If `kind` is unknown.
    """
    if kind not in ENCODERS:
        raise CheckpointError(f"Unknown text encoder {kind!r}; available encoders: {', '.join(ENCODERS)}")
    width = ENCODER_WIDTHS[kind]
    shared = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "max_position_embeddings": ENCODER_POSITIONS[kind],
    }
    model: PreTrainedModel
    if kind == "clip":
        vocabulary, _ = clip_bpe()
        start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
        model = CLIPTextModel(
            CLIPTextConfig(
                **shared,
                vocab_size=len(vocabulary),
                projection_dim=16,
                bos_token_id=start,
                eos_token_id=end,
                pad_token_id=1,
            )
        )
    elif kind == "t5":
        model = T5EncoderModel(
            T5Config(
                vocab_size=len(t5_unigram()),
                d_model=width,
                d_kv=5,
                d_ff=2 * width,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
            )
        )
    elif kind == "clap":
        vocabulary, _ = roberta_bpe()
        model = ClapTextModelWithProjection(
            ClapTextConfig(**shared, vocab_size=len(vocabulary), projection_dim=16, pad_token_id=1)
        )
    else:
        model = BertModel(BertConfig(**shared, vocab_size=len(bert_wordpiece())))
    return model.eval()


def adapter_state(condition_dim: int, cross_attention_dim: int) -> dict[str, torch.Tensor]:
    """Return ``proj.*`` and ``norm.*`` of an adapter that maps a zero vector to a non-zero one."""
    return {
        "proj.weight": torch.randn(cross_attention_dim, condition_dim) / math.sqrt(condition_dim),
        "proj.bias": 0.5 * torch.randn(cross_attention_dim),
        "norm.weight": 1.0 + 0.2 * torch.randn(cross_attention_dim),
        "norm.bias": 0.2 * torch.randn(cross_attention_dim),
    }


def _weight_norm_pair(shape: tuple[int, ...], fan_in: int, gain: float = 1.0) -> dict[str, torch.Tensor]:
    direction = torch.randn(shape) * gain / math.sqrt(fan_in)
    magnitude = direction.flatten(1).norm(dim=1).view(-1, *[1] * (len(shape) - 1))
    return {"weight_g": magnitude * (0.8 + 0.4 * torch.rand_like(magnitude)), "weight_v": direction}


def vocoder_state() -> dict[str, torch.Tensor]:
    """Return the HiFi-GAN generator of `VOCODER_CONFIG` as ``weight_g`` / ``weight_v`` pairs."""
    state: dict[str, torch.Tensor] = {}

    def layer(name: str, shape: tuple[int, ...], out: int, fan_in: int, gain: float = 1.0) -> None:
        pair = _weight_norm_pair(shape, fan_in, gain)
        state[f"{name}.bias"] = 0.05 * torch.randn(out)
        state.update({f"{name}.{key}": value for key, value in pair.items()})

    c = VOCODER_CONFIG
    channels = int(c["upsample_initial_channel"])
    # The input of this layer is a log-mel of about -6 with constant sign; a small gain limits the range.
    layer("conv_pre", (channels, c["num_mels"], 7), channels, c["num_mels"] * 7, gain=0.2)
    block = 0
    for stage, (rate, kernel) in enumerate(zip(c["upsample_rates"], c["upsample_kernel_sizes"], strict=True)):
        half = channels // 2
        layer(f"ups.{stage}", (channels, half, kernel), half, channels * kernel // rate)
        channels = half
        for size, dilations in zip(c["resblock_kernel_sizes"], c["resblock_dilation_sizes"], strict=True):
            for part in ("convs1", "convs2"):
                for i in range(len(dilations)):
                    name = f"resblocks.{block}.{part}.{i}"
                    layer(name, (channels, channels, size), channels, channels * size, gain=0.6)
            block += 1
    layer("conv_post", (1, channels, 7), 1, channels * 7, gain=2.0)
    return state
