"""The command line's work: load, generate and trace, write; or examine."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import attnviz
from attnviz.api import load, trace
from attnviz.errors import AttnVizError, AttnVizWarning
from attnviz.maps import AttentionMaps
from attnviz.pipelines import AuffusionPipeline, checkpoints, inputs
from attnviz.runs import is_run, save_run
from attnviz.storage import check_free

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ModelChoice:
    """Which checkpoint, and where and how precisely it runs."""

    model: str
    revision: str | None = None
    offline: bool = False
    device: str | None = None
    precision: str = "float32"

    def load(self) -> AuffusionPipeline:
        """Load it onto its device.

        Raises
        ------
        CheckpointError
            If it cannot be loaded.
        AttnVizError
            On an unknown precision or device.
        """
        if self.precision not in DTYPES:
            raise AttnVizError(f"precision {self.precision!r} is unknown; it is one of {', '.join(DTYPES)}.")
        device = self._device()
        pipe = load(
            self.model,
            revision=self.revision,
            torch_dtype=DTYPES[self.precision],
            local_files_only=self.offline,
        )
        return pipe.to(device)

    def _device(self) -> torch.device:
        if self.device is None:
            best = torch.accelerator.current_accelerator(check_available=True)
            return best if best is not None else torch.device("cpu")
        try:
            device = torch.device(self.device)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise AttnVizError(f"device {self.device!r} cannot be used here: {error}") from error
        return device


@dataclass(frozen=True)
class Generation:
    """What is generated."""

    prompt: str
    steps: int = 50
    seed: int = 0
    guidance_scale: float = 7.5
    negative_prompt: str | None = None
    duration: float = 10.0
    keep: tuple[str, ...] = ()

    def run(self, pipe: AuffusionPipeline) -> tuple[np.ndarray, np.ndarray, AttentionMaps]:
        """Generate and trace; returns the waveform, its log-mel spectrogram and the maps."""
        with trace(pipe, keep=self.keep) as traced:  # type: ignore[arg-type]  # names are checked by trace
            audios, spectrograms, _ = pipe(
                self.prompt,
                num_inference_steps=self.steps,
                guidance_scale=self.guidance_scale,
                negative_prompt=self.negative_prompt,
                duration=self.duration,
                # On the CPU whatever the device, so that a seed means the same noise everywhere.
                generator=torch.Generator().manual_seed(self.seed),
                return_dict=False,
            )
        return audios[0], spectrograms[0], traced.maps


@dataclass(frozen=True)
class Written:
    """A run folder that was written."""

    folder: Path
    files: list[str]
    maps: AttentionMaps


def generate(
    request: Generation,
    *,
    model: ModelChoice,
    out: Path,
    special_tokens: bool,
    overwrite: bool,
    caught: Sequence[warnings.WarningMessage],
) -> Written:
    """Generate, trace and write a run folder.

    What can be refused without a model is refused before one is loaded.

    Raises
    ------
    AttnVizError
        On a bad request, checkpoint or output folder; nothing is written then.
    """
    inputs.check_prompts(request.prompt, request.negative_prompt)
    check_free(out, overwrite=overwrite, replaceable=is_run)
    pipe = model.load()
    audio, log_mel, maps = request.run(pipe)
    record = {
        "attnviz": attnviz.__version__,
        **asdict(request),
        "model": asdict(model),
        "warnings": [str(each.message) for each in caught if issubclass(each.category, AttnVizWarning)],
    }
    folder = save_run(out, audio, log_mel, maps, record, special_tokens=special_tokens, overwrite=overwrite)
    return Written(folder, sorted(path.name for path in folder.iterdir()), maps)


def examine(choice: ModelChoice) -> Iterator[tuple[str, str]]:
    """Examine a checkpoint, one finding after another.

    Yields
    ------
    check, found : str
        What was looked at, and what was found.

    Raises
    ------
    AttnVizError
        At the first thing that is wrong.
    """
    folder, commit = checkpoints.locate(choice.model, revision=choice.revision, local_files_only=choice.offline)
    yield "folder", str(folder)
    yield "commit", commit or "a local folder"
    yield "layout", checkpoints.layout(folder)
    yield "licence", licence(folder)
    pipe = choice.load()
    for name in ("conditioner", "text_encoder", "unet", "vae", "vocoder"):
        module = getattr(pipe, name)
        if module is not None:
            count = sum(parameter.numel() for parameter in module.parameters())
            yield name, f"{type(module).__name__}, {count / 1e6:.1f} M parameters"
    yield "scheduler", type(pipe.scheduler).__name__
    audio, _, maps = Generation("a dog barks", steps=2).run(pipe)
    yield "audio", f"{len(audio) / 16_000:g} s, peak {np.abs(audio).max():.3f}"
    yield "capture", f"{len(maps.layers)} cross-attention layers, {len(maps.timesteps)} denoiser calls"
    grids = sorted({maps[layer].shape[-2:] for layer in maps.layers}, reverse=True)
    yield "grids", ", ".join(f"{rows} x {columns}" for rows, columns in grids)


def licence(folder: Path) -> str:
    """Read a checkpoint's licence from its model card or LICENSE file."""
    card = folder / "README.md"
    if card.is_file():
        front = re.match(r"---\n(.*?)\n---", card.read_text("utf-8", errors="replace"), re.DOTALL)
        stated = re.search(r"^license(?:_name)?:\s*(\S+)", front.group(1), re.MULTILINE) if front else None
        if stated:
            return f"{stated.group(1)} (as README.md says)"
    for name in ("LICENSE", "LICENSE.md", "LICENSE.txt"):
        if (folder / name).is_file():
            lines = (folder / name).read_text("utf-8", errors="replace").strip().splitlines()
            return f"{lines[0].strip() if lines else 'empty file'} ({name})"
    index = folder / "model_index.json"
    if index.is_file():
        stated_name: Any = json.loads(index.read_text("utf-8")).get("license")
        if stated_name:
            return str(stated_name)
    return "not stated: no license in README.md, no LICENSE file. Ask its authors before you publish with it."
