"""Warn about edited words that cannot be heard in the result of an edit."""

from __future__ import annotations

import numpy as np

from attnviz.audio.levels import WINDOW_SECONDS, loudest_level, warn_if_inaudible
from attnviz.editing.prompt_edit import PromptEdit
from attnviz.errors import InaudibleWarning, warn
from attnviz.listener.listening import listen
from attnviz.models.pipelines.known_sounds import KnownSounds, sounds_named


def warn_of_inaudible_words(edit: PromptEdit, audio: np.ndarray, known: KnownSounds | None) -> None:
    """Warn about inaudible words of an edit, if the listener knows their sounds.

    Parameters
    ----------
    edit : PromptEdit
        The edit. Words with weights of 0 or below are supposed to disappear and are ignored.
    audio : numpy.ndarray, shape (samples,)
        The edited waveform at 16 kHz.
    known : mapping or None
        Sounds that the model knows (``sounds.json``). If None, as for the published checkpoints, nothing is
        checked, because no listener knows the sounds of their prompts.

    Warns
    -----
    InaudibleWarning
        If the bundled listener finds no event of the sound of the word, or its level is too low. The message
        contains the level in dBFS.
    """
    if known is None:
        return
    taken_away = {span for span, weight in edit.weighed.items() if weight <= 0}
    words = [edit.target[slice(*span)] for span in edit.changed[1] if span not in taken_away]
    named: dict[str, list[str]] = {}
    for word in words:
        for sound in sounds_named(word, known):
            named.setdefault(sound, []).append(word)
    if not named:
        return
    hearing = listen(audio)
    classes = set(hearing.probabilities["sound"].to_numpy().tolist())
    for sound in named.keys() & classes:
        edited = f"The edited {' '.join(named[sound])!r} ({sound})"
        if hearing.onset(sound) is None:
            warn(
                f"{edited} is not heard: no such event is found. The loudest {WINDOW_SECONDS:g} s "
                f"have {loudest_level(audio):.1f} dBFS. Try another seed, or fewer replace steps.",
                InaudibleWarning,
            )
        else:
            warn_if_inaudible(hearing.level(sound), edited)
