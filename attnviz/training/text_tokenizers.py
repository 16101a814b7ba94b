"""Fit a small tokenizer of each encoder's own type to captions."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertTokenizer, CLIPTokenizer, PreTrainedTokenizerBase, RobertaTokenizer, T5Tokenizer

from attnviz.errors import TrainingError
from attnviz.io.json_files import as_json, read_json
from attnviz.io.storage import write_whole
from attnviz.text.byte_pairs import clip_vocabulary, count_words, roberta_vocabulary, wordpiece_vocabulary

EncoderKind = Literal["clip", "clap", "t5", "bert"]
POSITIONS = 77
"""Key positions of each encoder, as in Auffusion's checkpoints."""

SENTINELS = 100  # as in T5
_OWN = {"clip": 514, "clap": 261, "t5": SENTINELS + 3 + 95, "bert": 141}
_DIGITS = 6  # of the scores of unigram pieces; those beyond differ between runs


def fit_tokenizer(kind: EncoderKind, captions: Sequence[str], size: int, cache: Path) -> PreTrainedTokenizerBase:
    """Fit a tokenizer with character offsets to captions.

    Parameters
    ----------
    kind : {"clip", "clap", "t5", "bert"}
        CLIP: lower-case byte-pair encoding with ``</w>``. CLAP: RoBERTa's byte-pair encoding with ``Ġ``. T5:
        unigram pieces with ``▁`` and 100 sentinels. BERT: lower-case WordPiece with ``##``.
    captions : sequence of str
        Texts. Their ASCII words determine the pieces; other characters are encoded as bytes (CLIP, CLAP) or as
        unknown (T5, BERT).
    size : int
        Maximal number of entries.
    cache : pathlib.Path
        Folder in which the unigram pieces are kept: the trainer of the tokenizers library sums in parallel, and
        may decide ties differently the next time. The other types are deterministic.

    Raises
    ------
    TrainingError
        If `size` leaves no room beside the characters and special tokens.
    """
    if size <= _OWN[kind]:
        raise TrainingError(
            f"model.vocabulary is {size}, but the characters and special tokens of a {kind} tokenizer take "
            f"{_OWN[kind]} entries."
        )
    merges = size - _OWN[kind]
    limit = {"model_max_length": POSITIONS}
    if kind == "clip":
        vocabulary, pairs = clip_vocabulary(_words([caption.lower() for caption in captions]), merges)
        return CLIPTokenizer(vocab=vocabulary, merges=pairs, **limit)
    if kind == "clap":
        vocabulary, pairs = roberta_vocabulary(_words(captions, "Ġ"), merges)
        return RobertaTokenizer(vocab=vocabulary, merges=pairs, **limit)
    if kind == "bert":
        vocabulary = wordpiece_vocabulary(_words([caption.lower() for caption in captions]), merges)
        return BertTokenizer(vocab=vocabulary, **limit)
    sentinels = [(f"<extra_id_{i}>", 0.0) for i in reversed(range(SENTINELS))]
    pieces = _cached_pieces(captions, size - SENTINELS, cache)
    return T5Tokenizer(vocab=[*pieces, *sentinels], extra_ids=SENTINELS, **limit)


def tokenizer_digest(tokenizer: Any) -> str:
    """Return a digest of a tokenizer's files."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _words(captions: Sequence[str], lead: str = "") -> Counter[str]:
    counted = count_words(captions, lead)
    return Counter({word: n for word, n in counted.items() if word.removeprefix(lead).isascii()})


def _cached_pieces(captions: Sequence[str], size: int, cache: Path) -> list[tuple[str, float]]:
    known = hashlib.sha256(json.dumps([size, list(captions)]).encode()).hexdigest()[:16]
    path = cache / f"unigram-{known}.json"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        write_whole(path, as_json(_pieces(captions, size), path.name))
    try:
        return [(str(piece), float(score)) for piece, score in read_json(path, error=TrainingError)]
    except (TypeError, ValueError, TrainingError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); remove it, and it will be made again.") from error


def _pieces(captions: Sequence[str], size: int) -> list[list[Any]]:
    """Return pieces and log probabilities of a unigram language model (Kudo 2018), the most probable first."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=special,
        unk_token="<unk>",
        initial_alphabet=[chr(code) for code in range(33, 127)],
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for text in captions if text.isascii()), trainer)
    learned = json.loads(tokenizer.to_str())["model"]["vocab"]
    rounded = {piece: round(score, _DIGITS) for piece, score in learned if piece not in special}
    return [[piece, 0.0] for piece in special] + [
        [piece, rounded[piece]] for piece in sorted(rounded, key=lambda piece: (-rounded[piece], piece))
    ]
