"""Figures of the study: a heat map for each measure, and quality against alignment."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from harness import save_figure
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from sweep_parts.tables import ALIGNMENTS, QUALITY

LABELS = {
    "FD-listener": "FD-listener (lower is better)",
    "KAD-listener": "KAD-listener (lower is better)",
    "IS-listener": "IS-listener (higher is better)",
    "KL-softmax-listener": "KL-listener, nats (lower is better)",
    "right": "asked classes are the strongest",
    "in order": '"X, then Y" in this order',
    "level": "level, dB of full scale",
    "phrases scored": "phrases that can be scored",
    "auc mean": "ROC-AUC of the maps, mean readout",
    "auc fitted": "ROC-AUC of the maps, fitted readout",
    "auc energy": "ROC-AUC of the clip's energy",
}


def write_figures(folder: Path, cells: pd.DataFrame, correlations: pd.DataFrame) -> None:
    """Write ``heatmaps.png`` and, for each readout, ``alignment-READOUT.png``."""
    save_figure(_heatmaps(cells), folder / "heatmaps.png")
    for readout in ALIGNMENTS:
        if f"auc {readout}" in cells:
            save_figure(_against(cells, correlations, readout), folder / f"alignment-{readout}.png")


def _heatmaps(cells: pd.DataFrame) -> plt.Figure:
    shown = [name for name in LABELS if name in cells and cells[name].notna().any()]
    columns = 3
    figure, panels = plt.subplots(
        -(-len(shown) // columns), columns, figsize=(14, 2.6 * -(-len(shown) // columns)), layout="constrained"
    )
    for ax in panels.flat[len(shown) :]:
        ax.set_visible(False)
    for ax, name in zip(panels.flat, shown, strict=False):
        grid = cells.pivot_table(index="steps", columns="scale", values=name, dropna=False)
        _heat(ax, grid, QUALITY.get(name, 1))
        ax.set_title(LABELS[name], fontsize=10)
    return figure


def _heat(ax: Axes, grid: pd.DataFrame, sign: int) -> None:
    """Draw a table; bright is better."""
    values = grid.to_numpy(dtype=float)
    ax.imshow(values, cmap="viridis" if sign > 0 else "viridis_r", aspect="auto")
    ax.set_xticks(range(len(grid.columns)), [f"{scale:g}" for scale in grid.columns])
    ax.set_yticks(range(len(grid)), grid.index)
    ax.set_xlabel("guidance scale")
    ax.set_ylabel("steps")
    middle = np.nanmean([np.nanmin(values), np.nanmax(values)])
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = (value - middle) * sign < 0
            ax.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=7, color="w" if dark else "k")


def _against(cells: pd.DataFrame, correlations: pd.DataFrame, readout: str) -> plt.Figure:
    """Draw every measure of quality against the alignment of the maps, one point per setting."""
    columns = 3
    figure, panels = plt.subplots(
        -(-len(QUALITY) // columns), columns, figsize=(13, 7), layout="constrained", sharex=True
    )
    rows = correlations[(correlations["readout"] == readout) & (correlations["over"] == "all settings")]
    found = rows.set_index("quality")
    # Of settings without a scored phrase, no point is drawn, and there may be no other.
    norm = LogNorm(cells["scale"].min(), max(cells["scale"].max(), 1.1 * cells["scale"].min()))
    points = None
    for ax, (name, sign) in zip(panels.flat, QUALITY.items(), strict=False):
        sizes = 20 + 30 * np.argsort(np.argsort(cells["steps"].to_numpy(), kind="stable")) / len(cells)
        points = ax.scatter(
            cells[f"auc {readout}"], cells[name], c=cells["scale"], s=sizes, norm=norm, cmap="plasma"
        )
        if sign < 0:
            ax.invert_yaxis()
        row = found.loc[name]
        measured = f"{row['spearman']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        ax.set_title(f"{LABELS[name]}\nrank correlation {measured}", fontsize=9)
    for ax in panels[-1]:
        ax.set_xlabel(f"ROC-AUC of the maps, {readout} readout")
    figure.colorbar(points, ax=panels, label="guidance scale (larger points: more steps)", ticks=[1, 2, 5, 10, 20],
                    format="%g")  # fmt: skip
    figure.suptitle("Do settings that align better sound better? One point per setting; up is better.")
    return figure
