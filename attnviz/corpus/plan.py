"""Plans: what a corpus run computes, read from TOML with strict checks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from attnviz.arguments import public, whole_number
from attnviz.errors import CorpusError
from attnviz.io.choices import check_precision
from attnviz.io.json_files import read_toml
from attnviz.io.paths import FilePath, checked_path
from attnviz.io.settings import plain, read_settings, refuse_unknown

TASKS = ("generate", "explain")
"""Tasks with a model of attnviz; any other is ``module:function`` (see `attnviz.corpus.tasks`)."""

MOST_CLIPS_PER_SHARD = 100_000
_MOST_THREADS = 1024
_MOST_COLUMNS = 1 << 20


@dataclass(frozen=True)
class ClipSource:
    """Files of the clips, relative to the plan.

    Parameters
    ----------
    list : str
        CSV or TSV file with a row per clip: ``caption``, and optionally ``clip`` (a unique name, needed for
        `explain`, where it is the path of the audio below `audio`) and ``seed``.
    audio : str or None
        Folder of the audio, for `explain`.
    events : str or None
        File of sound events, in a format with names of clips; see `attnviz.read_events`.
    """

    list: str
    audio: str | None = None
    events: str | None = None


@public
@dataclass(frozen=True)
class ModelSettings:
    """The model and where it runs; see `attnviz.load`. Without a checkpoint, it is the bundled model."""

    checkpoint: str | None = None
    revision: str | None = None
    device: str = "cpu"
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_precision(self.precision)


@public
@dataclass(frozen=True)
class GenerateSettings:
    """Settings of a generation; what is missing is what the checkpoint recommends."""

    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_interval: tuple[float, ...] | None = None
    negative_prompt: str | None = None
    duration: float = 10.0

    def __post_init__(self) -> None:
        if self.guidance_interval is not None and len(self.guidance_interval) != 2:
            raise CorpusError(
                f"generate.guidance_interval is {list(self.guidance_interval)}; two fractions of the schedule are "
                "needed, the lowest and the highest timestep with guidance."
            )


@dataclass(frozen=True)
class ExplainSettings:
    """Settings of `attnviz.explain`; what is missing has its default there."""

    method: Literal["attention", "value", "rollout"] = "attention"
    latents: Literal["noising", "inversion", "predicted"] = "noising"
    timesteps: tuple[int, ...] | None = None
    draws: int | None = None
    inversion_steps: int | None = None
    look_timestep: int | None = None
    overlap: float | None = None
    normalize: bool = True


@dataclass(frozen=True)
class ScoreSettings:
    """How maps are read and scored.

    Parameters
    ----------
    events : {"none", "file", "listener"}
        Truth of the scores: no scores, the file of events, or what the bundled listener hears in the clip.
    readout, pool : str
        See `AttentionMaps.heatmap`.
    """

    events: Literal["none", "file", "listener"] = "none"
    readout: str = "mean"
    pool: str = "mean"


@public
@dataclass(frozen=True)
class KeepSettings:
    """What is kept beside the tables.

    Parameters
    ----------
    activations : bool
        The activation of every phrase, which `Corpus.align` needs.
    columns : int
        Columns of the stored activations, at least those of the finest layer that is read. A clip with more fails.
    sample_every : int
        Clips `0`, `n`, `2 n`, ... keep their full maps and audio; 0 keeps none.
    """

    activations: bool = True
    columns: int = 128
    sample_every: int = 0

    def __post_init__(self) -> None:
        whole_number("keep.columns", self.columns, most=_MOST_COLUMNS, error=CorpusError)
        whole_number("keep.sample_every", self.sample_every, least=0, most=2**62, error=CorpusError)


@public
@dataclass(frozen=True)
class Plan:
    """What a corpus run computes.

    Parameters
    ----------
    task : str
        ``"generate"``, ``"explain"``, or ``"module:function"``, a function that makes a task
        (see `attnviz.corpus.tasks`).
    clips : ClipSource
    clips_per_shard : int
        Number of clips in a shard, the unit of work. It belongs to the plan, not to the workers.
    seed : int
        Seed of clip `i` is ``seed + i``, unless the list has a column ``seed``.
    threads : int
        CPU threads of a worker: they change the last bits of results, so they belong to the plan.
    model, generate, explain, score, keep
        See `ModelSettings`, `GenerateSettings`, `ExplainSettings`, `ScoreSettings` and `KeepSettings`.
    settings : mapping
        Settings of a task of one's own.
    folder : str
        Folder that the paths of `clips` are relative to. By default, the current one.
    """

    task: str
    clips: ClipSource
    clips_per_shard: int = 64
    seed: int = 0
    threads: int = 1
    model: ModelSettings = field(default_factory=ModelSettings)
    generate: GenerateSettings = field(default_factory=GenerateSettings)
    explain: ExplainSettings = field(default_factory=ExplainSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    keep: KeepSettings = field(default_factory=KeepSettings)
    settings: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""

    def __post_init__(self) -> None:
        whole_number("clips_per_shard", self.clips_per_shard, most=MOST_CLIPS_PER_SHARD, error=CorpusError)
        whole_number("seed", self.seed, least=0, most=2**62, error=CorpusError)
        whole_number("threads", self.threads, most=_MOST_THREADS, error=CorpusError)
        for name, kind in _TABLES.items():
            if not isinstance(getattr(self, name), kind):
                raise CorpusError(f"{name} is {getattr(self, name)!r:.80}; a {kind.__name__} is needed.")
        if not isinstance(self.folder, str):
            raise CorpusError(f"folder is {self.folder!r:.80}; a text is needed.")
        try:
            json.dumps(plain(self.settings), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise CorpusError(
                f"settings has what a plan cannot hold: {error}. Give numbers, texts and lists."
            ) from error
        module, _, function = self.task.partition(":")
        if self.task not in TASKS and not (module and function):
            raise CorpusError(
                f"task is {self.task!r}; it must be {', '.join(TASKS)}, or 'module:function' of one of your own."
            )
        if self.task in TASKS and self.settings:
            raise CorpusError(f"[settings] are those of a task of your own; {self.task} has [{self.task}].")
        if self.task == "explain" and self.clips.audio is None:
            raise CorpusError("clips.audio is missing: explain needs the folder of the audio.")
        if self.task == "generate" and self.clips.audio is not None:
            raise CorpusError("clips.audio is given, but generate makes its audio. Is task = 'explain' meant?")
        if self.score.events == "file" and self.clips.events is None:
            raise CorpusError("score.events is 'file', but clips.events names no file of events.")
        if self.score.events != "file" and self.clips.events is not None:
            raise CorpusError(
                f"clips.events is given, but score.events is {self.score.events!r}; set it to 'file' to score "
                "against them."
            )

    def path(self, name: str) -> Path:
        """Return the path of a file of the plan."""
        return Path(self.folder) / checked_path(name, "a path of the plan", CorpusError)

    @property
    def record(self) -> dict[str, Any]:
        """Settings as JSON values, without paths: what two runs of the same plan share."""
        kept = {name: value for name, value in plain(asdict(self)).items() if name not in ("clips", "folder")}
        return without_none(kept)


_TABLES = {
    "clips": ClipSource, "model": ModelSettings, "generate": GenerateSettings, "explain": ExplainSettings,
    "score": ScoreSettings, "keep": KeepSettings, "settings": Mapping,
}  # fmt: skip


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings without those that are None, which TOML does not have."""
    return {
        name: without_none(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if value is not None
    }


@public
def read_plan(path: FilePath) -> Plan:
    """Read a plan from a TOML file.

    Parameters
    ----------
    path : path-like
        TOML file with the fields of `Plan`; its tables are those of `ClipSource` and so on. Paths in it are
        relative to its folder.

    Returns
    -------
    Plan

    Raises
    ------
    CorpusError
        If the file is missing or not TOML, or has an unknown key (the message suggests the closest known one), a
        missing key or an invalid value.
    """
    place = checked_path(path, "the plan", CorpusError)
    values = read_toml(place, error=CorpusError)
    if "folder" in values:
        raise CorpusError(f"{place}: folder is not a setting; paths are relative to the plan's own folder.")
    known = [one.name for one in fields(Plan) if one.name != "folder"]
    try:
        refuse_unknown(values, known, "", error=CorpusError)
        return read_settings(Plan, {**values, "folder": str(place.resolve().parent)}, "", error=CorpusError)
    except CorpusError as problem:
        raise CorpusError(f"{place}: {problem}") from problem
