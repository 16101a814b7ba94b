"""Run the study: make the missing pieces by the corpus engine, and tabulate completed parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import pandas as pd
from harness import Model, Progress, Study
from harness.material import prompts
from harness.study import PIECES, timed

import attnviz
from alignment_parts.calibration import calibrate
from alignment_parts.known import known_answers
from alignment_parts.material import clip_items, scene_items
from alignment_parts.pieces import load_pieces
from alignment_parts.settings import GENERATION, WAYS, WEIGHTS, Settings
from alignment_parts.tables import Tables, alignments, look_tables
from alignment_parts.task import PATHS, chosen_for
from attnviz.corpus import ClipSource, Corpus, KeepSettings, ModelSettings, Plan, run_corpus
from attnviz.io.json_files import as_json
from attnviz.io.storage import write_whole

PARTS = ("readouts", "explain", WEIGHTS, GENERATION)
OUTPUTS = {
    "readouts": ("calibration", *WAYS, WEIGHTS, GENERATION, "known", "refused"),
    "explain": (*WAYS, "known", "refused"),
    WEIGHTS: (WEIGHTS,),
    GENERATION: (GENERATION,),
}
"""Tables and folders that each part writes, or that depend on it."""
DIGITS = 5


@dataclass(frozen=True)
class Source:
    """Origin of clips: a folder of ESC-10, from which scenes are composed, or events and a folder of audio."""

    esc10: Path | None = None
    events: Path | None = None
    audio: Path | None = None

    @property
    def real(self) -> bool:
        """Whether clips are real; these have no exact times and no other folds for fitting readouts."""
        return self.events is not None


class AlignmentStudy:
    """The parts of the study.

    The pieces of a part are a corpus in ``pieces/PART``: a shard a clip, so that an interrupted part continues,
    with any number of processes. Readouts are fitted here: a fit needs the maps of all clips by step and head at
    once.

    Parameters
    ----------
    study : Study
        Folder of the results.
    settings : Settings
    source : Source
    model : Model
    readout : path-like, optional
        Readout to score instead of a fitted one.
    processes : int
        Processes that make pieces, each with its own model.
    """

    def __init__(
        self,
        study: Study,
        settings: Settings,
        source: Source,
        model: Model,
        readout: Path | None = None,
        processes: int = 1,
    ) -> None:
        self.study, self.folder, self.settings, self.source = study, study.folder, settings, source
        self.model, self.readout, self.processes = model, readout, processes

    def run(self, parts: Sequence[str], ways: Sequence[str]) -> None:
        """Run the requested parts that are missing."""
        s = self.settings
        if "readouts" in parts:
            for way in ways:
                self.fit(way)
        if "explain" in parts:
            for way in ways:
                self.look(way, way, s.scenes)
        if WEIGHTS in parts:
            self.look(WEIGHTS, WAYS[0], s.weight_scenes)
        if GENERATION in parts and not self.source.real:
            self.look(GENERATION, WAYS[0], s.prompts * s.seeds)
        for look in (*ways, WEIGHTS, GENERATION):
            self.tabulate(look)
        self.known()

    def fit(self, way: str) -> None:
        """Fit the readouts of one method and choose its layer on another fold, unless there is one already."""
        place = self.folder / "calibration" / way
        if self.readout is None and not self.source.real and not (place / "readouts.csv").exists():
            s = self.settings
            with timed(f"readouts, {way}"):
                found = list(scene_items(self._esc10, s.choosing_fold, s.choosing_scenes, s))
                calibrate(self.model.pipe, found, way, s, place)

    def look(self, look: str, way: str, count: int) -> None:
        """Make the missing pieces of a part."""
        if self._tabulated(look):
            return
        self.fit(way)
        plan = self.plan(look, way, count)
        with timed(look):
            # A real clip is refused for good; a composed one fails by a fault, which may have been mended since.
            status = run_corpus(
                plan, self.folder / PIECES / look, workers=self.processes, progress=_shown(look),
                retry_failed=not self.source.real,
            )  # fmt: skip
        if status.clips_failed and not self.source.real:
            raise SystemExit(f"{look}: {status.clips_failed} of {status.clips} clips failed: {status.reasons}")

    def plan(self, look: str, way: str, count: int) -> Plan:
        """Write the clips of a part, and where its data are, and return its plan."""
        listed = pd.DataFrame(islice(self._captions(look), count), columns=["clip", "caption"])
        path = self.study.piece("plans", f"{look}.csv")
        write_whole(path, listed.to_csv(index=False).encode())
        source, chosen = self.source, None if self.source.real or self.readout else self.folder / "calibration"
        named = {"esc10": source.esc10, "events": source.events, "audio": source.audio, "readout": self.readout,
                 "calibration": chosen}  # fmt: skip
        paths = {name: None if one is None else str(Path(one).resolve()) for name, one in named.items()}
        write_whole(self.folder / PATHS, as_json(paths, PATHS))
        used = chosen_for(paths, way)
        settings = {
            "look": look, "way": way, "study": asdict(self.settings), "clips": _digest(source, self.settings.fold),
            "fitted": "" if used.fitted is None else used.fitted.name, "layer": used.layer or "",
        }  # fmt: skip
        return Plan(
            "alignment_parts.task:make",
            ClipSource(str(path.relative_to(self.folder))),
            clips_per_shard=1,
            model=ModelSettings(self.model.name, device=self.model.device),
            keep=KeepSettings(activations=False),
            settings=settings,
            folder=str(self.folder.resolve()),
        )

    def tabulate(self, look: str) -> None:
        """Write the tables of a part if its pieces are complete and the tables do not exist."""
        corpus = self.folder / PIECES / look
        if self._tabulated(look) or not (corpus / "corpus.json").exists():
            return
        if not Corpus(corpus).status().complete:
            return
        self._list_refused(look, Corpus(corpus))
        found = list(load_pieces(corpus))
        if not found:
            print(f"{look}: no clip could be scored; see refused.csv")
            return
        with timed(f"{look}, tables"):
            exact = not self.source.real and look in WAYS
            for name, table in reversed(look_tables(found, self.settings, exact=exact).items()):
                # The first table last, since it marks all as complete.
                self.study.write(f"{look}/{name}", table, DIGITS)

    def known(self) -> None:
        """Score maps with known answers on the phrases of the first available part."""
        way = next((way for way in WAYS if self._tabulated(way)), None)
        if way is not None and not self.study.has("known"):
            result = alignments(list(load_pieces(self.folder / PIECES / way)))["mean"]
            self.study.write("known", known_answers(result, self.settings.resamples), DIGITS)

    def _captions(self, look: str) -> Iterator[tuple[str, str]]:
        """Yield name and caption of the clips of a part."""
        s = self.settings
        if look == GENERATION:
            for number, prompt in enumerate(prompts(self._esc10, s.fold, s.prompts, s.seed)):
                yield from ((f"{number:04d}-{repeat}", prompt.text) for repeat in range(s.seeds))
        elif self.source.events is None or self.source.audio is None:
            count = s.weight_scenes if look == WEIGHTS else s.scenes
            yield from ((item.name, item.caption) for item in scene_items(self._esc10, s.fold, count, s))
        else:
            events = attnviz.read_events(self.source.events)
            for item in clip_items(events, self.source.audio, s):
                yield f"{item.name} {item.events['clip'].iloc[0]}", item.caption

    def _list_refused(self, look: str, corpus: Corpus) -> None:
        """List the clips of a part that could not be scored, with the reasons."""
        rows = corpus.table(["clip", "caption", "status", "reason"])
        rows = rows[rows["status"] == "failed"].assign(look=look)[["look", "clip", "caption", "reason"]]
        rows["clip"] = [name.partition(" ")[2] for name in rows["clip"]]  # as the events name it
        listed = self.folder / "refused.csv"
        before = pd.read_csv(listed, dtype=str) if listed.exists() else rows.iloc[:0]
        if len(rows):
            self.study.write("refused", pd.concat([before[before["look"] != look], rows], ignore_index=True))

    def _tabulated(self, look: str) -> bool:
        return (self.folder / look / "readouts.csv").exists()

    @property
    def _esc10(self) -> Path:
        if self.source.esc10 is None:
            raise SystemExit("Scenes and prompts are composed of ESC-10; give --data.")
        return self.source.esc10


def _shown(look: str) -> Callable[[int, int], None]:
    """Return a function of the numbers of finished shards and of all, which shows the progress of this run."""
    begun: list[Progress] = []

    def show(done: int, shards: int) -> None:
        if begun:
            begun[0].step()
        else:
            begun.append(Progress(look, shards - done))

    return show


def _digest(source: Source, fold: int) -> str:
    """Return a digest of the recordings of a fold, or of the events of real clips."""
    found = hashlib.sha256()
    paths = [source.events] if source.events is not None else sorted(Path(source.esc10 or "").rglob(f"{fold}-*"))
    for path in paths:
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def by_part(tables: Tables) -> dict[str, Tables]:
    """Return tables by part (or ``calibration/WAY``, or empty for the whole study) and name."""
    found: dict[str, Tables] = {}
    for place, table in tables.items():
        part, _, name = place.rpartition("/")
        found.setdefault(part, {})[name] = table
    return found
