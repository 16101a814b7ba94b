"""The task of the corpus engine: make the piece of one clip of a part of the study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Model
from harness.material import prompts

import attnviz
from alignment_parts.calibration import chosen_by
from alignment_parts.looking import Chosen, explain_piece, generation_piece, weights_piece
from alignment_parts.material import Item, clip_items, scene_item
from alignment_parts.pieces import Piece, piece_files
from alignment_parts.settings import GENERATION, WEIGHTS, Settings
from attnviz.corpus import ClipResult, Plan, PlannedClip
from attnviz.io.json_files import read_json
from attnviz.io.settings import read_settings
from attnviz.maps import FittedReadout

PATHS = "pieces/paths.json"
"""Paths on this machine, which are no settings of the plan: data, readout, and folders of fitted readouts."""


def make(plan: Plan) -> Callable[[PlannedClip], ClipResult]:
    """Return the task of a plan with ``task = "alignment_parts.task:make"``."""
    settings = read_settings(Settings, plan.settings["study"], "settings.study.")
    look, way = plan.settings["look"], plan.settings["way"]
    paths = read_json(plan.path(PATHS))
    model = Model(plan.model.checkpoint, device=plan.model.device)
    chosen = chosen_for(paths, way)
    if look == GENERATION:
        wanted = prompts(paths["esc10"], settings.fold, settings.prompts, settings.seed)

        def piece_of(index: int) -> Piece:
            number, repeat = divmod(index, settings.seeds)
            return generation_piece(model, wanted[number], number, repeat, settings, chosen)

    else:
        explained = weights_piece if look == WEIGHTS else explain_piece
        item_of = items_of(paths, settings)

        def piece_of(index: int) -> Piece:
            return explained(model.pipe, item_of(index), way, settings, chosen)

    def task(clip: PlannedClip) -> ClipResult:
        piece = piece_of(clip.index)
        return ClipResult(piece.phrases["mean"], True, files=piece_files(piece))

    return task


def items_of(paths: dict[str, Any], settings: Settings) -> Callable[[int], Item]:
    """Return a function that composes or reads the clip of a number."""
    if paths["esc10"] is not None:
        return scene_item(Path(paths["esc10"]), settings.fold, settings)
    found = clip_items(attnviz.read_events(paths["events"]), Path(paths["audio"]), settings)
    return found.__getitem__


def chosen_for(paths: dict[str, Any], way: str) -> Chosen:
    """Return the readout and layer of one method: given, fitted on another fold, or none for real clips."""
    if paths["readout"] is not None:
        return Chosen(FittedReadout.load(paths["readout"]))
    folder = paths["calibration"]
    return Chosen() if folder is None else chosen_by(Path(folder) / way)
