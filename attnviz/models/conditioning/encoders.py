"""Load a text encoder and its tokenizer from one folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING, MODEL_MAPPING
from transformers.utils import logging

from attnviz.errors import ArgumentError, CheckpointError
from attnviz.io.weights import check_layers, read_json, read_weights

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_T5 = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
_CLIP = ("clip", "clip_text_model")
_CLAP = ("clap", "clap_text_model")
_KNOWN = (
    "CLIPTextModel, CLIPTextModelWithProjection, CLIPModel, T5EncoderModel (and other T5, mT5, UMT5 classes),"
    " ClapTextModel, ClapTextModelWithProjection, ClapModel, and masked-language-model encoders of transformers"
    " (BertModel, RobertaModel, DistilBertModel, ...)"
)
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError)
# These weights do not affect last_hidden_state, so a file may lack them.
_UNUSED = ("pooler.", "position_ids", "token_type_ids")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' logging and progress bars inside the block, and restore the settings after it."""
    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_encoder(folder: str | Path, torch_dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load the text encoder that the folder's ``config.json`` names in ``architectures[0]``.

    Parameters
    ----------
    folder : str or Path
        Folder with ``config.json`` and weights: safetensors, or ``.bin`` of tensors only; one file or sharded.
    torch_dtype : torch.dtype, optional
        Default: float32.

    Returns
    -------
    transformers.PreTrainedModel
        In evaluation mode. Called with token ids, it returns an output with ``last_hidden_state``. For T5 and for
        full CLIP or CLAP models, only the text encoder is loaded.

    Raises
    ------
    CheckpointError
        If a file is missing or malformed, the class is unknown, or the weights do not fit it.

    Notes
    -----
    Differences from the original: BERT-type encoders are accepted; the original's loader raises an error.
    """
    folder = Path(folder)
    path = folder / "config.json"
    raw = read_json(path, "a text encoder's configuration")
    architectures = raw.get("architectures") if isinstance(raw, dict) else None
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise CheckpointError(
            f"{path} does not name the encoder's class in architectures, got {architectures!r}; known: {_KNOWN}"
        )
    check_layers(folder, raw)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise CheckpointError(f"{path} is not a configuration that transformers can read: {error}") from error
    cls, config = _encoder_class(architectures[0], config, path)
    expected = f"the weights of {architectures[0]}"
    state = read_weights(folder, WEIGHT_FILES, expected)
    try:
        with torch.device("meta"):
            wanted = cls(config).state_dict()
        state = _fit(state, list(wanted), cls.base_model_prefix)
        with quiet():
            model, report = cls.from_pretrained(
                None,
                config=config,
                state_dict=state,
                dtype=torch_dtype or torch.float32,
                output_loading_info=True,
            )
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the weights in {folder} do not fit its config.json: {error}") from error
    missing = sorted(name for name in report["missing_keys"] if not any(part in name for part in _UNUSED))
    if missing:
        raise CheckpointError(
            f"the weights in {folder} lack {len(missing)} tensors of {cls.__name__}, such as {missing[0]}:"
            " the weights of another model, or an incomplete file?"
        )
    return model.eval()


def _encoder_class(architecture: str, config: Any, path: Path) -> tuple[Any, Any]:
    """Return the class to load and its configuration."""
    kind = config.model_type
    text_config = getattr(config, "text_config", None) or config
    if "T5" in architecture and kind in _T5:
        return getattr(transformers, _T5[kind]), config
    for family, kinds in (("CLIP", _CLIP), ("Clap", _CLAP)):
        if architecture.startswith(family) and kind in kinds:
            projected = "WithProjection" if architecture.endswith("WithProjection") else ""
            return getattr(transformers, f"{family}TextModel{projected}"), text_config
    named = getattr(getattr(transformers, architecture, None), "config_class", None)
    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING and type(config) in MODEL_MAPPING
    if named is type(config) and masked and not getattr(config, "is_encoder_decoder", False):
        return MODEL_MAPPING[type(config)], config
    raise CheckpointError(
        f"{path} names the text encoder class {architecture!r} (model_type {kind!r}), which is not supported;"
        f" known: {_KNOWN}"
    )


def _fit(state: dict[str, torch.Tensor], wanted: list[str], prefix: str) -> dict[str, torch.Tensor]:
    """Rename tensors to the class's names: a file may nest the encoder deeper, or less deep."""
    # BERT's first files name the parameters of norms gamma and beta.
    state = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): tensor
        for name, tensor in state.items()
    }
    best: dict[str, torch.Tensor] = {}
    for lead in ("", "text_model.", f"{prefix}.", f"{prefix}.text_model."):
        fitted = {name: state[lead + name] for name in wanted if lead + name in state}
        if len(fitted) > len(best):
            best = fitted
    return best


def load_tokenizer(folder: str | Path, kind: Any = AutoTokenizer) -> Any:
    """Load the tokenizer of a folder: ``tokenizer.json``, or the older separate files.

    Parameters
    ----------
    folder : str or Path
    kind : type
        Tokenizer class; by default the one named in the folder's files.

    Raises
    ------
    CheckpointError
        If its files are missing or malformed, or it does not support character offsets.
    """
    folder = Path(folder)
    _check_tokenizer_files(folder)
    options = {"trust_remote_code": False} if kind is AutoTokenizer else {}
    try:
        with quiet():
            tokenizer = kind.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:
        # The tokenizers library raises a bare Exception on a file it cannot parse; a subclass is a bug here.
        if type(error) is not Exception and not isinstance(error, _UNREADABLE):
            raise
        raise CheckpointError(f"{folder} has no tokenizer that transformers can read: {error}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(
            f"the tokenizer in {folder}, {type(tokenizer).__name__}, gives no character offsets, so words cannot"
            " be located; convert it to tokenizer.json first"
        )
    return tokenizer


def check_vocabulary(tokenizer: Any, encoder: PreTrainedModel, folder: str) -> None:
    """Raise if a tokenizer has ids beyond its encoder's vocabulary.

    Raises
    ------
    CheckpointError
        With the folder, the highest id and the size of the encoder's vocabulary.
    """
    known = encoder.config.vocab_size
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if not 0 <= highest < known:
        raise CheckpointError(
            f"the tokenizer in {folder} has ids up to {highest}, but its encoder knows {known}:"
            " the files of two different models?"
        )


def _check_tokenizer_files(folder: Path) -> None:
    # Without files, transformers 5 makes an empty tokenizer; without merges, it invents them.
    whole = ("tokenizer.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
    has = {name for name in (*whole, "vocab.json", "merges.txt") if (folder / name).is_file()}
    if not has & set(whole) and not {"vocab.json", "merges.txt"} <= has:
        raise CheckpointError(
            f"{folder} has no tokenizer: expected tokenizer.json, or vocab.json with merges.txt, or vocab.txt, or"
            f" spiece.model; found {', '.join(sorted(has)) or 'none of them'}"
        )
    for name in ("tokenizer.json", "vocab.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file() and not isinstance(read_json(folder / name, "a tokenizer's file"), dict):
            raise CheckpointError(f"{folder / name} is not a JSON object; expected a tokenizer's file")


def position_limit(encoder: PreTrainedModel) -> int | None:
    """Return the maximal number of tokens of an encoder, or None if it has no limit (T5).

    RoBERTa-type encoders (CLAP's too) number positions from the padding id + 1, so the limit is smaller by that.
    """
    for name, module in encoder.named_modules():
        if name.split(".")[-1] in ("position_embedding", "position_embeddings") and isinstance(
            module, torch.nn.Embedding
        ):
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - skipped
    limit = getattr(encoder.config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def hidden_width(encoder: PreTrainedModel) -> int:
    """Return the width of an encoder's hidden states."""
    return int(encoder.config.hidden_size)


def checked_device(device: str | torch.device) -> torch.device:
    """Return a device, or raise if PyTorch knows none of that name.

    Raises
    ------
    ArgumentError
        With the device.
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(
            f"device={device!r:.80} is no device of PyTorch, such as 'cpu' or 'cuda:0'."
        ) from error
