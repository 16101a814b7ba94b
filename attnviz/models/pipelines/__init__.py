"""Auffusion as diffusers pipelines: text to audio, audio to audio, inpainting."""

from attnviz.models.pipelines.audio_to_audio import AuffusionAudioToAudioPipeline
from attnviz.models.pipelines.inpainting import AuffusionInpaintPipeline
from attnviz.models.pipelines.output import AuffusionOutput
from attnviz.models.pipelines.text_to_audio import AuffusionPipeline

__all__ = [
    "AuffusionAudioToAudioPipeline",
    "AuffusionInpaintPipeline",
    "AuffusionOutput",
    "AuffusionPipeline",
]
