"""The digest of a plan: two runs with equal digests compute the same results."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attnviz
from attnviz import bundled
from attnviz.corpus.clips import PlannedClip
from attnviz.corpus.plan import TASKS, Plan
from attnviz.errors import CorpusError

FORMAT = 2
"""Version of the files of a corpus."""

_LIBRARIES = ("diffusers", "numpy", "safetensors", "scipy", "torch", "transformers")
_OF_MODEL = (".json", ".txt", ".model", ".safetensors", ".bin", ".pt")


def described(plan: Plan, clips: Iterable[PlannedClip]) -> dict[str, Any]:
    """Return what a plan's results depend on: settings, model, clips and versions.

    Raises
    ------
    CorpusError, CheckpointError
        If the model, or a task of one's own, cannot be found.
    """
    rows = hashlib.sha256()
    for clip in clips:
        facts = [clip.clip, clip.caption, clip.seed, clip.sha256, clip.events]
        rows.update(json.dumps(facts, ensure_ascii=False).encode("utf-8", "backslashreplace"))
    return {
        "format": FORMAT,
        "plan": plan.record,
        "model": _model_digest(plan),
        "clips_digest": rows.hexdigest(),
        "versions": {"attnviz": attnviz.__version__, **{name: _version(name) for name in _LIBRARIES}},
    }


def digest_of(description: dict[str, Any]) -> str:
    """Return the digest of a description, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _model_digest(plan: Plan) -> dict[str, str]:
    """Return digests of the files that act: weights and configurations, or the source of a task."""
    if plan.task not in TASKS:
        return {"task": _source_digest(plan.task)}
    found = {"checkpoint": _folder_digest(_checkpoint(plan))}
    if plan.score.events == "listener":
        found["listener"] = _folder_digest(bundled.FOLDER / "listener")
    return found


def _checkpoint(plan: Plan) -> Path:
    if plan.model.checkpoint is None:
        return bundled.FOLDER
    folder = plan.path(plan.model.checkpoint)
    if folder.is_dir():
        return folder
    from attnviz.models.pipelines.checkpoints import locate  # imports PyTorch

    return locate(plan.model.checkpoint, revision=plan.model.revision)[0]


def _folder_digest(folder: Path) -> str:
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.suffix in _OF_MODEL and path.is_file():
            with path.open("rb") as file:
                lines.append(
                    f"{path.relative_to(folder).as_posix()} {hashlib.file_digest(file, 'sha256').hexdigest()}\n"
                )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _source_digest(task: str) -> str:
    module = task.partition(":")[0]
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise CorpusError(f"task {task!r}: the module {module!r} cannot be found: {error}.") from error
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise CorpusError(f"task {task!r}: there is no module {module!r} in a file. Is its folder on PYTHONPATH?")
    return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()
