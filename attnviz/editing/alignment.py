"""Align the words of two prompts, and map the attention of source keys to target keys."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from attnviz.errors import PromptError
from attnviz.text import TokenTable
from attnviz.text.tokens import make_rows
from attnviz.text.words import fold, split_words, trim_span

WITHOUT_WORDS = ("template", "duration", "latent", "lyrics", "timbre", "audio")
"""Kinds of keys, beside start, end and padding, that stand for no word of a prompt."""

Span = tuple[int, int]
Phrase = str | Span | tuple[str, int]
"""Words of a prompt; their character span; or words and which occurrence of them, counted from 0."""


@dataclass(frozen=True)
class Pair:
    """A part of the source prompt and the corresponding part of the target prompt.

    Attributes
    ----------
    source, target : (int, int) or None
        Character spans of words, or of punctuation between them; None if the other prompt has no counterpart.
    same : bool
        Whether the two are equal, ignoring case.
    """

    source: Span | None
    target: Span | None
    same: bool


def phrase_span(prompt: str, phrase: Phrase) -> Span:
    """Find the character span of a phrase, without a tokenizer.

    Raises
    ------
    PromptError
        If it is not in the prompt, or occurs more than once and the occurrence is not given.
    """
    table = TokenTable(prompt=prompt, rows=make_rows([]), cut=())  # only the text is searched
    if isinstance(phrase, tuple) and len(phrase) == 2 and isinstance(phrase[0], str):
        return table.phrase_span(phrase[0], phrase[1])
    return table.phrase_span(phrase)


def align_swap(source: str, target: str) -> list[Pair]:
    """Pair the words of two prompts in which some words are replaced.

    Prompts with equal numbers of words (and punctuation marks) are paired one by one. Otherwise, the parts between
    common words are paired as a whole.

    Raises
    ------
    PromptError
        If the prompts have no word in common and differ in number, or words of one have no counterpart in the
        other.

    Examples
    --------
    >>> align_swap("a dog barks", "a cat barks")[1]
    Pair(source=(2, 5), target=(2, 5), same=False)
    """
    pairs = _aligned(source, target, one_by_one=True)
    if len(_units(source)) != len(_units(target)) and not any(pair.same for pair in pairs):
        raise PromptError(
            f"The prompts {source!r} and {target!r} have no word in common and differ in length, so their words "
            "cannot be paired. Replace some of the words, or generate from the second prompt."
        )
    added = [target[slice(*pair.target)] for pair in pairs if pair.target and not pair.source]
    gone = [source[slice(*pair.source)] for pair in pairs if pair.source and not pair.target]
    if added or gone:
        what = [f"adds {_listed(added)}"] * bool(added) + [f"leaves out {_listed(gone)}"] * bool(gone)
        raise PromptError(
            f"{target!r} {' and '.join(what)}, and a swap puts words in place of words of {source!r}. To add "
            "words, refine the prompt; otherwise write as many words as there were."
        )
    return pairs


def align_refine(source: str, target: str) -> list[Pair]:
    """Pair the words of a prompt with those of the same prompt with words added.

    Raises
    ------
    PromptError
        If the target lacks words of the source, or has them in another order.

    Examples
    --------
    >>> [pair.target for pair in align_refine("a dog barks", "a big dog barks") if not pair.source]
    [(2, 5)]
    """
    pairs = _aligned(source, target, one_by_one=False)
    if lost := [source[slice(*pair.source)] for pair in pairs if pair.source and not pair.same]:
        raise PromptError(
            f"{target!r} lacks {_listed(lost)} of {source!r}, or has it in another order. A refined prompt has "
            "all words of the source, and more; to put other words in place of some, swap them."
        )
    return pairs


def key_map(source: TokenTable, target: TokenTable, pairs: Sequence[Pair]) -> torch.Tensor:
    """Compute the weights with which the attention of source keys is transferred to target keys.

    Each text encoder is aligned separately. Tokens of paired words are mapped one to one if their numbers are
    equal; otherwise, their attention is summed and divided equally, so that none is lost. Start and end tokens are
    mapped to start and end tokens, padding to the padding at the same position, and other keys that stand for no
    word (a template's tokens, a duration) to equal ones, in order.

    Parameters
    ----------
    source, target : TokenTable
        Token tables of the same encoders.
    pairs : sequence of Pair
        Alignment of the prompts.

    Returns
    -------
    torch.Tensor, shape (keys, keys), float32
        Rows are source keys, columns target keys. A row sums to 1, or to 0 if its key has no counterpart. Columns
        of added keys are 0.

    Notes
    -----
    Source: the mappers of prompt-to-prompt (Hertz et al., arXiv 2208.01626).

    Differences from the original: words are located by character span instead of counting tokens, for several
    encoders; padding keeps its position, whereas the original continues after the last word, so that a padding key
    after the end of the shorter prompt transfers its attention to the first one after that of the longer prompt.
    """
    matrix = torch.zeros(len(source), len(target))
    for encoder in range(len(source.cut)):
        taken: tuple[set[int], set[int]] = (set(), set())
        for pair in pairs:
            _share_out(
                matrix,
                _positions(source, encoder, pair.source, taken[0]),
                _positions(target, encoder, pair.target, taken[1]),
            )
        for kind in ("start", "end"):
            _share_out(matrix, source.positions(kind, encoder), target.positions(kind, encoder))
        for kind in WITHOUT_WORDS:
            _match(matrix, source, target, kind, encoder)
        _pad(matrix, source.positions("padding", encoder), target, encoder)
    return matrix


def _units(prompt: str) -> list[Span]:
    """Return the spans of words and of the punctuation between them, in order."""
    units: list[Span] = []
    at = 0
    for word in split_words(prompt):
        units += [trim_span(prompt, at, word.start), (word.start, word.end)]
        at = word.end
    units.append(trim_span(prompt, at, len(prompt)))
    return [(start, end) for start, end in units if start < end]


def _aligned(source: str, target: str, *, one_by_one: bool) -> list[Pair]:
    ours, theirs = _units(source), _units(target)
    texts = [fold(source[slice(*span)])[0] for span in ours], [fold(target[slice(*span)])[0] for span in theirs]
    if one_by_one and len(ours) == len(theirs):
        return [Pair(a, b, x == y) for a, b, x, y in zip(ours, theirs, *texts, strict=True)]
    pairs = []
    for what, i, j, k, m in difflib.SequenceMatcher(None, *texts, autojunk=False).get_opcodes():
        if what == "equal" or (what == "replace" and j - i == m - k):
            pairs += [Pair(a, b, what == "equal") for a, b in zip(ours[i:j], theirs[k:m], strict=True)]
        elif what == "replace":
            pairs.append(Pair((ours[i][0], ours[j - 1][1]), (theirs[k][0], theirs[m - 1][1]), same=False))
        else:
            pairs += [Pair(span, None, same=False) for span in ours[i:j]]
            pairs += [Pair(None, span, same=False) for span in theirs[k:m]]
    return pairs


def _positions(table: TokenTable, encoder: int, span: Span | None, taken: set[int]) -> np.ndarray:
    """Return the key positions of an encoder's tokens in a span; a token in two spans belongs to the first."""
    if span is None:
        return np.empty(0, dtype=np.int64)
    rows = table.rows
    inside = (rows["kind"] == "text") & (rows["start"] < span[1]) & (rows["end"] > span[0])
    found = rows.loc[inside & (rows["encoder"] == encoder), "position"].to_numpy()
    fresh = np.array([position for position in found if position not in taken], dtype=np.int64)
    taken.update(fresh.tolist())
    return fresh


def _share_out(matrix: torch.Tensor, source: np.ndarray, target: np.ndarray) -> None:
    if len(source) == len(target):
        matrix[source, target] = 1.0
    elif len(target):
        matrix[np.ix_(source, target)] = 1.0 / len(target)


def _match(matrix: torch.Tensor, source: TokenTable, target: TokenTable, kind: str, encoder: int) -> None:
    """Map keys of a kind that stands for no word to equal tokens; a prompt's end may merge with a template."""
    ours, theirs = source.positions(kind, encoder), target.positions(kind, encoder)
    ids = [table.rows["token_id"].to_numpy()[places] for table, places in ((source, ours), (target, theirs))]
    matcher = difflib.SequenceMatcher(None, ids[0].tolist(), ids[1].tolist(), autojunk=False)
    for i, j, n in matcher.get_matching_blocks():
        matrix[ours[i : i + n], theirs[j : j + n]] = 1.0


def _pad(matrix: torch.Tensor, padding: np.ndarray, target: TokenTable, encoder: int) -> None:
    there = target.positions("padding", encoder)
    # A full prompt has no padding; its last token is used instead.
    tokens = target.rows.query("encoder == @encoder and kind in ['text', 'end']")["position"].to_numpy()
    rest = there[:1] if len(there) else tokens[-1:]
    for position in padding:
        matrix[position, position if position in there else rest] = 1.0


def _listed(words: Sequence[str]) -> str:
    return ", ".join(repr(word) for word in words)
