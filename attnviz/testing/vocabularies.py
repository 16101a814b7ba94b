"""Compute tokenizer vocabularies: byte-pair merges, unigram pieces and word pieces.

All results are deterministic (ties are broken by the symbols), so a seed determines a whole checkpoint, including
the tokenizer.

References
----------
Sennrich et al. 2016 (byte-pair encoding), Kudo 2018 (unigram language model), Wu et al. 2016 (WordPiece).
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

from attnviz.testing.corpus import CAPTIONS
from attnviz.text.byte_pairs import clip_vocabulary, count_words, roberta_vocabulary

_MERGES = 170
_EXTRA_IDS = 100


@cache
def clip_bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return (vocabulary, merges) of a lower-case byte-level BPE with ``</w>`` at word ends, as in CLIP.

    Returns
    -------
    vocabulary : dict of str to int
        256 byte symbols, the same with ``</w>``, one entry per merge, and the start and end tokens.
    merges : list of (str, str)
    """
    return clip_vocabulary(count_words(CAPTIONS), _MERGES)


@cache
def roberta_bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return (vocabulary, merges) of a byte-level BPE with ``Ġ`` for the space, as in RoBERTa (and CLAP)."""
    return roberta_vocabulary(count_words(CAPTIONS, "Ġ"), _MERGES)


@cache
def t5_unigram() -> list[tuple[str, float]]:
    """Return unigram pieces and log probabilities with ``▁`` for the space, in the order of T5.

    Pieces are all substrings of up to 7 characters that occur in at least two words, common whole words, and every
    printable ASCII character.
    """
    pieces: Counter[str] = Counter()
    spread: Counter[str] = Counter()
    words = count_words(CAPTIONS, "▁")
    for word, n in words.items():
        for piece in {word[i:j] for i in range(len(word)) for j in range(i + 1, min(i + 7, len(word)) + 1)}:
            pieces[piece] += n
            spread[piece] += 1
    kept = {p: n for p, n in pieces.items() if len(p) == 1 or spread[p] > 1 or (p in words and n > 1)}
    # A common normalisation for all lengths favours long pieces over their parts, as in a trained model.
    total = sum(kept.values())
    scores = {p: math.log(n / total) for p, n in kept.items()}
    floor = min(scores.values()) - 1.0
    for code in range(33, 127):
        scores.setdefault(chr(code), floor)
    scores.setdefault("▁", floor)
    ordered = sorted(scores, key=lambda p: (-scores[p], p))
    head = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    tail = [(f"<extra_id_{i}>", 0.0) for i in range(_EXTRA_IDS - 1, -1, -1)]
    return [*head, *((p, scores[p]) for p in ordered), *tail]


@cache
def bert_wordpiece() -> dict[str, int]:
    """Return a lower-case WordPiece vocabulary with ``##`` for word continuations, as in BERT."""
    words = count_words(CAPTIONS)
    characters = sorted({chr(c) for c in range(33, 127) if not chr(c).isupper()})
    tails: Counter[str] = Counter()
    for word in words:
        for i in range(1, len(word)):
            if len(word) - i <= 4:
                tails[word[i:]] += 1
    endings = sorted(t for t, n in tails.items() if n > 1 and len(t) > 1)
    whole = sorted(word for word in words if len(word) > 1)
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *whole]
    entries += [f"##{c}" for c in characters] + [f"##{t}" for t in endings]
    return {entry: i for i, entry in enumerate(entries)}
