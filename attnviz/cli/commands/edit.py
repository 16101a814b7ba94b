"""``attnviz edit``: swap, add and reweight words; regenerate a part of a clip; change a clip's style."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnviz.cli.commands.options import (
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
from attnviz.cli.commands.running import begun, written
from attnviz.cli.terminal import before_command, command, talk
from attnviz.errors import AttnVizError

if TYPE_CHECKING:
    from attnviz.cli.edit_requests import EditRequest
    from attnviz.models.pipelines.sampling import Sampling

edit = typer.Typer(
    no_args_is_help=True,
    callback=before_command,
    help="Edit through attention: swap, refine, reweight, inpaint, style.",
)

Duration = Annotated[
    float | None, typer.Option(help="Duration in seconds, at most 10.24; default: 10, or the clip's.")
]
Weights = Annotated[
    list[str] | None,
    typer.Option("--weight", "-w", help="WORD=FACTOR, repeatable; WORD#1 is the second occurrence of a word."),
]
CrossSteps = Annotated[
    list[str] | None,
    typer.Option(
        help="Fraction of the steps that use the source's cross-attention, or WORD=FRACTION; default: the "
        "checkpoint's recommendation."
    ),
]
SelfSteps = Annotated[
    float | None,
    typer.Option(
        help="Fraction of the steps that use the source's self-attention; default: the checkpoint's "
        "recommendation."
    ),
]
Blend = Annotated[
    bool | None,
    typer.Option(
        "--blend/--no-blend",
        help="Keep the source where the edited words have no attention; default: the checkpoint's recommendation.",
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        help="Fraction of the noise schedule to run, at most 1; default: the checkpoint's recommendation."
    ),
]
Clip = Annotated[
    Path | None,
    typer.Option(
        help="Real clip to edit; the source prompt describes it. The model gets it scaled to a peak of 0.95, and "
        "the edit is at that level."
    ),
]


Numbers = dict[Any, float]
_Choice = tuple[str | None, str | None, bool, str | None, str]  # model, revision, offline, device, precision


class Inversion(StrEnum):
    """How a real clip is reconstructed."""

    NEGATIVE_PROMPT = "negative-prompt"
    DDIM = "ddim"


Inverted = Annotated[Inversion, typer.Option(help="How to reconstruct the clip, with --clip.")]


@edit.command()
@command
def swap(
    source: Annotated[str, typer.Argument(help="Prompt, for example 'a dog barks'.")],
    target: Annotated[str, typer.Argument(help="The prompt with some words replaced: 'a cat meows'.")],
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
    """Replace words of a prompt, and keep the timing of each sound."""
    factors, fractions = _numbers(weight, cross_steps)
    return _run(
        lambda: _prompt_edit(
            ("swap", source, target), factors, fractions, self_steps, blend,
            _sampling(num_inference_steps, seed, guidance, negative, guidance_interval),
            duration=duration, clip=clip, inversion=inversion.value,
        ),
        (model, revision, offline, device, precision), out, overwrite, clip,
    )  # fmt: skip


@edit.command()
@command
def refine(
    source: Annotated[str, typer.Argument(help="Prompt, for example 'a dog barks'.")],
    target: Annotated[str, typer.Argument(help="The prompt with added words: 'a big dog barks loudly'.")],
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
    """Add words to a prompt, and keep the timing of the other sounds."""
    factors, fractions = _numbers(weight, cross_steps)
    return _run(
        lambda: _prompt_edit(
            ("refine", source, target), factors, fractions, self_steps, blend,
            _sampling(num_inference_steps, seed, guidance, negative, guidance_interval),
            duration=duration, clip=clip, inversion=inversion.value,
        ),
        (model, revision, offline, device, precision), out, overwrite, clip,
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
    """Scale the attention of words.

    A weight of 1 changes nothing, 0 removes the attention of a word, and a negative weight inverts it.
    """
    factors, fractions = _numbers(weight, cross_steps)
    if not factors:
        raise AttnVizError("No word has a weight: give one or more with --weight, for example --weight rain=2.")
    return _run(
        lambda: _prompt_edit(
            ("reweight", prompt, prompt), factors, fractions, self_steps, blend,
            _sampling(num_inference_steps, seed, guidance, negative, guidance_interval),
            duration=duration, clip=clip, inversion=inversion.value,
        ),
        (model, revision, offline, device, precision), out, overwrite, clip,
    )  # fmt: skip


@edit.command()
@command
def inpaint(
    clip: Annotated[
        Path, typer.Argument(help="Audio file, such as WAV, FLAC, OGG or MP3; the first 10.24 s are used.")
    ],
    prompt: Annotated[str, typer.Argument(help="Description of the sound in the regenerated part.")],
    out: RunFolder,
    span: Annotated[tuple[float, float] | None, typer.Option(help="Start and end in seconds.")] = None,
    band: Annotated[tuple[float, float] | None, typer.Option(help="Lowest and highest frequency in Hz.")] = None,
    context: Annotated[
        float | None,
        typer.Option(
            help="Seconds of the clip at either side that the model sees, inf for all; what the checkpoint "
            "recommends if left out."
        ),
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(
            "--normalize/--own-level",
            help="Show the model the clip scaled to a peak of 0.95, or at its own level; what the checkpoint "
            "recommends if left out.",
        ),
    ] = None,
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
    """Regenerate a time span or a frequency band of a clip.

    With both, only the span of the band is regenerated. The rest keeps its waveform.
    """

    def request() -> EditRequest:
        from attnviz.cli.edit_requests import ClipEditRequest

        how = _sampling(num_inference_steps, seed, guidance, negative, guidance_interval)
        return ClipEditRequest(
            clip, prompt, how, strength, span, band, inpaint=True, context=context, normalize=normalize
        )

    return _run(request, (model, revision, offline, device, precision), out, overwrite, clip)


@edit.command()
@command
def style(
    clip: Annotated[
        Path,
        typer.Argument(
            help="Audio file, such as WAV, FLAC, OGG or MP3; the first 10.24 s are used. The model gets it scaled "
            "to a peak of 0.95, and the edit is at that level."
        ),
    ],
    prompt: Annotated[str, typer.Argument(help="Description of the new sound.")],
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
    """Change a clip towards a prompt."""

    def request() -> EditRequest:
        from attnviz.cli.edit_requests import ClipEditRequest

        return ClipEditRequest(
            clip, prompt, _sampling(num_inference_steps, seed, guidance, negative, guidance_interval), strength
        )

    return _run(request, (model, revision, offline, device, precision), out, overwrite, clip)


def _run(
    request: Callable[[], EditRequest],
    model: _Choice,
    out: Path,
    overwrite: bool,
    clip: Path | None,
) -> dict[str, Any]:
    begun(out, overwrite=overwrite, precision=model[-1], model=model[0], clip=clip)
    from attnviz.cli import jobs
    from attnviz.cli.edit_job import edit_to_run

    choice = jobs.ModelChoice(*model, progress=not talk().quiet)
    place = jobs.RunPlace(out, overwrite=overwrite)
    return written(edit_to_run(request(), model=choice, place=place, warned=talk().warned))


def _sampling(*given: Any) -> Sampling:
    from attnviz.models.pipelines.sampling import Sampling

    return Sampling(*given)


def _numbers(
    weights: list[str] | None, cross_steps: list[str] | None
) -> tuple[dict[Any, float], dict[Any, float]]:
    """Parse ``--weight`` and ``--cross-steps``, before slow imports."""
    return (
        numbers_of_words("--weight", weights or [], alone=False),
        numbers_of_words("--cross-steps", cross_steps or [], alone=True),
    )


def _prompt_edit(
    prompts: tuple[Any, str, str],
    factors: Numbers,
    fractions: Numbers,
    self_steps: float | None,
    blend: bool | None,
    sampling: Sampling,
    **rest: Any,
) -> EditRequest:
    from attnviz.cli.edit_requests import PromptEditRequest
    from attnviz.editing import PromptEdit

    kind, source, target = prompts
    settings: dict[str, Any] = {"self_replace_steps": self_steps, "blend": blend}
    if fractions:
        settings["cross_replace_steps"] = fractions
    if kind == "reweight":
        change = PromptEdit.reweighting(source, factors, **settings)
    else:
        change = PromptEdit(kind, source, target, factors, **settings)
    return PromptEditRequest(change, sampling, **rest)


def numbers_of_words(option: str, given: list[str], *, alone: bool) -> dict[Any, float]:
    """Parse ``WORD=NUMBER``, ``WORD#OCCURRENCE=NUMBER`` and, if `alone`, ``NUMBER``.

    Raises
    ------
    AttnVizError
        If a text has another form, or a word is given twice.

    Examples
    --------
    >>> numbers_of_words("--weight", ["rain=2", "dog#1=-1.5"], alone=False)
    {'rain': 2.0, ('dog', 1): -1.5}
    >>> numbers_of_words("--cross-steps", ["0.8", "rain=0.4"], alone=True)
    {None: 0.8, 'rain': 0.4}
    """
    numbers: dict[Any, float] = {}
    for text in given:
        word, equals, number = text.rpartition("=")
        value = _number(number)
        if value is None or not (word if equals else alone):
            if word and equals:
                raise AttnVizError(
                    f"{option} {text!r}: {number!r} is not a number. Expected, for example, {word}=0.5."
                )
            example = f"{text}=0.5" if text and not equals and _number(text) is None else "rain=0.5"
            forms = "WORD=NUMBER or WORD#OCCURRENCE=NUMBER" + (", or NUMBER for all words" if alone else "")
            raise AttnVizError(f"{option} {text!r}: expected {forms}, for example {example}.")
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
