"""Auffusion as diffusers pipelines: text to audio, audio to audio, inpainting."""

from attnviz.pipelines.audio_to_audio import AuffusionAudioToAudioPipeline
from attnviz.pipelines.inpainting import AuffusionInpaintPipeline
from attnviz.pipelines.output import AuffusionOutput
from attnviz.pipelines.text_to_audio import AuffusionPipeline

__all__ = [
    "AuffusionAudioToAudioPipeline",
    "AuffusionInpaintPipeline",
    "AuffusionOutput",
    "AuffusionPipeline",
]
