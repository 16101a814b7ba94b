"""Edited words that cannot be heard in what an edit gave."""

from __future__ import annotations

import numpy as np

from attnviz.audio.levels import warn_if_inaudible
from attnviz.editing.prompt_edit import PromptEdit
from attnviz.pipelines.known_sounds import KnownSounds, sounds_named
from attnviz.sounds.listening import listen


def warn_of_inaudible_words(edit: PromptEdit, audio: np.ndarray, known: KnownSounds | None) -> None:
    """Warn of words of an edit that are not to be heard, as far as a listener knows their sounds.

    Parameters
    ----------
    edit : PromptEdit
        The edit. Words that it weighs at 0 or below are meant to go, and are left out.
    audio : numpy.ndarray, shape (samples,)
        The edited waveform at 16 kHz.
    known : mapping or None
        The sounds that the model knows (``sounds.json``). None, as of the published checkpoints: no listener knows
        the sounds of its prompts, and nothing is done.

    Warns
    -----
    InaudibleWarning
        With the level of what the bundled listener hears as the word's sound, in dB of full scale.
    """
    if known is None:
        return
    taken_away = {span for span, weight in edit.weighed.items() if weight <= 0}
    spans = [span for span in edit.changed[1] if span not in taken_away]
    named = {
        sound: edit.target[slice(*span)]
        for span in spans
        for sound in sounds_named(edit.target[slice(*span)], known)
    }
    if not named:
        return
    hearing = listen(audio)
    classes = set(hearing.probabilities["sound"].to_numpy().tolist())
    for sound, words in named.items():
        if sound in classes:
            warn_if_inaudible(hearing.level(sound), f"What the edit is of, {words!r} ({sound}),")
