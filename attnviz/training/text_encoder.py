"""A small CLIP text encoder with tokenizer and adapter, which is trained with a denoiser."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from huggingface_hub.errors import StrictDataclassError
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from attnviz.errors import CheckpointError, TrainingError
from attnviz.models.conditioning import Adapter, ConditionSpec, TextConditioner
from attnviz.text.byte_pairs import clip_vocabulary, count_words

_POSITIONS = 77


@dataclass(frozen=True)
class TextSettings:
    """Size of the text encoder.

    Parameters
    ----------
    hidden_size : int
        Width of the hidden states.
    layers : int
        Number of transformer layers.
    heads : int
        Number of attention heads; must divide `hidden_size`.
    cross_attention_dim : int
        Width of the keys after the adapter.
    merges : int
        Maximum number of byte-pair merges of the tokenizer.
    pretraining_steps : int
        Number of steps that teach the encoder the sound class of each word before the denoiser is trained; 0 for
        none.
    """

    hidden_size: int = 128
    layers: int = 3
    heads: int = 4
    cross_attention_dim: int = 128
    merges: int = 600
    pretraining_steps: int = 0


def make_conditioner(settings: TextSettings, captions: Iterable[str]) -> TextConditioner:
    """Create an encoder with random weights, and a tokenizer fitted to the words of captions.

    Parameters
    ----------
    settings : TextSettings
        Size of the encoder.
    captions : iterable of str
        Texts from which the byte pairs are learnt. Other words are split into letters.

    Raises
    ------
    TrainingError
        If settings contradict each other.
    """
    vocabulary, merges = clip_vocabulary(count_words(captions), settings.merges)
    start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=_POSITIONS)
    try:
        encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary),
                hidden_size=settings.hidden_size,
                intermediate_size=4 * settings.hidden_size,
                num_hidden_layers=settings.layers,
                num_attention_heads=settings.heads,
                max_position_embeddings=_POSITIONS,
                projection_dim=settings.hidden_size,
                bos_token_id=start,
                eos_token_id=end,
                pad_token_id=end,
            )
        )
        spec = ConditionSpec(
            text_encoder_name="text_encoder_0",
            condition_adapter_name="condition_adapter_0",
            condition_max_length=_POSITIONS,
            condition_dim=settings.hidden_size,
            cross_attention_dim=settings.cross_attention_dim,
            condition_type="clip",
        )
        adapter = Adapter(settings.hidden_size, settings.cross_attention_dim)
        return TextConditioner([spec], [encoder], [tokenizer], [adapter])
    except (ValueError, RuntimeError, StrictDataclassError, CheckpointError) as error:
        raise TrainingError(f"[model.text]: cannot create a text encoder from these settings: {error}") from error
