"""The work of the commands: load, generate and trace, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import attnviz
from attnviz.api import load, trace
from attnviz.audio import MEL
from attnviz.audio.levels import loudest_level
from attnviz.errors import AttnVizError, CheckpointError, PromptError
from attnviz.io.choices import PRECISIONS, check_axes, check_precision
from attnviz.io.storage import check_free
from attnviz.maps import AttentionMaps
from attnviz.models.pipelines import AuffusionPipeline, calls, inputs
from attnviz.models.pipelines.mixin import DEFAULT_SECONDS
from attnviz.models.pipelines.published import Published, find_published
from attnviz.models.pipelines.recommended import RecommendedSettings
from attnviz.models.pipelines.sampling import Sampling
from attnviz.report.run_folder import RUN, save_run
from attnviz.text.words import split_words
from attnviz.tracing.keys import token_table

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in PRECISIONS}
WIDTH = 1024
"""Width of a generated spectrogram in columns."""


@dataclass(frozen=True)
class ModelChoice:
    """A checkpoint, its device and precision, and whether to show progress."""

    model: str | None = None
    revision: str | None = None
    offline: bool = False
    device: str | None = None
    precision: str = "float32"
    progress: bool = True

    @property
    def record(self) -> dict[str, Any]:
        """Entries for ``run.json``."""
        return {name: value for name, value in asdict(self).items() if name != "progress"}

    def settle(self) -> tuple[torch.device, torch.dtype]:
        """Determine device and dtype, before anything is loaded.

        Raises
        ------
        AttnVizError
            If the precision is unknown, or the device cannot compute in it.
        """
        check_precision(self.precision)
        dtype = DTYPES[self.precision]
        if self.device is None:
            best = torch.accelerator.current_accelerator(check_available=True)
            return best if best is not None else torch.device("cpu"), dtype
        try:
            device = torch.device(self.device)
            if device.type == "cpu" and device.index:  # PyTorch takes any index for the processor
                raise AttnVizError(f"device {self.device!r} does not exist: the processor is one device, 'cpu'.")
            # Compute and read back: "meta" makes tensors too, and some backends fail only at the first operation.
            computed = (torch.ones(2, device=device, dtype=dtype) + 1).cpu()
        except (RuntimeError, AssertionError, ImportError, AttributeError, TypeError) as error:
            raise AttnVizError(
                f"device {self.device!r} cannot compute in {self.precision} here: {_first_line(error)} Known "
                "devices are 'cpu', 'cuda', 'cuda:1', 'mps', ...; omit --device for the best available one."
            ) from error
        if not bool((computed == 2).all()):
            raise AttnVizError(f"device {self.device!r} computes 1 + 1 = {computed[0]}; it cannot be used.")
        return device, dtype

    def published(self) -> Published | None:
        """Find a checkpoint of a family other than Auffusion's, as `find_published` does."""
        if self.model is None:
            return None
        return find_published(self.model, revision=self.revision, local_files_only=self.offline)

    def load(self) -> AuffusionPipeline:
        """Load an Auffusion checkpoint onto its device.

        Raises
        ------
        CheckpointError
            If the checkpoint cannot be loaded, or is of another family.
        AttnVizError
            If the precision or device is unknown.
        """
        device, dtype = self.settle()
        if (other := self.published()) is not None:
            raise CheckpointError(
                f"{self.model} names the class {other.class_name}, which only attnviz generate, explain and "
                "doctor take; this command needs an Auffusion checkpoint."
            )
        pipe = load(self.model, revision=self.revision, torch_dtype=dtype, local_files_only=self.offline)
        pipe.set_progress_bar_config(disable=not self.progress)
        return pipe.to(device)


@dataclass(frozen=True)
class Generation:
    """Settings of a generation."""

    prompt: str
    sampling: Sampling = field(default_factory=Sampling)
    duration: float = 10.0
    keep: tuple[str, ...] = ()
    method: str = "attention"
    settings_from: Mapping[str, str] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """Entries for ``run.json``."""
        return {
            "prompt": self.prompt,
            **asdict(self.sampling),
            "duration": self.duration,
            "keep": self.keep,
            "method": self.method,
            "settings_from": dict(self.settings_from),
        }

    def settled(self, recommended: RecommendedSettings) -> Generation:
        """Return the same settings with missing values taken from a checkpoint's recommendations."""
        settings_from = recommended.origins(self.sampling.recommendable)
        return replace(self, sampling=self.sampling.settled(recommended), settings_from=settings_from)

    def check(self) -> None:
        """Check the settings that need no model.

        Raises
        ------
        AttnVizError
            With the value and the allowed values.
        """
        check_prompt(self.prompt, self.sampling.negative_prompt)
        self.sampling.check()
        inputs.check_duration(self.duration, WIDTH, DEFAULT_SECONDS)
        check_axes(self.keep)

    def check_fit(self, pipe: AuffusionPipeline) -> None:
        """Check whether this model supports the settings, before it runs.

        Raises
        ------
        AttnVizError
            If the scheduler does not support the number of steps.
        PromptError
            If no word has a token, so that there is nothing to map.
        """
        calls.check_steps(pipe.scheduler, self.sampling.call["num_inference_steps"], {})
        check_mappable(pipe, self.prompt)

    def run(self, pipe: AuffusionPipeline) -> tuple[np.ndarray, np.ndarray, AttentionMaps]:
        """Generate and trace; return the waveform, its log-mel spectrogram and the maps."""
        with trace(pipe, keep=self.keep, method=self.method) as traced:  # type: ignore[arg-type]  # checked by trace
            audios, spectrograms, _ = pipe(
                self.prompt, duration=self.duration, return_dict=False, **self.sampling.call
            )
        return audios[0], spectrograms[0], traced.maps


@dataclass(frozen=True)
class Written:
    """A run folder that was written, with the level of each of its audio files in dBFS (loudest 0.4 s)."""

    folder: Path
    files: list[str]
    maps: AttentionMaps
    levels: dict[str, float]


@dataclass(frozen=True)
class RunPlace:
    """A run folder to write; parameters as in `attnviz.report.run_folder.save_run`."""

    out: Path
    overwrite: bool
    special_tokens: bool = False
    readout: str = "mean"

    def check(self) -> None:
        """Check the output folder before the long work begins.

        Raises
        ------
        OutputError
            If the folder cannot be written, or exists and may not be replaced.
        """
        check_free(self.out, overwrite=self.overwrite, kind=RUN)

    def write(
        self,
        audio: np.ndarray,
        log_mel: np.ndarray | None,
        maps: AttentionMaps,
        record: Mapping[str, Any],
        *,
        model: ModelChoice,
        warned: Sequence[str],
        source: np.ndarray | None = None,
        sampling_rate: int = MEL.sampling_rate,
        **further: Any,
    ) -> Written:
        """Write the run folder.

        Parameters
        ----------
        audio, log_mel, maps, sampling_rate, **further
            As in `attnviz.report.run_folder.save_run`.
        record : mapping
            Settings of the run.
        model : ModelChoice
            The checkpoint.
        warned : sequence of str
            Warnings issued so far.
        source : numpy.ndarray, shape (samples,), optional
            Waveform of ``source.wav``, which a function `beside` writes.

        Raises
        ------
        OutputError
            As in `attnviz.report.run_folder.save_run`.
        """
        sounds = {"audio.wav": audio} if source is None else {"source.wav": source, "audio.wav": audio}
        levels = {
            file: round(loudest_level(sound if sound.ndim == 1 else sound.mean(axis=1), sampling_rate), 2)
            for file, sound in sounds.items()
        }
        whole = {
            "attnviz": attnviz.__version__,
            **record,
            "model": model.record,
            "levels_dbfs": levels,
            "warnings": list(warned),
        }
        folder = save_run(
            self.out,
            audio,
            log_mel,
            maps,
            whole,
            sampling_rate=sampling_rate,
            special_tokens=self.special_tokens,
            readout=self.readout,
            overwrite=self.overwrite,
            **further,
        )
        return Written(folder, sorted(path.name for path in folder.iterdir()), maps, levels)


def generate(
    request: Generation,
    *,
    model: ModelChoice,
    place: RunPlace,
    warned: Sequence[str] = (),
) -> Written:
    """Generate, trace and write a run folder.

    Everything that can be checked without a model is checked before one is loaded.

    Parameters
    ----------
    request, model
        Settings of the generation, and the checkpoint.
    place : RunPlace
        Run folder to write.
    warned : sequence of str
        Warnings issued so far, read when the run is written.

    Raises
    ------
    AttnVizError
        If the request, checkpoint or output folder is invalid; nothing is written then.
    """
    request.check()
    model.settle()
    place.check()
    pipe = model.load()
    request = request.settled(pipe.recommended)
    request.check_fit(pipe)
    return place.write(*request.run(pipe), request.record, model=model, warned=warned)


def check_prompt(prompt: str, negative_prompt: str | None = None) -> None:
    """Raise if a prompt cannot be mapped, or a text cannot be encoded.

    Raises
    ------
    PromptError
        If a text is not UTF-8, or the prompt is empty or has no word.
    """
    inputs.check_prompts(prompt, negative_prompt)
    for name, text in (("prompt", prompt), ("negative prompt", negative_prompt or "")):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise PromptError(
                f"The {name} {text!a} contains bytes that are not UTF-8 text. Does the terminal, or the file it "
                "was read from, use another encoding?"
            )
    if not split_words(prompt):
        raise PromptError(
            f"The prompt {prompt!r} has no word, only punctuation, so there is nothing to map. Describe a sound, "
            "for example 'a dog barks'."
        )


def check_mappable(pipe: AuffusionPipeline, prompt: str) -> None:
    """Raise if no word of a prompt has a token, so that there is nothing to map.

    Raises
    ------
    PromptError
        With the prompt.
    """
    if not token_table(pipe, prompt).kept_words:
        raise PromptError(
            f"No word of the prompt {prompt!r} has a token, so there is nothing to map: the tokenizer drops its "
            "characters. Was the model trained on another alphabet?"
        )


def _first_line(error: BaseException) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if text.endswith((".", "!", "?")) else f"{text}."
