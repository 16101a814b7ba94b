"""Objectives that pretrain text encoders: contrast of pairs, corrupted spans, masked tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy

IGNORED = -100
"""Label of positions that are not predicted, as in transformers."""


def info_nce(of_text: torch.Tensor, of_sound: torch.Tensor) -> torch.Tensor:
    """Return the symmetric InfoNCE loss of a batch of pairs.

    Parameters
    ----------
    of_text, of_sound : torch.Tensor
        Similarities over temperature, shape ``(pairs, pairs)``: of each text (row) to all sounds, and of each
        sound to all texts. Pair `i` belongs together.

    Returns
    -------
    torch.Tensor
        Mean cross-entropy of finding the sound of a text and the text of a sound, in nats.

    References
    ----------
    van den Oord et al. 2018 (arXiv 1807.03748); Radford et al. 2021 (CLIP, arXiv 2103.00020); Wu et al. 2023
    (CLAP, arXiv 2211.06687), where each direction has its own temperature.
    """
    own = torch.arange(len(of_text), device=of_text.device)
    return (cross_entropy(of_text.float(), own) + cross_entropy(of_sound.float(), own)) / 2


def corrupt_spans(
    tokens: Sequence[int],
    rng: np.random.Generator,
    *,
    rate: float,
    mean_length: float,
    sentinels: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Replace random spans by sentinels, as in the pretraining of T5.

    Parameters
    ----------
    tokens : sequence of int
        Tokens of a text without its end token; at least one.
    rng : numpy.random.Generator
    rate : float
        Fraction of the tokens that are removed; at least one token is removed, and one of several is kept.
    mean_length : float
        Mean number of tokens per span.
    sentinels : sequence of int
        Tokens that mark the spans, in their order.

    Returns
    -------
    given : list of int
        The tokens with one sentinel for each span.
    wanted : list of int
        Each sentinel, followed by the tokens of its span, then the next sentinel.

    References
    ----------
    Raffel et al. 2020 (arXiv 1910.10683), section 3.1.4.

    Notes
    -----
    Difference from the original: there, kept and removed parts alternate, beginning with a kept one, so that every
    text ends in a removed span. Of a caption with one span, that would always be the end. Here, the first span may
    begin the text and the last may end it or not.
    """
    count = len(tokens)
    removed = min(max(round(count * rate), 1), max(count - 1, 1))
    spans = min(max(round(removed / mean_length), 1), count - removed + 1, len(sentinels) - 1)
    kept = _parts(count - removed + 2, spans + 1, rng)
    kept[[0, -1]] -= 1  # only the parts between spans have at least one token
    given, wanted = list(tokens[: kept[0]]), []
    at = int(kept[0])
    for sentinel, gone, after in zip(sentinels, _parts(removed, spans, rng), kept[1:], strict=False):
        wanted += [sentinel, *tokens[at : at + gone]]
        given += [sentinel, *tokens[at + gone : at + gone + after]]
        at += int(gone + after)
    return given, [*wanted, sentinels[spans]]


def restore_spans(given: Sequence[int], wanted: Sequence[int], sentinels: Sequence[int]) -> list[int]:
    """Return the tokens of which `corrupt_spans` made `given` and `wanted`."""
    known = set(sentinels)
    spans: dict[int, list[int]] = {}
    span: list[int] = []
    for token in wanted:
        if token in known:
            span = spans.setdefault(token, [])
        else:
            span.append(token)
    return [one for token in given for one in (spans.get(token, []) if token in known else [token])]


def mask_tokens(
    tokens: np.ndarray, maskable: np.ndarray, rng: np.random.Generator, *, rate: float, mask: int, vocabulary: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mask random tokens, as in the pretraining of BERT.

    Parameters
    ----------
    tokens : numpy.ndarray
        Token ids, shape ``(texts, positions)``.
    maskable : numpy.ndarray
        Whether each position is text (and not a special token), of the same shape.
    rng : numpy.random.Generator
    rate : float
        Fraction of the text's tokens to predict; at least one for each text.
    mask : int
        Id of the mask token.
    vocabulary : int
        Number of ids from which random tokens are drawn.

    Returns
    -------
    given : numpy.ndarray
        Token ids of which 80 % of those to predict are masked, 10 % are random, and 10 % are unchanged.
    labels : numpy.ndarray
        Ids of the tokens to predict, and `IGNORED` elsewhere.

    References
    ----------
    Devlin et al. 2019 (arXiv 1810.04805), section 3.1.
    """
    given, labels = tokens.copy(), np.full_like(tokens, IGNORED)
    for row, of_text in enumerate(maskable):
        places = np.flatnonzero(of_text)
        if not len(places):
            continue
        chosen = rng.choice(places, max(round(rate * len(places)), 1), replace=False)
        labels[row, chosen] = tokens[row, chosen]
        fate = rng.random(len(chosen))
        given[row, chosen[fate < 0.8]] = mask
        drawn = chosen[fate >= 0.9]
        given[row, drawn] = rng.integers(vocabulary, size=len(drawn))
    return given, labels


def _parts(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` random lengths, of at least 1, that sum to `total`."""
    cuts = np.sort(rng.choice(total - 1, count - 1, replace=False)) + 1 if count > 1 else np.zeros(0, dtype=int)
    return np.diff(np.concatenate([[0], cuts, [total]])).astype(int)
