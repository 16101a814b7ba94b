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
    complete,
)
from attnviz.cli.commands.running import begun, written
from attnviz.cli.terminal import command, talk
from attnviz.io.choices import RECORDED, check_method


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
    duration: Annotated[
        float | None,
        typer.Option(
            help="Duration in seconds; Auffusion: at most 10.24, default: 10; other models: their own default."
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help=f"What the maps hold: {', '.join(RECORDED)}; see attnviz explain for other methods.",
            autocompletion=complete(*RECORDED),
        ),
    ] = "attention",
    keep: Keep = None,
    special_tokens: SpecialTokens = False,
    revision: Revision = None,
    offline: Offline = False,
    device: Device = None,
    precision: Precision = "float32",
    overwrite: ReplaceRun = False,
) -> dict[str, Any]:
    """Generate audio from a prompt, and a map of every word."""
    check_method(method, RECORDED)
    begun(
        out,
        overwrite=overwrite,
        precision=precision,
        model=model,
        keep=keep or (),
        prompts=(prompt,),
        duration=duration,
    )
    from attnviz.cli import family_job, jobs
    from attnviz.models.pipelines.mixin import DEFAULT_SECONDS

    sampling = jobs.Sampling(num_inference_steps, seed, guidance, negative, guidance_interval)
    choice = jobs.ModelChoice(model, revision, offline, device, precision, progress=not talk().quiet)
    place = jobs.RunPlace(out, overwrite=overwrite, special_tokens=special_tokens)
    axes = tuple(keep or ())
    asked = family_job.FamilyGeneration(prompt, sampling, duration, axes, method=method)
    asked.check()
    choice.settle()
    place.check()
    published = choice.published()
    if published is not None:
        return written(family_job.generate(asked, published, model=choice, place=place, warned=talk().warned))
    seconds = DEFAULT_SECONDS if duration is None else duration
    request = jobs.Generation(prompt, sampling, seconds, axes, method=method)
    return written(jobs.generate(request, model=choice, place=place, warned=talk().warned))
