"""Recordings of ESC-10, scenes composed from them with exact ground truth, and the sound event detector."""

from attnviz.sounds.attribution import attributions
from attnviz.sounds.audibility import audible_frames, frame_intervals
from attnviz.sounds.composer import compose, scenes
from attnviz.sounds.config import ComposerConfig
from attnviz.sounds.decoding import Decoding
from attnviz.sounds.fetch import ARCHIVE_URL, fetch_esc10
from attnviz.sounds.hearing import Hearing
from attnviz.sounds.listener_model import Listener, ListenerConfig
from attnviz.sounds.recordings import CLASSES, FOLDS, RECORDING_RATE, Recording, read_esc10
from attnviz.sounds.scene import BACKGROUND, Scene, SceneSound
from attnviz.text.sounds import PHRASES, Phrases

__all__ = [
    "ARCHIVE_URL",
    "BACKGROUND",
    "CLASSES",
    "FOLDS",
    "PHRASES",
    "RECORDING_RATE",
    "ComposerConfig",
    "Decoding",
    "Hearing",
    "Listener",
    "ListenerConfig",
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
