"""Errors and warnings: every error that attnviz raises on purpose is an :class:`AttnVizError`.

A message states the value, the allowed values, and the likely mistake.
"""

from __future__ import annotations

import sys
import warnings

# Whose frames stand between a caller and attnviz: a warning points past them.
_BETWEEN = frozenset({"attnviz", "contextlib", "diffusers", "functools", "torch"})


class AttnVizError(Exception):
    """Base class of every error that attnviz raises on purpose."""


class ArgumentError(AttnVizError):
    """An argument of a kind that a function cannot take: another type, or a number that is not finite."""


class AudioError(AttnVizError):
    """Invalid audio, spectrogram or grid: wrong rate, size, range or file."""


class CheckpointError(AttnVizError):
    """A checkpoint with a missing or malformed file, or of an unknown type."""


class PromptError(AttnVizError):
    """An invalid prompt, or a word that is not in it (or was cut off)."""


class CaptureError(AttnVizError):
    """Attention that cannot be captured faithfully, so that nothing is captured."""


class MemoryBudgetError(CaptureError):
    """The requested maps exceed the byte budget."""


class MapsError(AttnVizError):
    """A request that the maps cannot answer, or a map file that cannot be read."""


class EventsError(AttnVizError):
    """Invalid events: a missing column, impossible times, a file without events."""


class EvaluationError(AttnVizError):
    """A metric that cannot be computed: embeddings of another shape, NaN, too few clips, clips without a pair."""


class CorpusError(AttnVizError):
    """A corpus that cannot be run or read: an invalid plan, another plan's folder, missing or damaged shards."""


class OutputError(AttnVizError):
    """An output that exists already, or a path that cannot be written."""


class TrainingError(AttnVizError):
    """A training that cannot start or resume: its configuration, data or saved state is invalid."""


class AttnVizWarning(UserWarning):
    """Base class of every warning that attnviz issues on purpose."""


class TruncationWarning(AttnVizWarning):
    """Words at the end of a prompt were cut off at the encoder's length limit."""


class InaudibleWarning(AttnVizWarning):
    """Audio, or the part of a word in it, is too quiet to be heard."""


class ClippingWarning(AttnVizWarning):
    """Audio is at full scale for so long that its loudest parts are distorted."""


class UnknownSoundWarning(AttnVizWarning):
    """A prompt names none of the sounds that a model was trained on."""


class CompletenessWarning(AttnVizWarning):
    """Integrated gradients do not sum to the change of their target."""


class FewClipsWarning(AttnVizWarning):
    """A metric of fewer clips than it needs."""


def warn(message: str, category: type[AttnVizWarning] = AttnVizWarning) -> None:
    """Warn at the line that called attnviz, however many frames of attnviz, diffusers or torch lie between."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
