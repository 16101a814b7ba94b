"""Run the study: create missing pieces, and tabulate completed parts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from bundled_parts.material import prompts

import attnviz
from alignment_parts.calibration import calibrate, chosen_by
from alignment_parts.known import known_answers
from alignment_parts.looking import Chosen, explain_piece, generation_piece, weights_piece
from alignment_parts.material import Item, clip_items, scene_items
from alignment_parts.pieces import Piece, is_there, load_pieces, save_piece
from alignment_parts.settings import GENERATION, WAYS, WEIGHTS, Settings
from alignment_parts.tables import Tables, alignments, look_tables
from attnviz.errors import AttnVizError
from attnviz.io.storage import write_whole
from attnviz.maps import FittedReadout
from attnviz.sounds.listener_folder import TrainedListener

Make = Callable[[Any, Item, str, Settings, Chosen], Piece]
"""Create a piece from pipeline, clip, method, settings, and the readouts fitted for the method."""

PARTS = ("readouts", "explain", WEIGHTS, GENERATION)
PIECES = "pieces"
ALL = "all"
"""Name of the file that marks all pieces of a part as complete."""


@dataclass(frozen=True)
class Source:
    """Origin of clips: a folder of ESC-10, from which scenes are composed, or events and a folder of audio."""

    esc10: str | None = None
    events: Path | None = None
    audio: Path | None = None

    @property
    def real(self) -> bool:
        """Whether clips are real; these have no exact times and no other folds for fitting readouts."""
        return self.events is not None


class Study:
    """A study in a folder.

    Parameters
    ----------
    folder : pathlib.Path
    settings : Settings
    source : Source
    load : callable
        Function that loads the pipeline on first use.
    trained : TrainedListener
        Listener for generated audio.
    readout : FittedReadout, optional
        Readout to score instead of a fitted one.
        Scored in place of one that is fitted here.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        source: Source,
        load: Callable[[], Any],
        trained: TrainedListener,
        readout: FittedReadout | None = None,
    ) -> None:
        self.folder, self.settings, self.source = folder, settings, source
        self.trained, self.readout = trained, readout
        self._load, self._pipe = load, None
        self._chosen: dict[str, Chosen] = {}

    def run(self, parts: Sequence[str], ways: Sequence[str]) -> None:
        """Run the requested parts that are missing."""
        s = self.settings
        (self.folder / PIECES).mkdir(exist_ok=True)
        # Large and reproducible from the settings, so excluded from git.
        (self.folder / PIECES / ".gitignore").write_text("*\n", encoding="utf-8")
        if "readouts" in parts:
            for way in ways:
                self.chosen(way)
        if "explain" in parts:
            self.look(list(ways), s.scenes, explain_piece)
        if WEIGHTS in parts:
            self.look([WEIGHTS], s.weight_scenes, weights_piece)
        if GENERATION in parts and not self.source.real:
            self.generate()
        for look in (*ways, WEIGHTS, GENERATION):
            self.tabulate(look)
        self.known()

    @property
    def pipe(self) -> Any:
        """The pipeline."""
        if self._pipe is None:
            self._pipe = self._load()
        return self._pipe

    def chosen(self, way: str) -> Chosen:
        """Return the readout and layer of one method, either given, or fitted and chosen on another fold."""
        if self.readout is not None or self.source.real:
            return Chosen(self.readout)
        if way not in self._chosen:
            place = self.folder / "calibration" / way
            if not (place / "readouts.csv").exists():
                s, start = self.settings, time.perf_counter()
                found = list(scene_items(str(self.source.esc10), s.choosing_fold, s.choosing_scenes, s))
                calibrate(self.pipe, found, way, s, place)
                print(f"readouts, {way}: {time.perf_counter() - start:.0f} s", flush=True)
            self._chosen[way] = chosen_by(place)
        return self._chosen[way]

    def look(self, looks: Sequence[str], count: int, make: Make) -> None:
        """Create the missing pieces of some parts; each clip is composed or read only once."""
        open_looks = [look for look in looks if not self._place(look, ALL).exists()]
        if not open_looks:
            return
        ways = {look: look if look in WAYS else WAYS[0] for look in open_looks}
        progress = _Progress(", ".join(open_looks), count)
        for item in self._items(count):
            for look, way in ways.items():
                path = self._place(look, item.name)
                if not is_there(path):
                    self._make(path, item, look, way, make)
            progress.step()
        for look in open_looks:
            self._ready(look)

    def generate(self) -> None:
        """Generate the missing prompts for each seed."""
        if self._place(GENERATION, ALL).exists():
            return
        s, chosen = self.settings, self.chosen(WAYS[0])
        progress = _Progress(GENERATION, s.prompts * s.seeds)
        for number, prompt in enumerate(prompts(str(self.source.esc10), s.fold, s.prompts, s.seed)):
            for repeat in range(s.seeds):
                path = self._place(GENERATION, f"{number:04d}-{repeat}")
                if not is_there(path):
                    save_piece(path, generation_piece(self.pipe, self.trained, prompt, number, repeat, s, chosen))
                progress.step()
        self._ready(GENERATION)

    def tabulate(self, look: str) -> None:
        """Write the tables of a part if its pieces are complete and the tables do not exist."""
        place = self.folder / look
        if not self._place(look, ALL).exists() or (place / "readouts.csv").exists():
            return
        start = time.perf_counter()
        found = list(load_pieces(self._place(look)))
        if not found:
            print(f"{look}: no clip could be scored; see refused.csv")
            return
        place.mkdir(parents=True, exist_ok=True)
        exact = not self.source.real and look in WAYS
        for name, table in reversed(look_tables(found, self.settings, exact=exact).items()):
            write_table(place / f"{name}.csv", table)  # the first table last, since it marks all as complete
        print(f"{look}, tables: {time.perf_counter() - start:.0f} s", flush=True)

    def known(self) -> None:
        """Score maps with known answers on the phrases of the first available part."""
        place = self.folder / "known.csv"
        way = next((way for way in WAYS if (self.folder / way / "readouts.csv").exists()), None)
        if way is not None and not place.exists():
            result = alignments(list(load_pieces(self._place(way))))["mean"]
            write_table(place, known_answers(result, self.settings.resamples))

    def _items(self, count: int) -> Any:
        if self.source.events is None or self.source.audio is None:
            return scene_items(str(self.source.esc10), self.settings.fold, count, self.settings)
        events = attnviz.read_events(self.source.events)
        return clip_items(events, self.source.audio, self.settings)[:count]

    def _make(self, path: Path, item: Item, look: str, way: str, make: Make) -> None:
        """Create one piece; a real clip that cannot be scored is listed with the reason."""
        try:
            save_piece(path, make(self.pipe, item, way, self.settings, self.chosen(way)))
        except AttnVizError as error:
            if not self.source.real:
                raise
            clip = str(item.events["clip"].iloc[0])
            row = {"look": look, "clip": clip, "caption": item.caption, "reason": str(error)}
            listed = self.folder / "refused.csv"
            # Refused clips are tried again when the study continues.
            before = pd.read_csv(listed) if listed.exists() else pd.DataFrame()
            rows = pd.concat([before, pd.DataFrame([row])], ignore_index=True)
            write_table(listed, rows.drop_duplicates(["look", "clip", "caption"], keep="last"))

    def _place(self, look: str, name: str = "") -> Path:
        return self.folder / PIECES / look / name

    def _ready(self, look: str) -> None:
        self._place(look).mkdir(parents=True, exist_ok=True)
        self._place(look, ALL).touch()


class _Progress:
    """Show the progress of a part and the remaining time."""

    def __init__(self, what: str, count: int) -> None:
        self.what, self.count, self.done, self.start = what, count, 0, time.perf_counter()

    def step(self) -> None:
        self.done += 1
        passed = time.perf_counter() - self.start
        left = max(passed / self.done * (self.count - self.done), 0.0)
        line = f"\r{self.what}: {self.done} of {self.count}, {passed:.0f} s, about {left:.0f} s left   "
        print(line, end="" if self.done < self.count else "\n", file=sys.stderr, flush=True)


def read_tables(folder: Path) -> dict[str, Tables]:
    """Read all tables by part (or ``calibration/WAY``, or empty for the whole study) and name."""
    tables: dict[str, Tables] = {}
    for path in sorted(folder.rglob("*.csv")):
        place = path.parent.relative_to(folder).as_posix()
        if path.relative_to(folder).parts[0] != PIECES:
            tables.setdefault("" if place == "." else place, {})[path.stem] = pd.read_csv(path)
    return tables


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table atomically, with five digits per number."""
    write_whole(path, table.to_csv(index=False, float_format="%.5g").encode())
