"""Make the models that pretrain a text encoder of each kind, of about the same number of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ClapAudioConfig,
    ClapConfig,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from attnviz.audio import MEL, image_to_mel
from attnviz.errors import CheckpointError, TrainingError
from attnviz.models.conditioning.encoders import load_tokenizer, quiet
from attnviz.training.settings import refuse_unknown, within
from attnviz.training.text_tokenizers import POSITIONS, EncoderKind

CONTRASTIVE: tuple[EncoderKind, ...] = ("clip", "clap")
PRETRAINED = "pretraining"
"""Folder of the whole model beside ``text_encoder_0``: with the sound's encoder, decoder or output layer."""

_CLASSES: dict[EncoderKind, Any] = {
    "clip": CLIPModel,
    "clap": ClapModel,
    "t5": T5ForConditionalGeneration,
    "bert": BertForMaskedLM,
}
_COLUMNS_PER_PIXEL = 2  # CLIP's picture is 256 x 512 for 10.24 s
_BANDS = 64  # of CLAP's spectrogram
_CLAP_SIDE, _CLAP_FRAMES = 256, 1024  # it folds 64 bands x 1024 frames into 256 x 256
_REFUSED = (ValueError, TypeError, RuntimeError, LookupError, ArithmeticError, StrictDataclassError)


@dataclass(frozen=True)
class TextModel:
    """Size of a text encoder and of what it is trained with.

    Parameters
    ----------
    vocabulary : int
        Number of token embeddings, and maximal number of entries of the tokenizer.
    hidden_size, layers, heads : int
        Width, number of layers and of attention heads.
    cross_attention_dim : int
        Width of the keys after the adapter, which is trained with a denoiser.
    decoder_layers : int
        Number of layers of T5's decoder.
    sound_encoder : mapping
        Arguments of ``CLIPVisionConfig`` or ``ClapAudioConfig`` that replace the defaults.
    """

    vocabulary: int = 2048
    hidden_size: int = 128
    layers: int = 3
    heads: int = 4
    cross_attention_dim: int = 128
    decoder_layers: int = 1
    sound_encoder: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("vocabulary", "hidden_size", "layers", "heads", "cross_attention_dim", "decoder_layers"):
            within(f"model.{name}", getattr(self, name), 1, 10**6)


def make_pretraining_model(
    kind: EncoderKind, settings: TextModel, tokenizer: PreTrainedTokenizerBase, columns: int
) -> PreTrainedModel:
    """Create the model that pretrains a text encoder.

    Parameters
    ----------
    kind : {"clip", "clap", "t5", "bert"}
    settings : TextModel
    tokenizer : transformers tokenizer
        Its special tokens go into the configuration.
    columns : int
        Width of the mel images.

    Returns
    -------
    transformers.PreTrainedModel
        ``CLIPModel``, ``ClapModel``, ``T5ForConditionalGeneration`` or ``BertForMaskedLM``.

    Raises
    ------
    TrainingError
        If settings contradict each other, or the images are too wide for CLAP.
    """
    if kind not in CONTRASTIVE and settings.sound_encoder:
        raise TrainingError(f"model.sound_encoder is given, but the objective {kind!r} uses text only.")
    width, ids = settings.hidden_size, tokenizer
    shared = {
        "vocab_size": settings.vocabulary,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "pad_token_id": ids.pad_token_id,
    }
    try:
        if kind == "clip":
            ends = {"bos_token_id": ids.bos_token_id, "eos_token_id": ids.eos_token_id}
            text = {**shared, **ends, "max_position_embeddings": POSITIONS}
            sight = _sound_settings(CLIPVisionConfig, _vision(settings, columns), settings.sound_encoder)
            return CLIPModel(CLIPConfig(text_config=text, vision_config=sight, projection_dim=width))
        if kind == "clap":
            if columns > _CLAP_FRAMES:
                raise TrainingError(
                    f"the scenes are {columns} frames long, but ClapAudioModel takes at most {_CLAP_FRAMES}."
                )
            # RoBERTa numbers positions from the padding id + 1.
            text = {**shared, "max_position_embeddings": POSITIONS + ids.pad_token_id + 1}
            text |= {"bos_token_id": ids.bos_token_id, "eos_token_id": ids.eos_token_id}
            sound = _sound_settings(ClapAudioConfig, _AUDIO, settings.sound_encoder)
            sound["hidden_size"] = sound["patch_embeds_hidden_size"] * 2 ** (len(sound["depths"]) - 1)
            sound["num_hidden_layers"] = len(sound["depths"])
            return ClapModel(ClapConfig(text_config=text, audio_config=sound, projection_dim=width))
        if kind == "t5":
            return T5ForConditionalGeneration(_t5(settings, tokenizer))
        return BertForMaskedLM(BertConfig(**shared, max_position_embeddings=POSITIONS))
    except _REFUSED as error:
        raise TrainingError(
            f"[model]: cannot create {_CLASSES[kind].__name__} from these settings: {error}"
        ) from error


def _vision(settings: TextModel, columns: int) -> dict[str, Any]:
    return {
        "hidden_size": settings.hidden_size,
        "intermediate_size": 4 * settings.hidden_size,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "num_channels": 1,
        "patch_size": 32,
        # CLIPVisionModel has positions for a square. That of the longer side holds one row of positions per column
        # of patches; those of the rows are interpolated between.
        "image_size": max(MEL.n_mels, columns // _COLUMNS_PER_PIXEL),
    }


# That of HTSAT (laion/clap-htsat-unfused), narrower and with larger patches: 8 bands x 80 ms.
_AUDIO = {
    "num_mel_bins": _BANDS,
    "spec_size": _CLAP_SIDE,
    "patch_size": 8,
    "patch_stride": [8, 8],
    "patch_embeds_hidden_size": 32,
    "depths": [1, 1, 2],
    "num_attention_heads": [2, 4, 8],
}


def _sound_settings(kind: Any, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    refuse_unknown(given, kind().to_dict(), "model.sound_encoder.")
    return {**defaults, **given}


def _t5(settings: TextModel, tokenizer: PreTrainedTokenizerBase) -> T5Config:
    if settings.hidden_size % settings.heads:
        raise TrainingError(
            f"model.hidden_size is {settings.hidden_size}; it must be a multiple of the {settings.heads} heads."
        )
    return T5Config(
        vocab_size=settings.vocabulary,
        d_model=settings.hidden_size,
        d_kv=settings.hidden_size // settings.heads,
        d_ff=4 * settings.hidden_size,
        num_layers=settings.layers,
        num_decoder_layers=settings.decoder_layers,
        num_heads=settings.heads,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )


def text_encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the text encoder of a pretraining model; its weights are shared, except T5's, which are copied."""
    if isinstance(model, (CLIPModel, ClapModel)):
        return model.text_model
    if isinstance(model, BertForMaskedLM):
        return model.bert
    with torch.random.fork_rng(devices=[]):  # its initial weights must not use up random numbers
        encoder = T5EncoderModel(model.config)
    state = model.state_dict()
    encoder.load_state_dict({name: state[name] for name in encoder.state_dict()})
    return encoder.eval()


def load_pretraining_model(
    folder: Path, kind: EncoderKind, device: torch.device
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the whole model and the tokenizer that a training of a text encoder has exported.

    Parameters
    ----------
    folder : pathlib.Path
        The run's ``model`` folder.
    kind : {"clip", "clap", "t5", "bert"}
    device : torch.device

    Raises
    ------
    CheckpointError
        If the folder does not contain a model of this kind.
    """
    place = folder / PRETRAINED
    try:
        with quiet():
            model = _CLASSES[kind].from_pretrained(place, local_files_only=True)
    except (*_REFUSED, OSError) as error:
        raise CheckpointError(f"{place} has no {_CLASSES[kind].__name__}: {error}") from error
    return model.to(device).eval(), load_tokenizer(folder / "text_encoder_0")


def sounds_for(kind: EncoderKind, images: torch.Tensor) -> dict[str, Any]:
    """Return the input of the sound's encoder for mel images.

    Parameters
    ----------
    kind : {"clip", "clap"}
    images : torch.Tensor
        Float32 images in [0, 1], shape ``(batch, 256, columns)``, the highest frequency in row 0.

    Returns
    -------
    dict
        CLIP: the picture, ``pixel_values`` ``(batch, 1, 256, columns / 2)`` in [-1, 1]. CLAP: the natural-log mel
        of 64 bands, ``input_features`` ``(batch, 1, columns, 64)``, lowest band first: the energies of four bands
        are added, as wider filters would do.
    """
    if kind == "clip":
        halved = torch.nn.functional.avg_pool2d(images[:, None], (1, _COLUMNS_PER_PIXEL))
        return {"pixel_values": 2 * halved - 1, "interpolate_pos_encoding": True}
    mels = image_to_mel(images).unflatten(1, (_BANDS, -1))
    return {"input_features": (2 * mels).logsumexp(2).transpose(1, 2)[:, None] / 2}


def texts_for(tokenizer: Any, texts: list[str]) -> dict[str, torch.Tensor]:
    """Return ``input_ids`` and ``attention_mask`` of texts, padded to the longest."""
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=POSITIONS, return_tensors="pt")
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}
