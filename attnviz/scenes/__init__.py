"""Scenes with exact ground truth, composed from the recordings of ESC-10.

Input: recordings, a seed and the settings of the composer. Output: mixtures with their stems, events and masks. It
imports audio, events and text.
"""

from attnviz.scenes.attribution import attributions
from attnviz.scenes.audibility import audible_frames, frame_intervals
from attnviz.scenes.composer import compose, scenes
from attnviz.scenes.config import ComposerConfig
from attnviz.scenes.fetch import ARCHIVE_URL, fetch_esc10
from attnviz.scenes.recordings import CLASSES, FOLDS, RECORDING_RATE, Recording, read_esc10
from attnviz.scenes.scene import BACKGROUND, Scene, SceneSound
from attnviz.text.sounds import PHRASES, Phrases

__all__ = [
    "ARCHIVE_URL",
    "BACKGROUND",
    "CLASSES",
    "FOLDS",
    "PHRASES",
    "RECORDING_RATE",
    "ComposerConfig",
    "Phrases",
    "Recording",
    "Scene",
    "SceneSound",
    "attributions",
    "audible_frames",
    "compose",
    "fetch_esc10",
    "frame_intervals",
    "read_esc10",
    "scenes",
]
