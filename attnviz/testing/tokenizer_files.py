"""Write the tiny tokenizers in the file formats of transformers 4.31 or of the current version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import (
    BertTokenizer,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
    RobertaTokenizer,
    T5Tokenizer,
)

from attnviz.arguments import public
from attnviz.errors import CheckpointError
from attnviz.testing.vocabularies import bert_wordpiece, clip_bpe, roberta_bpe, t5_unigram

_LIMITS = {"clip": 77, "t5": 512, "clap": 126, "bert": 128}
_SPECIAL: dict[str, dict[str, str]] = {
    "clip": {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    },
    "t5": {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
    "clap": {
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "mask_token": "<mask>",
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
    },
    "bert": {
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
    },
}
_CLASSES = {"clip": "CLIPTokenizer", "t5": "T5Tokenizer", "clap": "RobertaTokenizer", "bert": "BertTokenizer"}


@public
def make_tokenizer(kind: str) -> PreTrainedTokenizerBase:
    """Create a tokenizer in memory.

    Parameters
    ----------
    kind : {"clip", "t5", "clap", "bert"}
        CLIP: lower-cased byte-pair encoding with ``</w>``, start and end token. T5: unigram with ``▁``, an
        end token only. CLAP: RoBERTa's byte-pair encoding with ``Ġ``, ``<s>`` and ``</s>``. BERT: WordPiece
        with ``##``.
    """
    if kind not in _LIMITS:
        raise CheckpointError(f"kind={kind[:40]!r} is unknown; known: {', '.join(_LIMITS)}.")
    limit = {"model_max_length": _LIMITS[kind]}
    if kind == "clip":
        vocabulary, merges = clip_bpe()
        return CLIPTokenizer(vocab=dict(vocabulary), merges=list(merges), **limit)
    if kind == "t5":
        return T5Tokenizer(vocab=list(t5_unigram()), **limit)
    if kind == "clap":
        vocabulary, merges = roberta_bpe()
        return RobertaTokenizer(vocab=dict(vocabulary), merges=list(merges), **limit)
    return BertTokenizer(vocab=dict(bert_wordpiece()), **limit)


def write_tokenizer(folder: Path, kind: str, *, published: bool) -> None:
    """Write the files of a tokenizer to `folder`.

    Parameters
    ----------
    folder : Path
    kind : {"clip", "t5", "clap", "bert"}
    published : bool
        If True, write ``vocab.json`` and ``merges.txt`` (CLIP, CLAP), ``vocab.txt`` (BERT) or ``tokenizer.json``
        (T5), with ``tokenizer_config.json`` and ``special_tokens_map.json``. If False, write the files of
        transformers 5.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not published:
        make_tokenizer(kind).save_pretrained(folder)
        return
    special = _SPECIAL[kind]
    name = _CLASSES[kind]
    config: dict[str, Any] = {"model_max_length": _LIMITS[kind], "tokenizer_class": name, **special}
    if kind == "clip":
        vocabulary, merges = clip_bpe()
        _write_bpe(folder, vocabulary, merges)
        config |= {"errors": "replace", "clean_up_tokenization_spaces": True}
    elif kind == "clap":
        vocabulary, merges = roberta_bpe()
        _write_bpe(folder, vocabulary, merges)
        config |= {"errors": "replace", "add_prefix_space": False, "trim_offsets": True}
    elif kind == "bert":
        entries = "\n".join(bert_wordpiece())
        (folder / "vocab.txt").write_text(entries + "\n", encoding="utf-8")
        config |= {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
    else:
        make_tokenizer(kind).backend_tokenizer.save(str(folder / "tokenizer.json"))
        extra = [f"<extra_id_{i}>" for i in range(100)]
        config |= {"extra_ids": 100, "additional_special_tokens": extra}
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", special)


def _write_bpe(folder: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    _write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
