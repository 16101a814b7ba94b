"""HiFi-GAN: from a log-mel spectrogram to audio."""

from attnviz.models.vocoder.config import HifiGanConfig
from attnviz.models.vocoder.hifi_gan import HifiGan

__all__ = ["HifiGan", "HifiGanConfig"]
