"""The one error family: every refusal of attnviz is an :class:`AttnVizError`.

A message states what was given, what is allowed, and the likely mistake.
"""

from __future__ import annotations

import sys
import warnings

# Whose frames stand between a caller and attnviz: a warning points past them.
_BETWEEN = frozenset({"attnviz", "contextlib", "diffusers", "functools", "torch"})


class AttnVizError(Exception):
    """Base class of every error attnviz raises on purpose."""


class ArgumentError(AttnVizError):
    """An argument of a kind that a function cannot take: another type, or a number that is not finite."""


class AudioError(AttnVizError):
    """Audio, spectrogram or grid that cannot be used: wrong rate, size, range or file."""


class CheckpointError(AttnVizError):
    """A checkpoint that is missing a file, is malformed, or is of an unknown kind."""


class PromptError(AttnVizError):
    """A prompt that cannot be used, or a word that is not in it (or was cut off)."""


class CaptureError(AttnVizError):
    """Attention that cannot be captured faithfully, so is not captured at all."""


class MemoryBudgetError(CaptureError):
    """The maps asked for do not fit the byte budget that was stated beforehand."""


class MapsError(AttnVizError):
    """A question the maps at hand cannot answer, or a map file that cannot be read."""


class EventsError(AttnVizError):
    """Events that cannot be used: a missing column, impossible times, a file that is no event file."""


class OutputError(AttnVizError):
    """An output that exists already, or a place that cannot be written to."""


class TrainingError(AttnVizError):
    """A training that cannot start or go on: its configuration, its data, or the state it would resume from."""


class AttnVizWarning(UserWarning):
    """Base class of every warning attnviz gives on purpose."""


class TruncationWarning(AttnVizWarning):
    """Words at the end of a prompt were cut off at the encoder's limit."""


class InaudibleWarning(AttnVizWarning):
    """Audio, or a word's part of it, is too quiet to be heard."""


class UnknownSoundWarning(AttnVizWarning):
    """A prompt names none of the sounds that a model was trained on."""


def warn(message: str, category: type[AttnVizWarning] = AttnVizWarning) -> None:
    """Warn at the line that called attnviz, however many frames of attnviz, diffusers or torch lie between."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
