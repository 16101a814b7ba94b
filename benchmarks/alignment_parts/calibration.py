"""Readouts fitted, and layers chosen, on scenes of another fold than the one that is reported on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from alignment_parts.looking import Chosen, explained
from alignment_parts.material import Item
from alignment_parts.settings import Settings
from attnviz.alignment import fit_readout, pool_profile, profile
from attnviz.io.storage import write_whole
from attnviz.maps import FittedReadout


def calibrate(pipe: Any, items: Sequence[Item], way: str, settings: Settings, folder: Path) -> None:
    """Fit readouts for one way to look; writes ``readout.json``, ``layers.csv`` and, last, ``readouts.csv``.

    ``readout-layers.json`` is the one that weighs layers alone.
    """
    looked = [(explained(pipe, item, way, settings), item.events) for item in items]
    folder.mkdir(parents=True, exist_ok=True)
    layers = pool_profile(
        pd.concat([profile(maps, events) for maps, events in looked]), n_resamples=settings.resamples
    )
    _write(folder / "layers.csv", layers[(layers["step"] < 0) & (layers["head"] < 0)])
    # What is weighed apart; which is taken is chosen on held-out recordings of the choosing fold.
    fits = {
        "layers": fit_readout(looked),
        "heads": fit_readout(looked, heads=True),
        "heads and timesteps": fit_readout(looked, heads=True, timesteps=settings.ranges),
    }
    rows = [
        fit.scores.assign(
            variant=variant, undefined=sum(fit.undefined.values()), best_layer=fit.table["layer"].mode()[0]
        )
        for variant, fit in fits.items()
    ]
    table = pd.concat(rows, ignore_index=True)
    best = table.loc[table[table["method"] == "fitted"]["value"].idxmax(), "variant"]
    fits[str(best)].readout.save(folder / "readout.json", overwrite=True)
    # Maps as `attnviz.trace` keeps them by default have no heads and no steps: this one reads them.
    fits["layers"].readout.save(folder / "readout-layers.json", overwrite=True)
    (folder / "readout.txt").write_text(fits[str(best)].summary() + "\n", encoding="utf-8")
    _write(folder / "readouts.csv", table.assign(chosen=table["variant"] == best))


def chosen_by(folder: Path) -> Chosen:
    """Read what was fitted and chosen for one way to look."""
    table = pd.read_csv(folder / "readouts.csv")
    # Compared on the finest columns, and best in the most folds.
    layer = str(table.loc[table["chosen"].astype(bool), "best_layer"].iloc[0])
    return Chosen(FittedReadout.load(folder / "readout.json"), layer)


def _write(path: Path, table: pd.DataFrame) -> None:
    write_whole(path, table.to_csv(index=False, float_format="%.5g").encode())
