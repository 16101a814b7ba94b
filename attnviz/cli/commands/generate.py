"""``attnviz generate``: generate audio from a prompt, with a map of every word."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from attnviz.cli.commands.options import (
    Device,
    Guidance,
    GuidanceInterval,
    Keep,
    Model,
    Negative,
    Offline,
    Precision,
    ReplaceRun,
    Revision,
    RunFolder,
    Seed,
    SpecialTokens,
    Steps,
)
from attnviz.cli.commands.running import begun, written
from attnviz.cli.terminal import command, talk


@command
def generate(
    prompt: Annotated[str, typer.Argument(help="Description of the sound, for example 'a dog barks'.")],
    out: RunFolder,
    model: Model = None,
    num_inference_steps: Steps = None,
    seed: Seed = 0,
    guidance: Guidance = None,
    guidance_interval: GuidanceInterval = None,
    negative: Negative = None,
    duration: Annotated[float, typer.Option(help="Duration in seconds, at most 10.24.")] = 10.0,
    keep: Keep = None,
    special_tokens: SpecialTokens = False,
    revision: Revision = None,
    offline: Offline = False,
    device: Device = None,
    precision: Precision = "float32",
    overwrite: ReplaceRun = False,
) -> dict[str, Any]:
    """Generate audio from a prompt, with a map of every word on the spectrogram."""
    begun(out, overwrite=overwrite, precision=precision, keep=keep or ())
    from attnviz.cli import jobs

    sampling = jobs.Sampling(num_inference_steps, seed, guidance, negative, guidance_interval)
    request = jobs.Generation(prompt, sampling, duration, tuple(keep or ()))
    run = jobs.generate(
        request,
        model=jobs.ModelChoice(model, revision, offline, device, precision, progress=not talk().quiet),
        place=jobs.RunPlace(out, overwrite=overwrite, special_tokens=special_tokens),
        warned=talk().warned,
    )
    return written(run)
