"""Invert a real clip to the noise that generates it, so that it can be edited like a generated one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from attnviz.arguments import public
from attnviz.audio import MEL, load_audio
from attnviz.audio.files import AudioSource
from attnviz.diffusion.clip import Clip, encode, read_clip, warn_of_level
from attnviz.diffusion.noising import Inversion
from attnviz.diffusion.schedule import TrainingSchedule
from attnviz.diffusion.windows import WIDTH
from attnviz.errors import AttnVizError, AudioError
from attnviz.models.pipelines import AuffusionPipeline, calls, inputs
from attnviz.wording import short_repr

Method = Literal["ddim", "negative-prompt"]


@dataclass(frozen=True, eq=False)
class InvertedClip:
    """Noise that generates a real clip.

    Attributes
    ----------
    latents : torch.Tensor, shape (1, channels, rows, columns)
        Initial latents with which DDIM sampling with `prompt` yields the clip.
    prompt : str
        Description of the clip.
    num_inference_steps : int
        Number of steps of the inversion and of the generation.
    seconds : float
        Duration of the clip.
    method : {"ddim", "negative-prompt"}
        Method of the generation.
    """

    latents: torch.Tensor
    prompt: str
    num_inference_steps: int
    seconds: float
    method: Method

    __repr__ = short_repr

    @public
    def pipeline(self, pipe: AuffusionPipeline) -> AuffusionPipeline:
        """Create a pipeline with the same parts and the DDIM sampling of the inversion."""
        again = AuffusionPipeline.from_pipe(pipe)
        # Set afterwards, because Stable Diffusion pipelines shift the timesteps of the scheduler on creation.
        again.scheduler = TrainingSchedule.of(pipe.scheduler).sampler()
        again.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
        return again

    @public
    def arguments(self, source: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Complete the arguments of the pipeline.

        Raises
        ------
        AttnVizError
            If the source prompt or an argument does not fit the inversion.
        """
        if source != self.prompt:
            raise AttnVizError(
                f"The clip was inverted with {self.prompt!r} and the source prompt is {source!r}; they have to "
                "be the same. Invert it again with this one."
            )
        own: dict[str, Any] = {"num_inference_steps": self.num_inference_steps, "width": WIDTH}
        if self.method == "negative-prompt":
            own["negative_prompt"] = self.prompt
        for name, value in own.items():
            if given.get(name, value) != value:
                raise AttnVizError(
                    f"{name}={given[name]!r} does not fit the clip, which was inverted with {value!r}; leave it "
                    "out."
                )
        return {"duration": self.seconds, **given, **own}


def read_editable(audio: AudioSource) -> Clip:
    """Read a clip that fits into one window of the model; see `attnviz.diffusion.clip.read_clip`.

    Raises
    ------
    AudioError
        If the clip cannot be read, is too short for a spectrogram, or longer than 10.24 s.
    """
    clip = read_clip(audio, normalize=True, overlap=0.0, column=1)
    if len(clip.starts) > 1:
        longest = WIDTH * MEL.hop_length / MEL.sampling_rate
        raise AudioError(
            f"The clip is {clip.grid.audio_seconds:g} s long, and one of at most {longest:g} s can be edited. "
            "Cut it."
        )
    return clip


@torch.no_grad()
@public
def invert(
    pipe: AuffusionPipeline,
    audio: AudioSource,
    prompt: str,
    *,
    num_inference_steps: int | None = None,
    method: Method = "negative-prompt",
) -> InvertedClip:
    """Invert a real clip with DDIM, for `swap`, `refine` or `reweight`.

    Parameters
    ----------
    pipe : AuffusionPipeline
        The pipeline, which is not changed.
    audio : path, array or tensor
        A clip of at most 10.24 s: a file, or samples at 16 kHz. It is normalised to a peak of 0.95.
    prompt : str
        Description of the clip.
    num_inference_steps : int, optional
        Number of equal steps over the whole schedule, for inversion and generation. More steps are more accurate.
        By default, the recommendation of the checkpoint, or 50.
    method : {"ddim", "negative-prompt"}
        Method of the generation. ``"ddim"`` uses guidance and negative prompt as given; with guidance above 1, the
        clip is not reconstructed. ``"negative-prompt"`` uses `prompt` as negative prompt, so that guidance has no
        effect on the source and the clip is reconstructed with any guidance.

    Returns
    -------
    InvertedClip

    Raises
    ------
    AudioError
        If the clip cannot be read, is too short for a spectrogram, or longer than 10.24 s.
    PromptError, AttnVizError
        If the prompt, method or number of steps is invalid. Everything is checked before any model runs.

    Warns
    -----
    InaudibleWarning, ClippingWarning
        If the clip, at its own level, is below -50 dBFS, or more than 10 ms of it are at full scale.

    Notes
    -----
    The inversion is that of `attnviz.explain`: conditional, without guidance, on the schedule of the model.

    Source: Song et al., Denoising Diffusion Implicit Models (arXiv 2010.02502); Miyake et al., Negative-prompt
    Inversion (arXiv 2305.16807).
    """
    if method not in ("ddim", "negative-prompt"):
        raise AttnVizError(f"method={method!r} is unknown; it is 'ddim' or 'negative-prompt'.")
    inputs.check_prompts([prompt])
    schedule = TrainingSchedule.of(pipe.scheduler)
    if num_inference_steps is None:
        num_inference_steps = pipe.recommended.value("num_inference_steps", "invert")
    steps = calls.check_steps(schedule.sampler(), num_inference_steps, {})
    waveform = load_audio(audio)
    clip = read_editable(waveform)
    warn_of_level(waveform)
    keys, _ = pipe.encode_prompt(prompt, pipe._execution_device, 1, False)

    def predict(samples: torch.Tensor, timestep: int) -> torch.Tensor:
        return pipe.unet(samples.to(pipe.unet.dtype), timestep, keys, return_dict=False)[0].float()

    last = (steps - 1) * (len(schedule) // steps)
    ((latents, _),) = Inversion((last,), steps).views(encode(pipe, clip.pixels), schedule, predict)
    if not bool(torch.isfinite(latents).all()):
        raise AttnVizError(
            f"The inversion is NaN or infinite in {pipe.unet.dtype}. In float16 this is an overflow: load with "
            "torch_dtype=torch.bfloat16 or torch.float32."
        )
    seconds = float(clip.grid.audio_seconds or clip.grid.seconds)
    return InvertedClip(latents.to(pipe.unet.dtype), prompt, steps, seconds, method)
