"""Running the study: pieces that are not yet there are made, and looks whose pieces are all there tabulated."""

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
"""Makes a piece: from the pipeline, a clip, a way to look, the settings, and what was fitted for that way."""

PARTS = ("readouts", "explain", WEIGHTS, GENERATION)
PIECES = "pieces"
ALL = "all"
"""Name of the file that says that all pieces of a look are there."""


@dataclass(frozen=True)
class Source:
    """Where clips come from: a folder of ESC-10, of which scenes are composed, or events and a folder of audio."""

    esc10: str | None = None
    events: Path | None = None
    audio: Path | None = None

    @property
    def real(self) -> bool:
        """Whether clips are real ones, which bring neither exact times nor other folds to fit readouts on."""
        return self.events is not None


class Study:
    """One study in one folder.

    Parameters
    ----------
    folder : pathlib.Path
    settings : Settings
    source : Source
    load : callable
        Loads the pipeline, when it is first needed.
    trained : TrainedListener
        Hears generated audio.
    readout : FittedReadout, optional
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
        """Make what is asked for and not yet there."""
        s = self.settings
        (self.folder / PIECES).mkdir(exist_ok=True)
        # Large, and made anew from the settings: not to be committed.
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
        """Return the readout and layer of one way to look: given, or fitted and chosen on another fold."""
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
        """Make the pieces of some looks that are not there; each clip is composed, or read, once for all."""
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
        """Generate the prompts that are not there, seed by seed."""
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
        """Write the tables of a look whose pieces are all there, unless that was done."""
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
            write_table(place / f"{name}.csv", table)  # the first table last: it says that all are there
        print(f"{look}, tables: {time.perf_counter() - start:.0f} s", flush=True)

    def known(self) -> None:
        """Score maps with known answers on the phrases of the first look that there is."""
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
        """Make one piece; a real clip that cannot be scored is listed with the reason, and ends nothing."""
        try:
            save_piece(path, make(self.pipe, item, way, self.settings, self.chosen(way)))
        except AttnVizError as error:
            if not self.source.real:
                raise
            clip = str(item.events["clip"].iloc[0])
            row = {"look": look, "clip": clip, "caption": item.caption, "reason": str(error)}
            listed = self.folder / "refused.csv"
            # A study that goes on tries refused clips again.
            before = pd.read_csv(listed) if listed.exists() else pd.DataFrame()
            rows = pd.concat([before, pd.DataFrame([row])], ignore_index=True)
            write_table(listed, rows.drop_duplicates(["look", "clip", "caption"], keep="last"))

    def _place(self, look: str, name: str = "") -> Path:
        return self.folder / PIECES / look / name

    def _ready(self, look: str) -> None:
        self._place(look).mkdir(parents=True, exist_ok=True)
        self._place(look, ALL).touch()


class _Progress:
    """Says how far a look is, and how long it will take."""

    def __init__(self, what: str, count: int) -> None:
        self.what, self.count, self.done, self.start = what, count, 0, time.perf_counter()

    def step(self) -> None:
        self.done += 1
        passed = time.perf_counter() - self.start
        left = max(passed / self.done * (self.count - self.done), 0.0)
        line = f"\r{self.what}: {self.done} of {self.count}, {passed:.0f} s, about {left:.0f} s left   "
        print(line, end="" if self.done < self.count else "\n", file=sys.stderr, flush=True)


def read_tables(folder: Path) -> dict[str, Tables]:
    """Read all tables: look, or ``calibration/WAY``, or nothing for the study's own, then name."""
    tables: dict[str, Tables] = {}
    for path in sorted(folder.rglob("*.csv")):
        place = path.parent.relative_to(folder).as_posix()
        if path.relative_to(folder).parts[0] != PIECES:
            tables.setdefault("" if place == "." else place, {})[path.stem] = pd.read_csv(path)
    return tables


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table whole, five digits of each number."""
    write_whole(path, table.to_csv(index=False, float_format="%.5g").encode())
