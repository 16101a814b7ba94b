"""Audio, log-mel spectrograms, and the time and frequency of their cells."""

from attnviz.audio.files import load_audio, to_int16, write_wav
from attnviz.audio.grid import CellGrid, SpectrogramGrid
from attnviz.audio.griffin_lim import griffin_lim
from attnviz.audio.image import fit_width, image_to_mel, mel_to_image
from attnviz.audio.mel import log_mel, peak_normalize
from attnviz.audio.settings import LOG_CEILING, LOG_FLOOR, MEL, MelConfig

__all__ = [
    "LOG_CEILING",
    "LOG_FLOOR",
    "MEL",
    "CellGrid",
    "MelConfig",
    "SpectrogramGrid",
    "fit_width",
    "griffin_lim",
    "image_to_mel",
    "load_audio",
    "log_mel",
    "mel_to_image",
    "peak_normalize",
    "to_int16",
    "write_wav",
]
