"""Find the parts of an English prompt that name sounds: runs of content words between punctuation and others."""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[int, int]

FUNCTION_WORDS = frozenset({
    "a", "an", "the", "this", "that", "these", "those", "some", "any", "each", "every", "one", "two", "three",
    "several", "many", "few", "another", "other", "and", "or", "but", "then", "while", "as", "when", "before",
    "after", "until", "during", "followed", "by", "with", "without", "within", "into", "onto", "from", "of",
    "in", "on", "at", "to", "over", "under", "near", "behind", "beside", "between", "through", "across",
    "along", "around", "for", "up", "down", "out", "off", "is", "are", "was", "were", "be", "been", "being",
    "has", "have", "had", "do", "does", "did", "it", "its", "his", "her", "their", "there", "he", "she", "they",
    "we", "i", "you", "who", "which", "very", "so", "also", "again", "first", "next", "finally", "suddenly",
})  # fmt: skip
"""English words that do not name sounds and separate phrases."""

WORDS_OF_HEARING = frozenset({
    "sound", "sounds", "noise", "noises", "audio", "recording", "recordings", "clip", "hear", "hears", "heard",
    "listen", "background",
})  # fmt: skip
"""English words of captions for the audio itself: "the sound of rain" names one sound."""


def content_runs(prompt: str, words: Sequence[Span]) -> list[list[Span]]:
    """Return the runs of consecutive content words of a prompt, each as the spans of its words.

    Punctuation and `FUNCTION_WORDS` end a run.

    Parameters
    ----------
    prompt : str
    words : sequence of (int, int)
        Character spans of the words, in the order of the prompt.

    Examples
    --------
    >>> content_runs("a dog barks, then rain", [(0, 1), (2, 5), (6, 11), (13, 17), (18, 22)])
    [[(2, 5), (6, 11)], [(18, 22)]]
    """
    runs: list[list[Span]] = []
    last: Span | None = None
    for span in words:
        if prompt[slice(*span)].lower() in FUNCTION_WORDS:
            last = None
            continue
        if last is not None and prompt[last[1] : span[0]].isspace():
            runs[-1].append(span)
        else:
            runs.append([span])
        last = span
    return runs


def sound_phrases(prompt: str, words: Sequence[Span]) -> list[Span]:
    """Return the spans of the phrases that may name a sound: content words without those of hearing.

    Examples
    --------
    >>> prompt = "the sound of rain, then a dog barks"
    >>> words = [(0, 3), (4, 9), (10, 12), (13, 17), (19, 23), (24, 25), (26, 29), (30, 35)]
    >>> [prompt[start:end] for start, end in sound_phrases(prompt, words)]
    ['rain', 'dog barks']
    """
    named = [span for span in words if prompt[slice(*span)].lower() not in WORDS_OF_HEARING]
    return [(run[0][0], run[-1][1]) for run in content_runs(prompt, named)]
