"""``attnviz edit``: words swapped, added and re-weighted; parts of a clip drawn anew; a clip in another style."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnviz.commands.options import (
    Device,
    Guidance,
    GuidanceInterval,
    Model,
    Negative,
    Offline,
    Precision,
    ReplaceRun,
    Revision,
    RunFolder,
    Seed,
    Steps,
)
from attnviz.commands.running import begun, written
from attnviz.terminal import command, talk

if TYPE_CHECKING:
    from attnviz.editing.requests import EditRequest
    from attnviz.pipelines.sampling import Sampling

edit = typer.Typer(no_args_is_help=True, help="Edit through attention: swap, refine, reweight, inpaint, style.")

Duration = Annotated[float | None, typer.Option(help="Seconds of audio, at most 10.24; 10, or the clip's.")]
Weights = Annotated[
    list[str] | None,
    typer.Option("--weight", "-w", help="WORD=FACTOR, also several times; WORD#1 is its second occurrence."),
]
CrossSteps = Annotated[
    list[str] | None,
    typer.Option(
        help="Fraction of the steps with the source's cross-attention, or WORD=FRACTION; what the checkpoint "
        "recommends if left out."
    ),
]
SelfSteps = Annotated[
    float | None,
    typer.Option(
        help="Fraction of the steps with the source's self-attention; what the checkpoint recommends if left out."
    ),
]
Blend = Annotated[
    bool | None,
    typer.Option(
        "--blend/--no-blend",
        help="Keep the source where the edited words are not attended to; what the checkpoint recommends if left "
        "out.",
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        help="Share of the noise schedule that is run, up to 1; what the checkpoint recommends if left out."
    ),
]
Clip = Annotated[
    Path | None, typer.Option(help="Real clip to edit, of which the source prompt says what is heard.")
]


_Choice = tuple[str | None, str | None, bool, str | None, str]  # model, revision, offline, device, precision


class Inversion(StrEnum):
    """How a real clip is generated again."""

    NEGATIVE_PROMPT = "negative-prompt"
    DDIM = "ddim"


Inverted = Annotated[Inversion, typer.Option(help="With a clip: how it is generated again.")]


@edit.command()
@command
def swap(
    source: Annotated[str, typer.Argument(help="Prompt, for example 'a dog barks'.")],
    target: Annotated[str, typer.Argument(help="The same with other words in place of some: 'a cat meows'.")],
    out: RunFolder,
    weight: Weights = None,
    cross_steps: CrossSteps = None,
    self_steps: SelfSteps = None,
    blend: Blend = None,
    clip: Clip = None,
    inversion: Inverted = Inversion.NEGATIVE_PROMPT,
    num_inference_steps: Steps = None,
    seed: Seed = 0,
    guidance: Guidance = None,
    guidance_interval: GuidanceInterval = None,
    negative: Negative = None,
    duration: Duration = None,
    model: Model = None,
    revision: Revision = None,
    offline: Offline = False,
    device: Device = None,
    precision: Precision = "float32",
    overwrite: ReplaceRun = False,
) -> dict[str, Any]:
    """Put other words in place of some, and keep when and where each sounds."""
    return _run(
        lambda: _prompt_edit(
            ("swap", source, target), weight, cross_steps, self_steps, blend,
            _sampling(num_inference_steps, seed, guidance, negative, guidance_interval),
            duration=duration, clip=clip, inversion=inversion.value,
        ),
        (model, revision, offline, device, precision), out, overwrite,
    )  # fmt: skip


@edit.command()
@command
def refine(
    source: Annotated[str, typer.Argument(help="Prompt, for example 'a dog barks'.")],
    target: Annotated[str, typer.Argument(help="The same with words added: 'a big dog barks loudly'.")],
    out: RunFolder,
    weight: Weights = None,
    cross_steps: CrossSteps = None,
    self_steps: SelfSteps = None,
    blend: Blend = None,
    clip: Clip = None,
    inversion: Inverted = Inversion.NEGATIVE_PROMPT,
    num_inference_steps: Steps = None,
    seed: Seed = 0,
    guidance: Guidance = None,
    guidance_interval: GuidanceInterval = None,
    negative: Negative = None,
    duration: Duration = None,
    model: Model = None,
    revision: Revision = None,
    offline: Offline = False,
    device: Device = None,
    precision: Precision = "float32",
    overwrite: ReplaceRun = False,
) -> dict[str, Any]:
    """Add words to a prompt, and keep when and where the others sound."""
    return _run(
        lambda: _prompt_edit(
            ("refine", source, target), weight, cross_steps, self_steps, blend,
            _sampling(num_inference_steps, seed, guidance, negative, guidance_interval),
            duration=duration, clip=clip, inversion=inversion.value,
        ),
        (model, revision, offline, device, precision), out, overwrite,
    )  # fmt: skip


@edit.command()
@command
def reweight(
    prompt: Annotated[str, typer.Argument(help="Prompt, for example 'a dog barks while rain falls'.")],
    out: RunFolder,
    weight: Weights = None,
    cross_steps: CrossSteps = None,
    self_steps: SelfSteps = None,
    blend: Blend = None,
    clip: Clip = None,
    inversion: Inverted = Inversion.NEGATIVE_PROMPT,
    num_inference_steps: Steps = None,
    seed: Seed = 0,
    guidance: Guidance = None,
    guidance_interval: GuidanceInterval = None,
    negative: Negative = None,
    duration: Duration = None,
    model: Model = None,
    revision: Revision = None,
    offline: Offline = False,
    device: Device = None,
    precision: Precision = "float32",
    overwrite: ReplaceRun = False,
) -> dict[str, Any]:
    """Make words louder or softer: 1 changes nothing, 0 takes a word's attention away, below 0 turns it round."""
    return _run(
        lambda: _prompt_edit(
            ("reweight", prompt, prompt), weight, cross_steps, self_steps, blend,
            _sampling(num_inference_steps, seed, guidance, negative, guidance_interval),
            duration=duration, clip=clip, inversion=inversion.value,
        ),
        (model, revision, offline, device, precision), out, overwrite,
    )  # fmt: skip


@edit.command()
@command
def inpaint(
    clip: Annotated[Path, typer.Argument(help="Audio file: WAV, FLAC or OGG; its first 10.24 s are taken.")],
    prompt: Annotated[str, typer.Argument(help="What is to be heard in the part that is drawn anew.")],
    out: RunFolder,
    span: Annotated[tuple[float, float] | None, typer.Option(help="Start and end in seconds.")] = None,
    band: Annotated[tuple[float, float] | None, typer.Option(help="Lowest and highest frequency in Hz.")] = None,
    strength: Strength = None,
    num_inference_steps: Steps = None,
    seed: Seed = 0,
    guidance: Guidance = None,
    guidance_interval: GuidanceInterval = None,
    negative: Negative = None,
    model: Model = None,
    revision: Revision = None,
    offline: Offline = False,
    device: Device = None,
    precision: Precision = "float32",
    overwrite: ReplaceRun = False,
) -> dict[str, Any]:
    """Draw a span of a clip, a band of it, or the box of both anew; the rest stays the original waveform."""

    def request() -> EditRequest:
        from attnviz.editing.requests import ClipEditRequest

        how = _sampling(num_inference_steps, seed, guidance, negative, guidance_interval)
        return ClipEditRequest(clip, prompt, how, strength, span, band, inpaint=True)

    return _run(request, (model, revision, offline, device, precision), out, overwrite)


@edit.command()
@command
def style(
    clip: Annotated[Path, typer.Argument(help="Audio file: WAV, FLAC or OGG; its first 10.24 s are taken.")],
    prompt: Annotated[str, typer.Argument(help="What is to be heard.")],
    out: RunFolder,
    strength: Strength = None,
    num_inference_steps: Steps = None,
    seed: Seed = 0,
    guidance: Guidance = None,
    guidance_interval: GuidanceInterval = None,
    negative: Negative = None,
    model: Model = None,
    revision: Revision = None,
    offline: Offline = False,
    device: Device = None,
    precision: Precision = "float32",
    overwrite: ReplaceRun = False,
) -> dict[str, Any]:
    """Turn a clip towards a prompt."""

    def request() -> EditRequest:
        from attnviz.editing.requests import ClipEditRequest

        return ClipEditRequest(
            clip, prompt, _sampling(num_inference_steps, seed, guidance, negative, guidance_interval), strength
        )

    return _run(request, (model, revision, offline, device, precision), out, overwrite)


def _run(
    request: Callable[[], EditRequest],
    model: _Choice,
    out: Path,
    overwrite: bool,
) -> dict[str, Any]:
    begun(out, overwrite=overwrite)
    from attnviz import jobs
    from attnviz.editing.run import edit_to_run

    choice = jobs.ModelChoice(*model, progress=not talk().quiet)
    place = jobs.RunPlace(out, overwrite=overwrite)
    return written(edit_to_run(request(), model=choice, place=place, warned=talk().warned))


def _sampling(*given: Any) -> Sampling:
    from attnviz.pipelines.sampling import Sampling

    return Sampling(*given)


def _prompt_edit(
    prompts: tuple[Any, str, str],
    weights: list[str] | None,
    cross_steps: list[str] | None,
    self_steps: float | None,
    blend: bool | None,
    sampling: Sampling,
    **rest: Any,
) -> EditRequest:
    from attnviz.editing import PromptEdit
    from attnviz.editing.requests import PromptEditRequest

    kind, source, target = prompts
    settings: dict[str, Any] = {"self_replace_steps": self_steps, "blend": blend}
    if cross_steps:
        settings["cross_replace_steps"] = numbers_of_words("--cross-steps", cross_steps, alone=True)
    factors: Mapping[Any, float] = numbers_of_words("--weight", weights or [], alone=False)
    if kind == "reweight":
        change = PromptEdit.reweighting(source, factors, **settings)
    else:
        change = PromptEdit(kind, source, target, factors, **settings)
    return PromptEditRequest(change, sampling, **rest)


def numbers_of_words(option: str, given: list[str], *, alone: bool) -> dict[Any, float]:
    """Read ``WORD=NUMBER``, ``WORD#OCCURRENCE=NUMBER`` and, where it may stand alone, ``NUMBER``.

    Raises
    ------
    AttnVizError
        If one is none of these, or a word is given twice.

    Examples
    --------
    >>> numbers_of_words("--weight", ["rain=2", "dog#1=-1.5"], alone=False)
    {'rain': 2.0, ('dog', 1): -1.5}
    >>> numbers_of_words("--cross-steps", ["0.8", "rain=0.4"], alone=True)
    {None: 0.8, 'rain': 0.4}
    """
    from attnviz.errors import AttnVizError

    numbers: dict[Any, float] = {}
    for text in given:
        word, equals, number = text.rpartition("=")
        value = _number(number)
        if value is None or not (word if equals else alone):
            forms = "WORD=NUMBER, WORD#OCCURRENCE=NUMBER" + (" or NUMBER" if alone else "")
            raise AttnVizError(f"{option} {text!r} is not {forms}, for example 'rain=0.5'.")
        name, hash_sign, occurrence = word.rpartition("#")
        key: Any = (name, int(occurrence)) if hash_sign and occurrence.isdecimal() else word or None
        if key in numbers:
            raise AttnVizError(f"{option} is given twice for {word or 'all words'}.")
        numbers[key] = value
    return numbers


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
