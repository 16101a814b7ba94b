"""Tokenize prompts into token ids and token tables."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from attnviz.arguments import public, whole_number
from attnviz.errors import CheckpointError, PromptError, TruncationWarning, warn
from attnviz.text.tokens import TokenTable, make_rows
from attnviz.text.words import is_blank, split_words, trim_span, word_at

#: Key positions of a plain Stable Diffusion checkpoint.
CLIP_LENGTH = 77
MOST_TOKENS = 100_000  # key positions of one encoder


@dataclass(frozen=True)
class Encoding:
    """A prompt as tokenized by one tokenizer.

    Attributes
    ----------
    ids : list of int
        Input of the encoder: start, text and end tokens (and, if padded, padding).
    rows : list of tuple
        One row per key position (`attnviz.text.tokens.COLUMNS`); always `max_length` rows.
    cut : int
        Character index at which the prompt was cut off; the prompt's length if it was not.
    """

    ids: list[int]
    rows: list[tuple[Any, ...]]
    cut: int


@dataclass(frozen=True)
class _Token:
    id: int
    name: str
    start: int
    end: int
    kind: str


def check_prompt(prompt: object, *, allow_empty: bool = False) -> str:
    """Return the prompt.

    Parameters
    ----------
    prompt : object
    allow_empty : bool
        Whether a prompt without visible characters is valid, as for a negative prompt.

    Raises
    ------
    PromptError
        If it is not text, has no visible characters, or contains half of a surrogate pair.
    """
    if not isinstance(prompt, str):
        raise PromptError(f"a prompt is text, got {type(prompt).__name__}: {prompt!r}")
    if is_blank(prompt) and not allow_empty:
        raise PromptError(f"the prompt is empty ({prompt!r}): describe a sound, such as 'a dog barks'")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the prompt is not valid Unicode at character {error.start}: text read with a wrong encoding?"
        ) from error
    return prompt


@public
def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    max_length: int,
    *,
    padded: bool,
    limit: int | None = None,
    encoder: int = 0,
    offset: int = 0,
    allow_empty: bool = False,
) -> Encoding:
    """Tokenize a prompt.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        Backed by the ``tokenizers`` library (as all tokenizers of transformers 5), for the character offsets.
    prompt : str
    max_length : int
        Number of key positions of this encoder.
    padded : bool
        False (adapter layout): the encoder gets start, text and end tokens only. True (plain layout): it
        also gets padding tokens up to `max_length`.
    limit : int, optional
        Maximal number of tokens of the encoder, if smaller than `max_length`. The tokenizer's own limit applies
        too.
    encoder : int
        Value of the rows' ``encoder``.
    offset : int
        First ``position``.
    allow_empty : bool
        Whether the prompt may be empty; the result then has only start and end tokens.

    Returns
    -------
    Encoding
        An over-long prompt loses its last text tokens; start and end tokens are kept.

    Raises
    ------
    PromptError
        If the prompt is empty or not text.
    CheckpointError
        If the tokenizer gives no offsets, or the limit leaves no room for text.

    Notes
    -----
    If a prompt contains the text of a special token ("</s>"), every tokenizer of transformers reads it as that
    token, and so does the original. It keeps its span and its kind is text: only tokens that the tokenizer *adds*
    are start and end.
    """
    check_prompt(prompt, allow_empty=allow_empty)
    written, origin = _expanded(tokenizer, prompt)
    start, text, end = _parts(tokenizer, written)
    if origin is not None:
        text = [_at_origin(token, origin) for token in text]
    max_length = whole_number("max_length", max_length, least=0, most=MOST_TOKENS, error=CheckpointError)
    limits = [max_length, tokenizer.model_max_length] + ([] if limit is None else [limit])
    room = min(limits) - len(start) - len(end)
    if room < 1:
        raise CheckpointError(
            f"a limit of {min(limits)} tokens leaves no room for text beside {len(start) + len(end)} special"
            " tokens; check condition_max_length, model_max_length and max_position_embeddings"
        )
    cut = len(prompt)
    if len(text) > room:
        cut = _first_character(text[room:], len(prompt))
        text = text[:room]
    tokens = [*start, *text, *end]
    ids = [token.id for token in tokens]
    words = split_words(prompt)
    rows: list[tuple[Any, ...]] = []
    for token in tokens:
        label = prompt[token.start : token.end] if token.start >= 0 else token.name
        if token.name == "▁" and token.start >= 0:
            label = "▁"
        word = word_at(words, token.start, token.end)
        named = (word.text, word.occurrence) if word is not None else ("", -1)
        position = offset + len(rows)
        rows.append((encoder, position, token.id, label, token.start, token.end, *named, token.kind))
    padding_id, padding_text = -1, ""
    if padded:
        padding_id, padding_text = tokenizer.pad_token_id, tokenizer.pad_token
        if padding_id is None:
            raise CheckpointError("the tokenizer has no padding token, which the plain layout needs")
        ids += [padding_id] * (max_length - len(ids))
    while len(rows) < max_length:
        rows.append((encoder, offset + len(rows), padding_id, padding_text, -1, -1, "", -1, "padding"))
    return Encoding(ids, rows, cut)


@public
def token_table(
    tokenizers: Sequence[PreTrainedTokenizerBase],
    prompt: str,
    max_lengths: Sequence[int],
    *,
    limits: Sequence[int | None] | None = None,
    padded: bool = False,
    warn: bool = True,
) -> TokenTable:
    """Return the token table of a prompt over all encoders of a checkpoint.

    Parameters
    ----------
    tokenizers : sequence of transformers tokenizers
        One per encoder.
    prompt : str
    max_lengths : sequence of int
        Key positions of each encoder: encoder i starts at ``sum(max_lengths[:i])``.
    limits : sequence of int or None, optional
        Maximal number of tokens of each encoder, if smaller.
    padded : bool
        As in `tokenize`.
    warn : bool
        Whether to warn about words that were cut off.

    Returns
    -------
    TokenTable
        ``sum(max_lengths)`` rows.

    Raises
    ------
    PromptError, CheckpointError
        As in `tokenize`, or if the numbers of tokenizers, lengths and limits differ.

    Warns
    -----
    TruncationWarning
        If the prompt is too long for an encoder; lists the words that the encoder does not get in full.
    """
    limits = limits if limits is not None else [None] * len(tokenizers)
    if len({len(tokenizers), len(max_lengths), len(limits)}) > 1 or not tokenizers:
        raise CheckpointError(
            f"There are {len(tokenizers)} tokenizers, {len(max_lengths)} lengths and {len(limits)} limits; one of "
            "each is needed for every text encoder."
        )
    rows: list[tuple[Any, ...]] = []
    cuts: list[int] = []
    for i, (tokenizer, max_length, limit) in enumerate(zip(tokenizers, max_lengths, limits, strict=True)):
        encoding = tokenize(tokenizer, prompt, max_length, padded=padded, limit=limit, encoder=i, offset=len(rows))
        rows += encoding.rows
        cuts.append(encoding.cut)
    if warn:
        warn_of_cuts(prompt, cuts)
    return TokenTable(prompt=prompt, rows=make_rows(rows), cut=tuple(cuts))


@public
def clip_token_table(tokenizer: PreTrainedTokenizerBase, prompt: str, *, warn: bool = True) -> TokenTable:
    """Return the token table of a plain Stable Diffusion checkpoint.

    Parameters
    ----------
    tokenizer : transformers.CLIPTokenizer
    prompt : str
    warn : bool
        Whether to warn about words that were cut off.

    Returns
    -------
    TokenTable
        As many rows as the tokenizer's ``model_max_length`` (77). The token ids equal those that
        ``StableDiffusionPipeline.encode_prompt`` passes to the encoder (``padding="max_length",
        truncation=True``): rows after the first end token have the kind "padding".

    Raises
    ------
    PromptError, CheckpointError
        As in `tokenize`.
    """
    length = tokenizer.model_max_length
    return token_table([tokenizer], prompt, [length if length < 10**6 else CLIP_LENGTH], padded=True, warn=warn)


def warn_of_cuts(prompt: str, cuts: Sequence[int]) -> None:
    """Issue one `TruncationWarning` that lists, for each encoder, the words it does not get in full."""
    parts = []
    for i, cut in enumerate(cuts):
        if cut < len(prompt):
            lost = [word.text for word in split_words(prompt) if word.end > cut]
            named = ", ".join(repr(text) for text in lost) or repr(prompt[cut:])
            parts.append(f"encoder {i} does not get {named}" if len(cuts) > 1 else named)
    if parts:
        warn(
            "the prompt is too long for the text encoder and was cut off, keeping the end token: "
            + "; ".join(parts),
            TruncationWarning,
        )


def _parts(tokenizer: Any, prompt: str) -> tuple[list[_Token], list[_Token], list[_Token]]:
    """Return the tokens added before the text, the tokens of the text, and those added after it."""
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(
            f"the tokenizer {type(tokenizer).__name__} gives no character offsets, so words cannot be located;"
            " a tokenizer backed by the tokenizers library is needed"
        )
    encoded = tokenizer(
        prompt,
        return_offsets_mapping=True,
        truncation=False,
        padding=False,
        verbose=False,
        add_special_tokens=True,
    )
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    # None marks an added token. The id does not: the prompt may contain the text of a special token.
    added = [sequence is None for sequence in encoded.sequence_ids(0)]
    first = next((i for i, is_added in enumerate(added) if not is_added), None)
    if first is None:  # no text token is left (BERT drops some characters): only the last token is the end
        first = last = max(len(ids) - 1, 0)
    else:
        last = len(ids) - next(i for i, is_added in enumerate(reversed(added)) if not is_added)
    names = tokenizer.convert_ids_to_tokens(ids)
    tokens = []
    for i, (token_id, name, (start, end)) in enumerate(zip(ids, names, offsets, strict=True)):
        kind = "start" if i < first else "end" if i >= last else "text"
        span = trim_span(prompt, start, end) if kind == "text" else (0, 0)
        has_span = span[0] < span[1]
        label = name if kind != "text" or name == "▁" else " "
        tokens.append(_Token(token_id, label, *(span if has_span else (-1, -1)), kind))
    return tokens[:first], tokens[first:last], tokens[last:]


def _expanded(tokenizer: Any, prompt: str) -> tuple[str, list[tuple[int, int]] | None]:
    """Expand textual inversions of several vectors, as diffusers does: ``<x>`` becomes ``<x> <x>_1 <x>_2``.

    Returns
    -------
    text : str
        Text to tokenize.
    origin : list of (int, int) or None
        Span of the prompt for each character of `text`; None if nothing was expanded.
    """
    added = getattr(tokenizer, "added_tokens_encoder", {})
    several = [token for token in added if f"{token}_1" in added and token in prompt]
    if not several:
        return prompt, None
    pieces: list[str] = []
    origin: list[tuple[int, int]] = []
    at = 0
    for found in re.finditer("|".join(map(re.escape, sorted(several, key=len, reverse=True))), prompt):
        token = found.group()
        more = itertools.takewhile(added.__contains__, (f"{token}_{i}" for i in itertools.count(1)))
        vectors = " ".join([token, *more])
        pieces += [prompt[at : found.start()], vectors]
        origin += [(i, i + 1) for i in range(at, found.start())] + [found.span()] * len(vectors)
        at = found.end()
    pieces.append(prompt[at:])
    origin += [(i, i + 1) for i in range(at, len(prompt))]
    return "".join(pieces), origin


def _at_origin(token: _Token, origin: Sequence[tuple[int, int]]) -> _Token:
    """Map a token of the expanded text to its span in the prompt; all vectors of a word share the word's span."""
    if token.start < 0:
        return token
    return dataclasses.replace(token, start=origin[token.start][0], end=origin[token.end - 1][1])


def _first_character(tokens: Sequence[_Token], length: int) -> int:
    return min((token.start for token in tokens if token.start >= 0), default=length)
