"""The command line's work: load, generate and trace, write."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import attnviz
from attnviz.api import load, trace
from attnviz.errors import AttnVizError, CaptureError, PromptError
from attnviz.io.storage import check_free
from attnviz.keys import token_table
from attnviz.maps import AttentionMaps
from attnviz.pipelines import AuffusionPipeline, calls, inputs
from attnviz.pipelines.mixin import DEFAULT_SECONDS
from attnviz.pipelines.recommended import RecommendedSettings
from attnviz.pipelines.sampling import Sampling
from attnviz.runs import RUN, save_run
from attnviz.text.words import split_words

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WIDTH = 1024
"""Columns of a generated spectrogram."""


@dataclass(frozen=True)
class ModelChoice:
    """Which checkpoint, where and how precisely it runs, and whether its progress is shown."""

    model: str | None = None
    revision: str | None = None
    offline: bool = False
    device: str | None = None
    precision: str = "float32"
    progress: bool = True

    @property
    def record(self) -> dict[str, Any]:
        """What ``run.json`` says of it."""
        return {name: value for name, value in asdict(self).items() if name != "progress"}

    def settle(self) -> tuple[torch.device, torch.dtype]:
        """Settle on which device and in which precision it runs, before anything is loaded.

        Raises
        ------
        AttnVizError
            On an unknown precision, or a device that cannot compute in it.
        """
        if self.precision not in DTYPES:
            raise AttnVizError(f"precision {self.precision!r} is unknown; it is one of {', '.join(DTYPES)}.")
        dtype = DTYPES[self.precision]
        if self.device is None:
            best = torch.accelerator.current_accelerator(check_available=True)
            return best if best is not None else torch.device("cpu"), dtype
        try:
            device = torch.device(self.device)
            # Computed and read back: "meta" makes tensors too, and some backends only fail at their first sum.
            computed = (torch.ones(2, device=device, dtype=dtype) + 1).cpu()
        except (RuntimeError, AssertionError, ImportError, AttributeError, TypeError) as error:
            raise AttnVizError(
                f"device {self.device!r} cannot compute in {self.precision} here: {_first_line(error)} A device "
                "is 'cpu', 'cuda', 'cuda:1', 'mps', ...; leave --device out for the best there is."
            ) from error
        if not bool((computed == 2).all()):
            raise AttnVizError(f"device {self.device!r} computes 1 + 1 = {computed[0]}; it cannot be used.")
        return device, dtype

    def load(self) -> AuffusionPipeline:
        """Load it onto its device.

        Raises
        ------
        CheckpointError
            If it cannot be loaded.
        AttnVizError
            On an unknown precision or device.
        """
        device, dtype = self.settle()
        pipe = load(self.model, revision=self.revision, torch_dtype=dtype, local_files_only=self.offline)
        pipe.set_progress_bar_config(disable=not self.progress)
        return pipe.to(device)


@dataclass(frozen=True)
class Generation:
    """What is generated."""

    prompt: str
    sampling: Sampling = field(default_factory=Sampling)
    duration: float = 10.0
    keep: tuple[str, ...] = ()
    settings_from: Mapping[str, str] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """What ``run.json`` says of it."""
        return {
            "prompt": self.prompt,
            **asdict(self.sampling),
            "duration": self.duration,
            "keep": self.keep,
            "settings_from": dict(self.settings_from),
        }

    def settled(self, recommended: RecommendedSettings) -> Generation:
        """Return the same with what was left out as a checkpoint recommends it."""
        settings_from = recommended.origins(self.sampling.recommendable)
        return replace(self, sampling=self.sampling.settled(recommended), settings_from=settings_from)

    def check(self) -> None:
        """Refuse what can be refused without a model.

        Raises
        ------
        AttnVizError
            Naming what was given and what is allowed.
        """
        check_prompt(self.prompt, self.sampling.negative_prompt)
        self.sampling.check()
        inputs.check_duration(self.duration, WIDTH, DEFAULT_SECONDS)
        check_axes(self.keep)

    def check_fit(self, pipe: AuffusionPipeline) -> None:
        """Refuse what this model cannot do, before it runs.

        Raises
        ------
        AttnVizError
            If the scheduler cannot make so many steps.
        PromptError
            If no word has a token, so that there would be nothing to map.
        """
        calls.check_steps(pipe.scheduler, self.sampling.call["num_inference_steps"], {})
        check_mappable(pipe, self.prompt)

    def run(self, pipe: AuffusionPipeline) -> tuple[np.ndarray, np.ndarray, AttentionMaps]:
        """Generate and trace; returns the waveform, its log-mel spectrogram and the maps."""
        with trace(pipe, keep=self.keep) as traced:  # type: ignore[arg-type]  # names are checked by trace
            audios, spectrograms, _ = pipe(
                self.prompt, duration=self.duration, return_dict=False, **self.sampling.call
            )
        return audios[0], spectrograms[0], traced.maps


@dataclass(frozen=True)
class Written:
    """A run folder that was written."""

    folder: Path
    files: list[str]
    maps: AttentionMaps


@dataclass(frozen=True)
class RunPlace:
    """Where a run folder is to be; the others as for `attnviz.runs.save_run`."""

    out: Path
    overwrite: bool
    special_tokens: bool = False
    readout: str = "mean"

    def check(self) -> None:
        """Refuse the place before the long work begins.

        Raises
        ------
        OutputError
            If the folder cannot be written, or is there and may not be replaced.
        """
        check_free(self.out, overwrite=self.overwrite, kind=RUN)

    def write(
        self,
        audio: np.ndarray,
        log_mel: np.ndarray,
        maps: AttentionMaps,
        record: Mapping[str, Any],
        *,
        model: ModelChoice,
        warned: Sequence[str],
        **further: Any,
    ) -> Written:
        """Write the run folder.

        Parameters
        ----------
        audio, log_mel, maps, **further
            As for `attnviz.runs.save_run`.
        record : mapping
            What was asked for.
        model : ModelChoice
            By which checkpoint.
        warned : sequence of str
            Warnings given so far.

        Raises
        ------
        OutputError
            As `attnviz.runs.save_run`.
        """
        whole = {"attnviz": attnviz.__version__, **record, "model": model.record, "warnings": list(warned)}
        folder = save_run(
            self.out,
            audio,
            log_mel,
            maps,
            whole,
            special_tokens=self.special_tokens,
            readout=self.readout,
            overwrite=self.overwrite,
            **further,
        )
        return Written(folder, sorted(path.name for path in folder.iterdir()), maps)


def generate(
    request: Generation,
    *,
    model: ModelChoice,
    place: RunPlace,
    warned: Sequence[str] = (),
) -> Written:
    """Generate, trace and write a run folder.

    What can be refused without a model is refused before one is loaded.

    Parameters
    ----------
    request, model
        What is generated, and by which checkpoint.
    place : RunPlace
        Run folder to write.
    warned : sequence of str
        Warnings given so far, read when the run is written.

    Raises
    ------
    AttnVizError
        On a bad request, checkpoint or output folder; nothing is written then.
    """
    request.check()
    model.settle()
    place.check()
    pipe = model.load()
    request = request.settled(pipe.recommended)
    request.check_fit(pipe)
    return place.write(*request.run(pipe), request.record, model=model, warned=warned)


def check_prompt(prompt: str, negative_prompt: str | None = None) -> None:
    """Refuse a prompt that cannot be mapped, or a text that no encoder reads.

    Raises
    ------
    PromptError
        If one is empty or not UTF-8, or the prompt has no word.
    """
    inputs.check_prompts(prompt, negative_prompt)
    for name, text in (("prompt", prompt), ("negative prompt", negative_prompt or "")):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise PromptError(
                f"The {name} {text!a} holds bytes that are not UTF-8 text. Is the terminal, or the file "
                "it was read from, in another encoding?"
            )
    if not split_words(prompt):
        raise PromptError(
            f"The prompt {prompt!r} has no word, only punctuation, so there is nothing to map; a few "
            "words are expected, for example 'a dog barks'."
        )


def check_axes(keep: Collection[str]) -> None:
    """Refuse an axis to keep other than step and head.

    Raises
    ------
    CaptureError
        Naming the two.
    """
    if unknown := sorted(set(keep) - {"step", "head"}):
        raise CaptureError(f"keep={', '.join(unknown)} is no axis of the maps; keep step, head, or both.")


def check_mappable(pipe: AuffusionPipeline, prompt: str) -> None:
    """Refuse a prompt of which no word has a token of its own, so that there would be nothing to map.

    Raises
    ------
    PromptError
        Saying so.
    """
    if not token_table(pipe, prompt).kept_words:
        raise PromptError(
            f"No word of the prompt {prompt!r} has a token of its own, so there is nothing to map. The "
            "tokenizer drops its characters; are they letters that the model was trained on?"
        )


def _first_line(error: BaseException) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if text.endswith((".", "!", "?")) else f"{text}."
