"""Fit readouts and choose layers on scenes of another fold than the reported one."""

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
    """Fit readouts for one method; write ``readout.json``, ``layers.csv`` and finally ``readouts.csv``.

    ``readout-layers.json`` is the readout with weights of layers only.
    """
    looked = [(explained(pipe, item, way, settings), item.events) for item in items]
    folder.mkdir(parents=True, exist_ok=True)
    layers = pool_profile(
        pd.concat([profile(maps, events) for maps, events in looked]), n_resamples=settings.resamples
    )
    _write(folder / "layers.csv", layers[(layers["step"] < 0) & (layers["head"] < 0)])
    # Candidates; the best one on held-out recordings of the choosing fold is used.
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
    # This readout also works for maps without heads and steps, the default of `attnviz.trace`.
    fits["layers"].readout.save(folder / "readout-layers.json", overwrite=True)
    (folder / "readout.txt").write_text(fits[str(best)].summary() + "\n", encoding="utf-8")
    _write(folder / "readouts.csv", table.assign(chosen=table["variant"] == best))


def chosen_by(folder: Path) -> Chosen:
    """Read the fitted readout and the chosen layer of one method."""
    table = pd.read_csv(folder / "readouts.csv")
    # Compared on the finest columns; best in most folds.
    layer = str(table.loc[table["chosen"].astype(bool), "best_layer"].iloc[0])
    return Chosen(FittedReadout.load(folder / "readout.json"), layer)


def _write(path: Path, table: pd.DataFrame) -> None:
    write_whole(path, table.to_csv(index=False, float_format="%.5g").encode())
