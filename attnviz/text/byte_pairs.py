"""Learn byte-pair vocabularies from text, deterministically.

References
----------
Sennrich et al. 2016, Neural machine translation of rare words with subword units.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel


def count_words(texts: Iterable[str], lead: str = "") -> Counter[str]:
    """Count words and punctuation marks; `lead` is prepended to those that follow a space."""
    counts: Counter[str] = Counter()
    for text in texts:
        for found in re.finditer(r"\s?(?:[^\W\d_]+|[^\w\s])", text):
            word = found.group()
            counts[(lead if word[0] == " " else "") + word.strip()] += 1
    return counts


def learn_merges(words: Counter[tuple[str, ...]], merges: int) -> list[tuple[str, str]]:
    """Return the most frequent adjacent pairs; each pair is merged before the next is counted.

    Parameters
    ----------
    words : Counter
        Words as tuples of symbols, with their counts.
    merges : int
        Maximal number of pairs; fewer are returned if every word has become one symbol.

    Returns
    -------
    list of (str, str)
        Ties are broken by the order of the symbols, so that the same words always give the same list. (The
        trainers of the tokenizers library break ties at random.)
    """
    learned: list[tuple[str, str]] = []
    for _ in range(merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for symbols, count in words.items():
            for pair in pairwise(symbols):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        learned.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for symbols, count in words.items():
            out: list[str] = []
            i = 0
            while i < len(symbols):
                if symbols[i : i + 2] == best:
                    out.append(best[0] + best[1])
                    i += 2
                else:
                    out.append(symbols[i])
                    i += 1
            merged[tuple(out)] += count
        words = merged
    return learned


def clip_vocabulary(words: Counter[str], merges: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the vocabulary and merges of a lower-case byte-level BPE with ``</w>`` at word ends, as in CLIP.

    Parameters
    ----------
    words : Counter
        ASCII words in lower case, with their counts.
    merges : int
        Maximal number of merges.

    Returns
    -------
    vocabulary : dict of str to int
        256 byte symbols, the same with ``</w>``, one entry per merge, then the start and the end token. Every
        text can therefore be encoded.
    merges : list of (str, str)
    """
    symbols = Counter({(*word[:-1], word[-1] + "</w>"): n for word, n in words.items()})
    learned = learn_merges(symbols, merges)
    alphabet = sorted(ByteLevel.alphabet())
    entries = [*alphabet, *(a + "</w>" for a in alphabet), *(a + b for a, b in learned)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    return {entry: i for i, entry in enumerate(entries)}, learned
