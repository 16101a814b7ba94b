"""Choice of readout, exponent and refinement on the choosing folds."""

from __future__ import annotations

from typing import Any

import pandas as pd

from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps
from attnviz.maps.sharing import NEIGHBOURHOODS, refined, relative_logarithms, shares
from attnviz.sounds import Scene
from solo_parts.material import explained, two_sounds
from solo_parts.separating import improvements
from solo_parts.settings import KINDS, Settings

READOUTS = ("mean", "auffusion", "fitted")
EXPONENTS = (8.0, 16.0, 32.0)
REFINEMENTS = {"none": (), "near": NEIGHBOURHOODS[:1], "column": NEIGHBOURHOODS[1:], "both": NEIGHBOURHOODS}


def choose(pipe: Any, settings: Settings) -> pd.DataFrame:
    """Return the mean SI-SDR improvement of every setting on scenes of the choosing folds."""
    rows = []
    for fold in settings.choosing_folds:
        for kind in KINDS:
            for number, scene in two_sounds(settings, fold, kind, settings.choosing_scenes):
                maps = explained(pipe, scene, number, settings)
                rows += _tried(maps, scene, {"kind": kind, "scene": f"{fold}-{number}"})
    table = pd.DataFrame(rows)
    return table.groupby(["method", "kind"], sort=False)["gain"].agg(["mean", "median", "size"]).reset_index()


def _tried(maps: AttentionMaps, scene: Scene, named: dict[str, Any]) -> list[dict[str, Any]]:
    log_mel = maps.spectrogram[0, 0].to_numpy()
    cells = maps.grid.cells(*log_mel.shape)
    masks = {}
    for readout in READOUTS:
        try:
            heats = [maps.heatmap(one.span, readout=readout, grid="image").to_numpy() for one in scene.sounds]
        except MapsError:  # not of this model
            continue
        own = relative_logarithms(heats)
        for refinement, near in REFINEMENTS.items():
            found = refined(own, log_mel, cells, near) if near else own
            for exponent in EXPONENTS:
                masks[f"{readout}, refined: {refinement}, exponent {exponent:g}"] = shares(found, exponent)
    return improvements(scene, masks, maps, named)
