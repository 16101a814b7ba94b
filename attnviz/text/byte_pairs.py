"""Learn byte-pair vocabularies from text, deterministically.

References
----------
Sennrich et al. 2016, Neural machine translation of rare words with subword units.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
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


def learn_merges(words: Counter[tuple[str, ...]], merges: int, mark: str = "") -> list[tuple[str, str]]:
    """Return the most frequent adjacent pairs; each pair is merged before the next is counted.

    Parameters
    ----------
    words : Counter
        Words as tuples of symbols, with their counts.
    merges : int
        Maximal number of pairs; fewer are returned if every word has become one symbol.
    mark : str
        Prefix of symbols that continue a word (``##`` for WordPiece); a merge removes it from its second symbol.

    Returns
    -------
    list of (str, str)
        Ties are broken by the order of the symbols, so that the same words always give the same list. (The
        trainers of the tokenizers library break ties at random.)
    """
    learned: list[tuple[str, str]] = []
    symbols = [list(word) for word in words]
    counts = list(words.values())
    pairs: Counter[tuple[str, str]] = Counter()
    places: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for i, word in enumerate(symbols):
        for pair in pairwise(word):
            pairs[pair] += counts[i]
            places[pair].add(i)
    queue = [(-count, pair) for pair, count in pairs.items()]
    heapify(queue)
    while queue and len(learned) < merges:
        count, best = heappop(queue)
        if pairs[best] != -count or not count:
            continue  # outdated: the pair was queued again when its count changed
        learned.append(best)
        changed = set()
        for i in places.pop(best):
            before, after = symbols[i], _merged(symbols[i], best, mark)
            for pairs_of, sign in ((before, -1), (after, 1)):
                for pair in pairwise(pairs_of):
                    pairs[pair] += sign * counts[i]
                    changed.add(pair)
                    places[pair].add(i)
            symbols[i] = after
        for pair in changed:
            if pairs[pair] > 0:
                heappush(queue, (-pairs[pair], pair))
    return learned


def _merged(word: list[str], pair: tuple[str, str], mark: str) -> list[str]:
    out: list[str] = []
    i = 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            out.append(merged_symbol(*pair, mark))
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def merged_symbol(first: str, second: str, mark: str = "") -> str:
    """Return the symbol that stands for two adjacent ones."""
    return first + second.removeprefix(mark)


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


def roberta_vocabulary(words: Counter[str], merges: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the vocabulary and merges of a byte-level BPE with ``Ġ`` for the space, as in RoBERTa and CLAP.

    Parameters
    ----------
    words : Counter
        ASCII words, with ``Ġ`` before those that follow a space, with their counts.
    merges : int
        Maximal number of merges.

    Returns
    -------
    vocabulary : dict of str to int
        Four special tokens, 256 byte symbols, one entry per merge, and the mask token.
    merges : list of (str, str)
    """
    learned = learn_merges(Counter({tuple(word): n for word, n in words.items()}), merges)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    entries = [*special, *sorted(ByteLevel.alphabet()), *(a + b for a, b in learned), "<mask>"]
    return {entry: i for i, entry in enumerate(entries)}, learned


def wordpiece_vocabulary(words: Counter[str], merges: int) -> dict[str, int]:
    """Return a lower-case WordPiece vocabulary with ``##`` for word continuations, as in BERT.

    Parameters
    ----------
    words : Counter
        ASCII words in lower case, with their counts.
    merges : int
        Maximal number of pieces of more than one character. They are the merges of byte-pair encoding, as in the
        trainer of the tokenizers library.

    Returns
    -------
    dict of str to int
        Five special tokens, the printable ASCII characters at the start and inside of words, and the pieces.
    """
    learned = learn_merges(
        Counter({(word[0], *(f"##{c}" for c in word[1:])): n for word, n in words.items()}), merges, "##"
    )
    characters = sorted({chr(code) for code in range(33, 127) if not chr(code).isupper()})
    pieces = [merged_symbol(a, b, "##") for a, b in learned]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    entries = dict.fromkeys([*special, *characters, *(f"##{c}" for c in characters), *pieces])
    return {entry: i for i, entry in enumerate(entries)}
