"""Run the study: create missing pieces, and tabulate completed parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from harness import Model, Progress, Study
from harness.material import prompts
from harness.study import PIECES, timed

import attnviz
from alignment_parts.calibration import calibrate, chosen_by
from alignment_parts.known import known_answers
from alignment_parts.looking import Chosen, explain_piece, generation_piece, weights_piece
from alignment_parts.material import Item, clip_items, scene_items
from alignment_parts.pieces import Piece, is_there, load_pieces, save_piece
from alignment_parts.settings import GENERATION, WAYS, WEIGHTS, Settings
from alignment_parts.tables import Tables, alignments, look_tables
from attnviz.errors import AttnVizError
from attnviz.maps import FittedReadout

Make = Callable[[Any, Item, str, Settings, Chosen], Piece]
"""Create a piece from pipeline, clip, method, settings, and the readouts fitted for the method."""

PARTS = ("readouts", "explain", WEIGHTS, GENERATION)
OUTPUTS = {
    "readouts": ("calibration", *WAYS, WEIGHTS, GENERATION, "known", "refused"),
    "explain": (*WAYS, "known", "refused"),
    WEIGHTS: (WEIGHTS,),
    GENERATION: (GENERATION,),
}
"""Tables and folders that each part writes, or that depend on it."""
DIGITS = 5
ALL = "all"
"""Name of the file that marks all pieces of a part as complete."""


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

    Parameters
    ----------
    study : Study
        Folder of the results.
    settings : Settings
    source : Source
    model : Model
    readout : FittedReadout, optional
        Readout to score instead of a fitted one.
    """

    def __init__(
        self, study: Study, settings: Settings, source: Source, model: Model, readout: FittedReadout | None = None
    ) -> None:
        self.study, self.folder, self.settings, self.source = study, study.folder, settings, source
        self.model, self.readout = model, readout
        self._chosen: dict[str, Chosen] = {}

    def run(self, parts: Sequence[str], ways: Sequence[str]) -> None:
        """Run the requested parts that are missing."""
        s = self.settings
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

    def chosen(self, way: str) -> Chosen:
        """Return the readout and layer of one method, either given, or fitted and chosen on another fold."""
        if self.readout is not None or self.source.real:
            return Chosen(self.readout)
        if way not in self._chosen:
            place = self.folder / "calibration" / way
            if not (place / "readouts.csv").exists():
                s = self.settings
                with timed(f"readouts, {way}"):
                    found = list(scene_items(self._esc10, s.choosing_fold, s.choosing_scenes, s))
                    calibrate(self.model.pipe, found, way, s, place)
            self._chosen[way] = chosen_by(place)
        return self._chosen[way]

    def look(self, looks: Sequence[str], count: int, make: Make) -> None:
        """Create the missing pieces of some parts; each clip is composed or read only once."""
        open_looks = [look for look in looks if not self._place(look, ALL).exists()]
        if not open_looks:
            return
        ways = {look: look if look in WAYS else WAYS[0] for look in open_looks}
        progress = Progress(", ".join(open_looks), count)
        for item in self._items(count):
            for look, way in ways.items():
                path = self.study.piece(look, item.name)
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
        progress = Progress(GENERATION, s.prompts * s.seeds)
        for number, prompt in enumerate(prompts(self._esc10, s.fold, s.prompts, s.seed)):
            for repeat in range(s.seeds):
                path = self.study.piece(GENERATION, f"{number:04d}-{repeat}")
                if not is_there(path):
                    save_piece(path, generation_piece(self.model, prompt, number, repeat, s, chosen))
                progress.step()
        self._ready(GENERATION)

    def tabulate(self, look: str) -> None:
        """Write the tables of a part if its pieces are complete and the tables do not exist."""
        place = self.folder / look
        if not self._place(look, ALL).exists() or (place / "readouts.csv").exists():
            return
        found = list(load_pieces(self._place(look)))
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
        way = next((way for way in WAYS if (self.folder / way / "readouts.csv").exists()), None)
        if way is not None and not self.study.has("known"):
            result = alignments(list(load_pieces(self._place(way))))["mean"]
            self.study.write("known", known_answers(result, self.settings.resamples), DIGITS)

    def _items(self, count: int) -> Any:
        if self.source.events is None or self.source.audio is None:
            return scene_items(self._esc10, self.settings.fold, count, self.settings)
        events = attnviz.read_events(self.source.events)
        return clip_items(events, self.source.audio, self.settings)[:count]

    def _make(self, path: Path, item: Item, look: str, way: str, make: Make) -> None:
        """Create one piece; a real clip that cannot be scored is listed with the reason."""
        try:
            save_piece(path, make(self.model.pipe, item, way, self.settings, self.chosen(way)))
        except AttnVizError as error:
            if not self.source.real:
                raise
            clip = str(item.events["clip"].iloc[0])
            row = {"look": look, "clip": clip, "caption": item.caption, "reason": str(error)}
            listed = self.folder / "refused.csv"
            # Refused clips are tried again when the study continues.
            before = pd.read_csv(listed) if listed.exists() else pd.DataFrame()
            rows = pd.concat([before, pd.DataFrame([row])], ignore_index=True)
            self.study.write("refused", rows.drop_duplicates(["look", "clip", "caption"], keep="last"))

    @property
    def _esc10(self) -> Path:
        if self.source.esc10 is None:
            raise SystemExit("Scenes and prompts are composed of ESC-10; give --data.")
        return self.source.esc10

    def _place(self, look: str, name: str = "") -> Path:
        return self.folder / PIECES / look / name

    def _ready(self, look: str) -> None:
        self.study.piece(look, ALL).touch()


def by_part(tables: Tables) -> dict[str, Tables]:
    """Return tables by part (or ``calibration/WAY``, or empty for the whole study) and name."""
    found: dict[str, Tables] = {}
    for place, table in tables.items():
        part, _, name = place.rpartition("/")
        found.setdefault(part, {})[name] = table
    return found
