"""Write tiny random-weight checkpoints of text-to-audio models that diffusers and transformers load.

The architecture is that of the published model (attention sites, grids, prepended positions, grouped heads, key
segments), with narrow layers and short clips. Weights are drawn from a seed; norms and biases keep the defaults of
the library.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from attnviz.arguments import public
from attnviz.errors import CheckpointError
from attnviz.io.paths import checked_path
from attnviz.testing.tango import write_tango, write_tango_flux
from attnviz.testing.tokenizer_files import make_tokenizer


@public
def write_family_checkpoint(folder: str | Path, family: str, *, seed: int = 0) -> Path:
    """Write a tiny random-weight checkpoint of a text-to-audio model in its published layout.

    Parameters
    ----------
    folder : str or Path
        Output folder, created if necessary. Files of the same names are overwritten.
    family : str
        One of `FAMILIES`.
    seed : int
        Seed of all weights. The global random state is not changed.

    Returns
    -------
    Path
        `folder`. `attnviz.load` loads it; most also load with ``DiffusionPipeline.from_pretrained(folder)`` or
        ``MusicgenForConditionalGeneration.from_pretrained(folder)``.

    Raises
    ------
    CheckpointError
        If `family` is not in `FAMILIES`.
    """
    if family not in FAMILIES:
        raise CheckpointError(f"Unknown family {family!r}; available families: {', '.join(FAMILIES)}.")
    folder = checked_path(folder, "the folder of a checkpoint", CheckpointError)
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:  # the libraries write the name into configurations, as UTF-8
        raise CheckpointError(f"The name of the folder {str(folder)!r} is not Unicode text.") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _WRITERS[family](folder)
    return folder


def _write_pipeline(pipeline: Any, folder: Path) -> None:
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipeline.save_pretrained(folder)


def _audioldm2(folder: Path) -> None:
    from diffusers import (
        AudioLDM2Pipeline,
        AudioLDM2ProjectionModel,
        AudioLDM2UNet2DConditionModel,
        AutoencoderKL,
        DDIMScheduler,
    )
    from transformers import (
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        GPT2Config,
        GPT2LMHeadModel,
        SpeechT5HifiGan,
        SpeechT5HifiGanConfig,
    )

    # As published: 16 latent rows (64 mel bands, VAE factor 4), without text attention at the first level.
    unet = AudioLDM2UNet2DConditionModel(
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * 3),
        up_block_types=(*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"),
        cross_attention_dim=([None, 16, 20],) * 4,
    )
    vae = AutoencoderKL(
        block_out_channels=[8, 8, 16],
        in_channels=1,
        out_channels=1,
        norm_num_groups=8,
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        latent_channels=4,
    )
    clap_tokenizer = make_tokenizer("clap")
    clap = ClapModel(
        ClapConfig(
            text_config={
                "hidden_size": 8,
                "intermediate_size": 16,
                "num_attention_heads": 2,
                "num_hidden_layers": 1,
                "vocab_size": len(clap_tokenizer),
                "max_position_embeddings": 128,
                "pad_token_id": 1,
                "projection_dim": 16,
            },
            audio_config={
                "spec_size": 8,
                "window_size": 4,
                "num_mel_bins": 8,
                "intermediate_size": 16,
                "depths": [1, 1],
                "num_attention_heads": [1, 1],
                "num_hidden_layers": 1,
                "hidden_size": 192,
                "projection_dim": 16,
                "patch_size": 2,
                "patch_stride": 2,
                "patch_embed_input_channels": 4,
            },
            projection_dim=16,
        )
    )
    # The class whose published weights work with transformers 5 (diffusers#12630).
    language_model = GPT2LMHeadModel(
        GPT2Config(n_embd=16, n_head=2, n_layer=1, vocab_size=50, n_ctx=512, n_positions=512)
    )
    language_model.config.max_new_tokens = 8
    vocoder = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=64,
            sampling_rate=16000,
            upsample_initial_channel=32,
            upsample_rates=[5, 4, 2, 2, 2],
            upsample_kernel_sizes=[16, 16, 8, 4, 4],
            resblock_kernel_sizes=[3],
            resblock_dilation_sizes=[[1]],
            normalize_before=False,
        )
    )
    _write_pipeline(
        AudioLDM2Pipeline(
            vae=vae,
            text_encoder=clap,
            text_encoder_2=_t5(20),
            projection_model=AudioLDM2ProjectionModel(
                text_encoder_dim=16, text_encoder_1_dim=20, langauge_model_dim=16
            ),
            language_model=language_model,
            tokenizer=clap_tokenizer,
            tokenizer_2=make_tokenizer("t5"),
            feature_extractor=ClapFeatureExtractor(feature_size=8, hop_length=7900),
            unet=unet,
            scheduler=DDIMScheduler(
                beta_start=0.0015,
                beta_end=0.0195,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
            ),
            vocoder=vocoder,
        ),
        folder,
    )


def _stable_audio(folder: Path) -> None:
    from diffusers import (
        AutoencoderOobleck,
        EDMDPMSolverMultistepScheduler,
        StableAudioDiTModel,
        StableAudioPipeline,
        StableAudioProjectionModel,
    )

    tokenizer = make_tokenizer("t5")
    tokenizer.model_max_length = 32
    # 4 heads on 2 key heads; one global position is prepended to the 40 columns of a clip.
    transformer = StableAudioDiTModel(
        sample_size=40,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        num_key_value_attention_heads=2,
        out_channels=4,
        cross_attention_dim=12,
        time_proj_dim=8,
        global_states_input_dim=24,
        cross_attention_input_dim=12,
    )
    vae = AutoencoderOobleck(
        encoder_hidden_size=8,  # mean and scale of each latent channel
        downsampling_ratios=[2, 4],
        decoder_channels=4,
        decoder_input_channels=4,
        audio_channels=2,
        channel_multiples=[1, 2],
        sampling_rate=160,
    )
    _write_pipeline(
        StableAudioPipeline(
            vae=vae,
            text_encoder=_t5(20),
            projection_model=StableAudioProjectionModel(
                text_encoder_dim=20, conditioning_dim=12, min_value=0, max_value=512
            ),
            tokenizer=tokenizer,
            transformer=transformer,
            # The published scheduler needs torchsde; the pipeline also accepts this one.
            scheduler=EDMDPMSolverMultistepScheduler(
                solver_order=2, prediction_type="v_prediction", sigma_data=1.0, sigma_schedule="exponential"
            ),
        ),
        folder,
    )


def _stable_audio_3(folder: Path) -> None:
    from diffusers import (
        AutoencoderSAME,
        FlowMatchEulerDiscreteScheduler,
        StableAudio3DiTModel,
        StableAudio3Pipeline,
    )
    from diffusers.pipelines.stable_audio_3.modeling_stable_audio_3 import StableAudio3DurationEmbedder
    from transformers import T5GemmaConfig, T5GemmaEncoderModel
    from transformers.models.t5gemma.configuration_t5gemma import T5GemmaModuleConfig

    width = 16
    tokenizer = make_tokenizer("t5")
    module = T5GemmaModuleConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=512,
        sliding_window=64,
        layer_types=["full_attention"],
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    encoder = T5GemmaEncoderModel(
        T5GemmaConfig(encoder=module.to_dict(), decoder=module.to_dict(), is_encoder_decoder=False)
    )
    _write_pipeline(
        StableAudio3Pipeline(
            transformer=StableAudio3DiTModel(
                io_channels=8,
                patch_size=1,
                embed_dim=32,
                depth=2,
                num_heads=4,
                cond_token_dim=width,
                global_cond_dim=width,
                local_add_cond_dim=9,
                timestep_features_dim=16,
                ff_mult=2,
                num_memory_tokens=3,
                use_differential_attention=True,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0, stochastic_sampling=False),
            vae=AutoencoderSAME(
                audio_channels=2,
                patch_size=2,
                encoder_channels=8,
                encoder_c_mults=(2,),
                encoder_strides=(2,),
                encoder_transformer_depths=(1,),
                latent_dim=8,
                use_differential_attention=False,
                dim_heads=4,
                ff_mult=2,
                sampling_rate=16,
            ),
            text_encoder=encoder,
            tokenizer=tokenizer,
            duration_embedder=StableAudio3DurationEmbedder(output_dim=width, fourier_dim=16),
        ),
        folder,
    )


def _longcat(folder: Path) -> None:
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        LongCatAudioDiTPipeline,
        LongCatAudioDiTTransformer,
        LongCatAudioDiTVae,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    tokenizer = make_tokenizer("t5")
    encoder = UMT5EncoderModel(
        UMT5Config(d_model=20, num_layers=1, num_heads=4, d_kv=5, d_ff=40, vocab_size=len(tokenizer))
    )
    transformer = LongCatAudioDiTTransformer(
        dit_dim=32, dit_depth=2, dit_heads=4, dit_text_dim=20, latent_dim=8, text_conv=True
    )
    for weight in transformer.parameters():
        if weight.ndim > 1 and not weight.any():  # with which it begins its training, predicting nothing
            torch.nn.init.normal_(weight, std=0.1)
    _write_pipeline(
        LongCatAudioDiTPipeline(
            vae=LongCatAudioDiTVae(
                in_channels=1,
                channels=16,
                c_mults=[2],
                strides=[2],
                latent_dim=8,
                encoder_latent_dim=16,
                downsampling_ratio=2,
                sample_rate=24,
            ),
            text_encoder=encoder,
            tokenizer=tokenizer,
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, invert_sigmas=True),
        ),
        folder,
    )


def _ace_step(folder: Path) -> None:
    from diffusers import AutoencoderOobleck, FlowMatchEulerDiscreteScheduler
    from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel
    from diffusers.pipelines.ace_step import AceStepConditionEncoder, AceStepPipeline
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = _byte_level_tokenizer()
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    _write_pipeline(
        AceStepPipeline(
            vae=AutoencoderOobleck(
                encoder_hidden_size=16,
                downsampling_ratios=[2, 4],
                decoder_channels=4,
                decoder_input_channels=8,
                audio_channels=2,
                channel_multiples=[1, 2],
                sampling_rate=200,  # 25 latents per second, as published
            ),
            text_encoder=Qwen3Model(
                Qwen3Config(
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=1,
                    vocab_size=len(tokenizer),
                    max_position_embeddings=1024,
                    **heads,
                )
            ),
            tokenizer=tokenizer,
            transformer=AceStepTransformer1DModel(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                in_channels=24,
                audio_acoustic_hidden_dim=8,
                patch_size=2,
                sliding_window=16,
                **heads,
            ),
            condition_encoder=AceStepConditionEncoder(
                hidden_size=32,
                intermediate_size=64,
                text_hidden_dim=32,
                timbre_hidden_dim=8,
                num_lyric_encoder_hidden_layers=1,
                num_timbre_encoder_hidden_layers=1,
                sliding_window=16,
                **heads,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
        ),
        folder,
    )


def _musicgen(folder: Path) -> None:
    from transformers import (
        EncodecFeatureExtractor,
        MusicgenConfig,
        MusicgenDecoderConfig,
        MusicgenForConditionalGeneration,
        MusicgenProcessor,
    )

    config = MusicgenConfig(
        text_encoder=_t5(20).config.to_dict(),
        audio_encoder=_encodec_config().to_dict(),
        decoder=MusicgenDecoderConfig(**_DECODER).to_dict(),
    )
    model = MusicgenForConditionalGeneration(config).eval()
    _settle_generation(model)
    model.save_pretrained(folder)
    MusicgenProcessor(
        feature_extractor=EncodecFeatureExtractor(feature_size=1, sampling_rate=_CODEC_RATE),
        tokenizer=make_tokenizer("t5"),
    ).save_pretrained(folder)


def _musicgen_melody(folder: Path) -> None:
    from transformers import (
        MusicgenMelodyConfig,
        MusicgenMelodyDecoderConfig,
        MusicgenMelodyForConditionalGeneration,
    )

    config = MusicgenMelodyConfig(
        text_encoder=_t5(20).config.to_dict(),
        audio_encoder=_encodec_config().to_dict(),
        decoder=MusicgenMelodyDecoderConfig(**_DECODER).to_dict(),
        num_chroma=12,
        chroma_length=7,
    )
    model = MusicgenMelodyForConditionalGeneration(config).eval()
    _settle_generation(model)
    model.save_pretrained(folder)
    # The processor's feature extractor needs torchaudio; the tokenizer is sufficient for text.
    make_tokenizer("t5").save_pretrained(folder)


_CODEBOOKS, _CODES, _CODEC_RATE = 4, 32, 400
_DECODER: dict[str, Any] = {
    "vocab_size": _CODES,
    "max_position_embeddings": 256,
    "num_hidden_layers": 2,
    "ffn_dim": 32,
    "num_attention_heads": 4,
    "hidden_size": 16,
    "num_codebooks": _CODEBOOKS,
    "audio_channels": 1,
    "pad_token_id": _CODES,
    "bos_token_id": _CODES,
}


def _encodec_config() -> Any:
    """Return a codec with 50 frames per second and four codebooks, as in MusicGen."""
    from transformers import EncodecConfig

    return EncodecConfig(
        sampling_rate=_CODEC_RATE,
        audio_channels=1,
        normalize=False,
        num_filters=4,
        num_residual_layers=1,
        upsampling_ratios=[4, 2],
        codebook_size=_CODES,
        codebook_dim=8,
        hidden_size=8,
        num_lstm_layers=1,
        use_causal_conv=False,
        target_bandwidths=[_CODEBOOKS * 5 * 50 / 1000],  # four codebooks of 5 bits, 50 frames per second
    )


def _settle_generation(model: Any) -> None:
    for name, embeddings in model.audio_encoder.named_buffers():
        if name.endswith("codebook.embed"):  # zeros before training, with which all codes sound alike
            torch.nn.init.normal_(embeddings)
    settings = model.generation_config
    settings.decoder_start_token_id = _CODES
    settings.pad_token_id = _CODES
    settings.bos_token_id = _CODES
    settings.do_sample = True
    settings.guidance_scale = 3.0
    settings.max_length = 60


def _t5(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=len(make_tokenizer("t5")),
            d_model=width,
            d_kv=5,
            d_ff=2 * width,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    ).eval()


def _byte_level_tokenizer() -> PreTrainedTokenizerBase:
    """Return a byte-level tokenizer as in Qwen: leading spaces belong to words, and there is one end token."""
    inner = make_tokenizer("clap").backend_tokenizer
    from tokenizers import Tokenizer, processors

    bare = Tokenizer.from_str(inner.to_str())
    bare.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=bare, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )


_WRITERS: dict[str, Callable[[Path], None]] = {
    "audioldm2": _audioldm2,
    "stable-audio": _stable_audio,
    "stable-audio-3": _stable_audio_3,
    "longcat-audio-dit": _longcat,
    "ace-step": _ace_step,
    "musicgen": _musicgen,
    "musicgen-melody": _musicgen_melody,
    "tango": write_tango,
    "tango-flux": write_tango_flux,
}
#: Families supported by `write_family_checkpoint`.
FAMILIES: tuple[str, ...] = tuple(_WRITERS)
