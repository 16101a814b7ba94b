"""Choice of readout, refinement and exponent on the choosing folds."""

from __future__ import annotations

from typing import Any

from attnviz.errors import MapsError
from attnviz.maps.sharing import NEIGHBOURHOODS, refined, relative_logarithms, shares
from solo_parts.separating import improvements
from solo_parts.two_sounds import Explained

READOUTS = ("mean", "auffusion", "fitted")
EXPONENTS = (8.0, 16.0, 32.0)
REFINEMENTS = {"none": (), "near": NEIGHBOURHOODS[:1], "column": NEIGHBOURHOODS[1:], "both": NEIGHBOURHOODS}


def tried(explained: Explained, fold: int, kind: str, number: int) -> list[dict[str, Any]]:
    """Return the SI-SDR improvement of every combination on one scene."""
    scene, maps = explained.two_sounds(fold, kind, number)
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
    return improvements(scene, masks, maps, {"kind": kind, "scene": f"{fold}-{number}"})
