"""Check a checkpoint: its files, its licence, and a short generation with capture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from attnviz import bundled
from attnviz.cli import family_job
from attnviz.cli.jobs import Generation, ModelChoice
from attnviz.errors import AttnVizError
from attnviz.io.json_files import parse_json
from attnviz.models.pipelines import checkpoints
from attnviz.models.pipelines.recommended import RecommendedSettings
from attnviz.models.pipelines.sampling import Sampling

_FRONT_MATTER = re.compile(r"\s*---[ \t]*\n(.*?\n)??---[ \t]*(?:\n|\Z)", re.DOTALL)


def examine(choice: ModelChoice) -> Iterator[tuple[str, str]]:
    """Check a checkpoint, one finding at a time.

    Yields
    ------
    check, found : str
        What was checked, and the finding.

    Raises
    ------
    AttnVizError
        At the first problem.
    """
    choice.settle()
    if (other := choice.published()) is not None:
        yield "folder", str(other.folder)
        yield "commit", other.commit or "a local folder"
        yield "layout", f"{other.kind.__module__.partition('.')[0]}, {other.class_name}"
        yield "licence", licence(other.folder)
        yield from family_job.examine(other, choice)
        return
    model = bundled.FOLDER if choice.model is None else choice.model
    folder, commit = checkpoints.locate(model, revision=choice.revision, local_files_only=choice.offline)
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
    if pipe.vocoder is None:
        yield "vocoder", "none: audio is reconstructed by Griffin-Lim"
    yield "scheduler", type(pipe.scheduler).__name__
    yield from recommendations(pipe.recommended)
    audio, _, maps = Generation("a dog barks", Sampling(2)).run(pipe)
    yield "audio", f"{len(audio) / 16_000:g} s, peak {np.abs(audio).max():.3f}"
    yield "capture", f"{len(maps.layers)} cross-attention layers, {len(maps.timesteps)} denoiser calls"
    grids = sorted({maps[layer].shape[-2:] for layer in maps.layers}, reverse=True)
    yield "grids", ", ".join(f"{rows} x {columns}" for rows, columns in grids)


def recommendations(recommended: RecommendedSettings) -> Iterator[tuple[str, str]]:
    """List the settings that a checkpoint recommends, one line per purpose."""
    if not recommended.of:
        yield "recommended", "nothing: the authors' settings are the defaults"
    for purpose, settings in recommended.of.items():
        yield f"recommended for {purpose}", ", ".join(f"{name} {value}" for name, value in settings.items())


def licence(folder: Path) -> str:
    """Read a checkpoint's licence from its model card, LICENSE file or model_index.json.

    A missing or malformed file is skipped.
    """
    if stated := _in_card(_text(folder / "README.md") or ""):
        return f"{stated} (from README.md)"
    for name in ("LICENSE", "LICENSE.md", "LICENSE.txt"):
        text = _text(folder / name)
        if text is not None:
            lines = text.strip().splitlines()
            return f"{lines[0].strip() if lines else 'empty file'} ({name})"
    if stated := _in_index(_text(folder / "model_index.json") or ""):
        return f"{stated} (from model_index.json)"
    return "not stated: no license in README.md, no LICENSE file. Ask its authors before you publish results."


def _in_card(card: str) -> str:
    """Return the licence in a model card's YAML front matter, or an empty string."""
    front = _FRONT_MATTER.match(card)
    try:
        stated: Any = yaml.safe_load(front.group(1) or "") if front else None
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: an invalid date
        return ""
    if not isinstance(stated, dict):
        return ""
    # "other" is the hub's value for a licence it does not list; license_name then names it.
    named = _joined(stated.get("license_name"))
    listed = _joined(stated.get("license"))
    return f"{named} (other)" if named and listed in ("", "other") else listed


def _in_index(index: str) -> str:
    try:
        stated = parse_json(index, "model_index.json")
    except AttnVizError:
        return ""
    return _joined(stated.get("license")) if isinstance(stated, dict) else ""


def _joined(value: object) -> str:
    """Join one value or a list of values into one line of text; empty if there is none."""
    values = value if isinstance(value, list) else [value]
    return ", ".join(" ".join(str(each).split()) for each in values if each is not None and str(each).strip())


def _text(path: Path) -> str | None:
    """Return a text file's content without its byte order mark, or None if the file cannot be read."""
    try:
        return path.read_text("utf-8-sig", errors="replace")
    except OSError:
        return None
