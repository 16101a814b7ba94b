"""The solos of a page: the audio of every phrase that may name a sound, in time with the clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attnviz.audio import MEL, load_audio
from attnviz.errors import AttnVizError
from attnviz.maps import AttentionMaps
from attnviz.maps.heats import sounding_phrases
from attnviz.report.items import Item
from attnviz.report.quantised import audio_text
from attnviz.separation import separate


def solos_of(
    maps: AttentionMaps,
    audio: np.ndarray,
    items: Sequence[Item],
    *,
    prompt_index: int,
    sample: int,
    room: int,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the solos that fit into a page, and what is missing.

    Parameters
    ----------
    maps : AttentionMaps
    audio : numpy.ndarray, shape (samples,)
        The clip at 16 kHz.
    items : sequence of Item
        Items of the page.
    prompt_index, sample : int
    room : int
        Available bytes.

    Returns
    -------
    list of dict
        ``label``, ``item`` (index of the item with the same characters, or None) and ``audio`` of each solo.
    list of str
        Omitted content, with reasons.
    """
    spans = sounding_phrases(maps, prompt_index)
    if len(spans) < 2:  # the solo of the only phrase is the clip
        return [], []
    size = len(audio_text(audio)["data"])
    fitting = max(0, min(len(spans), room // size))
    if not fitting:
        return [], ["The clip is too long for solos on this page; attnviz solo writes them as files."]
    try:
        found = separate(
            maps, audio, phrases=spans, sampling_rate=MEL.sampling_rate, prompt_index=prompt_index, sample=sample
        )
    except AttnVizError as error:
        return [], [f"There are no solos. {error}"]
    places = {item.span: number for number, item in enumerate(items) if item.span is not None}
    sounds = [
        load_audio(sound, MEL.sampling_rate, source_rate=found.sampling_rate) for sound in found.audios[:fitting]
    ]
    solos = [
        {"label": label, "item": places.get(span), "audio": audio_text(sound)}
        for label, span, sound in zip(found.phrases, found.spans, sounds, strict=False)
    ]
    if fitting < len(spans):
        left_out = ", ".join(f"“{one}”" for one in found.phrases[fitting:])
        return solos, [
            f"Omitted to keep the page small: the solos of {left_out}. attnviz solo writes them as files."
        ]
    return solos, []
