"""Figures of the study, drawn from its tables and pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from harness import save_figure
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from alignment_parts.looking import RANDOM
from alignment_parts.pieces import load_pieces
from alignment_parts.settings import GENERATION, WAYS, WEIGHTS
from alignment_parts.tables import LENGTH_NAMES, OVERLAP_NAMES, headline
from attnviz.alignment.phrases import AlignedPhrase
from attnviz.alignment.report import method_name
from attnviz.maps.layer import short_name
from attnviz.plots.style import CONTROL_COLOUR, LINE_COLOURS, LINE_DASHES, MAP_COLOUR, readable, text_style

Looks = Mapping[str, Mapping[str, pd.DataFrame]]

_AUC = "ROC-AUC"
_EACH = 3  # number of best and of worst examples


def write_figures(folder: Path, tables: Looks) -> None:
    """Draw the figures of all available tables."""
    shown = [look for look in (*WAYS, GENERATION) if _scored(tables.get(look, {}))]
    ways = [look for look in shown if look in WAYS]
    if ways:
        save_figure(_timesteps(ways, tables), folder / "timesteps.png")
    if GENERATION in shown:
        save_figure(_generation(tables[GENERATION]["profile"]), folder / "generation.png")
    if shown:
        save_figure(_violins(shown, tables), folder / "controls.png")
        save_figure(_reliability(shown, tables), folder / "reliability.png")
    for look in shown:
        found = _examples(folder, look, tables[look]["phrases"])
        if found is not None:
            save_figure(found, folder / f"examples-{look}.png")


def _scored(tables: Mapping[str, pd.DataFrame]) -> bool:
    return "readouts" in tables and bool(tables["readouts"]["value"].notna().any())


def _grid(profile: pd.DataFrame, columns: str) -> pd.DataFrame:
    """Return the mean ROC-AUC with a row per layer and a column per step or head."""
    other = "head" if columns == "step" else "step"
    rows = profile[(profile["score"] == "roc_auc") & (profile[other] < 0) & (profile[columns] >= 0)]
    grid = rows.pivot_table(index="layer", columns=columns, values="value", sort=False, dropna=False)
    return grid.rename(index=_named)[sorted(grid.columns)]


def _named(layer: str) -> str:
    return "mean of layers" if layer == "mean" else short_name(layer)


def _heat(ax: Axes, grid: pd.DataFrame, labels: Sequence[str], *, numbers: bool) -> AxesImage:
    image = ax.imshow(grid.to_numpy(), vmin=0, vmax=1, cmap="RdBu_r", aspect="auto")
    every = max(1, -(-len(labels) // 10))
    ax.set_xticks(range(0, len(labels), every), labels[::every])
    ax.set_yticks(range(len(grid)), grid.index)
    if numbers:
        for (row, column), value in np.ndenumerate(grid.to_numpy()):
            if np.isfinite(value):
                strong = abs(value - 0.5) > 0.3
                ax.text(
                    column, row, f"{value:.2f}", ha="center", va="center", color="w" if strong else "k", size=8
                )
    return image


def _timesteps(ways: Sequence[str], tables: Looks) -> plt.Figure:
    grids = {way: _grid(tables[way]["profile"], "step") for way in ways}
    rows = len(next(iter(grids.values())))
    figure, panels = plt.subplots(
        1, len(ways), figsize=(3.2 * len(ways) + 1.6, 0.36 * rows + 1.5), layout="constrained", squeeze=False,
        sharey=True,
    )  # fmt: skip
    for ax, (way, grid) in zip(panels[0], grids.items(), strict=True):
        profile = tables[way]["profile"]
        when = profile.drop_duplicates("step").set_index("step")["timestep"]
        image = _heat(ax, grid, [f"{when[step]:g}" for step in grid.columns], numbers=True)
        ax.set_title(way, fontsize=10)
        ax.set_xlabel("timestep of the noise")
    panels[0][0].set_ylabel("layer")
    figure.colorbar(image, ax=panels, label=f"frame {_AUC} of words (0.5: chance)")
    return figure


def _generation(profile: pd.DataFrame) -> plt.Figure:
    steps, heads = _grid(profile, "step"), _grid(profile, "head")
    figure, panels = plt.subplot_mosaic(
        [["step", "head"], ["curve", "curve"]],
        figsize=(10.5, 0.3 * len(steps) + 4.6),
        layout="constrained",
        width_ratios=[3, 1.4],
        height_ratios=[0.3 * len(steps) + 1, 3],
    )
    when = profile.drop_duplicates("step").set_index("step")["timestep"]
    labels = [f"{when[step]:g}" for step in steps.columns]
    image = _heat(panels["step"], steps, labels, numbers=len(labels) <= 10)
    panels["step"].set_xlabel("timestep of the denoiser call (generation goes from left to right)")
    panels["step"].set_ylabel("layer")
    panels["step"].set_title("every denoiser call, mean of heads", fontsize=10)
    _heat(panels["head"], heads, [f"{head}" for head in heads.columns], numbers=True)
    panels["head"].set_xlabel("head")
    panels["head"].set_title("every head, mean of calls", fontsize=10)
    figure.colorbar(image, ax=panels["head"], label=f"frame {_AUC}")
    _curves(panels["curve"], profile)
    return figure


def _curves(ax: Axes, profile: pd.DataFrame) -> None:
    """Draw the scores of each layer over the steps; intervals of single layers are in the table."""
    rows = profile[(profile["score"] == "roc_auc") & (profile["head"] < 0) & (profile["step"] >= 0)]
    for number, (layer, own) in enumerate(rows.groupby("layer", sort=False)):
        colour = "k" if layer == "mean" else LINE_COLOURS[number % len(LINE_COLOURS)]
        dash = LINE_DASHES[number // len(LINE_COLOURS) % len(LINE_DASHES)]
        ax.plot(
            own["step"] + 1, own["value"], dash, color=colour, label=_named(str(layer)),
            linewidth=2.4 if layer == "mean" else 1.2,
        )  # fmt: skip
        if layer == "mean":
            ax.fill_between(own["step"] + 1, own["low"], own["high"], color=colour, alpha=0.12, linewidth=0)
    ax.axhline(0.5, color="0.45", linestyle=":", linewidth=1)
    ax.set_xlabel("denoiser call")
    ax.set_ylabel(f"frame {_AUC}")
    ax.set_title("when words find their place; band: 95 % over prompts, of the mean of layers", fontsize=10)
    ax.legend(fontsize=8, ncols=2, frameon=False)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _violins(looks: Sequence[str], tables: Looks) -> plt.Figure:
    figure, panels = plt.subplots(
        1, len(looks), figsize=(3.4 * len(looks) + 1.0, 3.8), layout="constrained", squeeze=False, sharey=True
    )
    for ax, look in zip(panels[0], looks, strict=True):
        values = _by_method(tables[look]["phrases"])
        weights = tables.get(WEIGHTS, {}).get("phrases")
        if look == WAYS[0] and weights is not None:
            values |= {name: one for name, one in _by_method(weights).items() if name == RANDOM}
        values = {name: one for name, one in values.items() if len(one)}
        for place, (name, one) in enumerate(values.items()):
            _violin(ax, place, one, MAP_COLOUR if name == "map" else CONTROL_COLOUR)
        ax.axhline(0.5, color="0.45", linestyle=":", linewidth=1)
        ax.set_xticks(range(len(values)), [method_name(name) for name in values], rotation=35, ha="right")
        ax.set_title(f"{look} ({len(values.get('map', []))} phrases)", fontsize=10)
        ax.set_ylim(-0.03, 1.03)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    panels[0][0].set_ylabel(f"frame {_AUC} of a phrase")
    return figure


def _by_method(phrases: pd.DataFrame) -> dict[str, np.ndarray]:
    known = phrases.dropna(subset="roc_auc")
    return {
        str(method): rows.groupby("phrase")["roc_auc"].mean().to_numpy()
        for method, rows in known.groupby("method", sort=False)
    }


def _violin(ax: Axes, place: int, values: np.ndarray, colour: str) -> None:
    if len(values) > 2 and np.ptp(values) > 0:
        body = ax.violinplot(values, positions=[place], widths=0.85, showextrema=False)["bodies"][0]  # type: ignore[index]
        body.set(facecolor=colour, alpha=0.35, edgecolor="none")
    spread = np.random.default_rng(0).uniform(-0.12, 0.12, len(values))
    ax.scatter(place + spread, values, s=4, color=colour, alpha=0.5, linewidth=0)
    ax.plot([place - 0.22, place + 0.22], [values.mean()] * 2, color="k", linewidth=2, solid_capstyle="butt")


def _reliability(looks: Sequence[str], tables: Looks) -> plt.Figure:
    kinds = {"length": "length of the sound", "overlap": "overlapped", "sound": "sound"}
    shown = {look: tables[look]["reliability"] for look in looks}
    wide = [kind for kind in kinds if any((table["by"] == kind).any() for table in shown.values())]
    names = {kind: _names([table.loc[table["by"] == kind, "name"] for table in shown.values()]) for kind in wide}
    widths = [max(len(names[kind]), 3) for kind in wide]
    figure, panels = plt.subplots(
        1, max(len(wide), 1), figsize=(1.6 + 0.6 * sum(widths), 3.8), layout="constrained", squeeze=False,
        sharey=True, width_ratios=widths or None,
    )  # fmt: skip
    for ax, kind in zip(panels[0], wide, strict=False):
        for number, (look, table) in enumerate(shown.items()):
            rows = table[table["by"] == kind].set_index("name").reindex(names[kind])
            at = np.arange(len(rows)) + 0.16 * (number - (len(shown) - 1) / 2)
            ends = np.abs(np.stack([rows["value"] - rows["low"], rows["high"] - rows["value"]]))
            colour = LINE_COLOURS[number % len(LINE_COLOURS)]
            ax.errorbar(at, rows["value"], np.nan_to_num(ends), fmt="o", color=colour, markersize=4, label=look)
        ax.axhline(0.5, color="0.45", linestyle=":", linewidth=1)
        ax.set_xticks(range(len(names[kind])), names[kind], rotation=35, ha="right")
        ax.set_title(kinds[kind], fontsize=9, loc="left")
        ax.set_xlim(-0.6, len(names[kind]) - 0.4)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    panels[0][0].set_ylabel(f"frame {_AUC}, 95 %")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _names(found: Sequence[pd.Series]) -> list[str]:
    """Return the names of the groups, in order of length or overlap, or by name."""
    order = {name: place for place, name in enumerate((*LENGTH_NAMES, *OVERLAP_NAMES))}
    return sorted(set(pd.concat(found).astype(str)), key=lambda name: (order.get(name, len(order)), name))


def _examples(folder: Path, look: str, phrases: pd.DataFrame) -> plt.Figure | None:
    """Draw the phrases with the highest and lowest scores: clip, activity of the sound, and curve."""
    own = phrases[phrases["method"] == "map"].dropna(subset="roc_auc").sort_values("roc_auc", kind="stable")
    if len(own) < 2:
        return None
    each = min(_EACH, len(own) // 2)
    picked = [*own.iloc[::-1].iloc[:each]["phrase"], *own.iloc[:each]["phrase"]]
    numbered: list[tuple[AlignedPhrase, np.ndarray]] = []
    for piece in load_pieces(folder / "pieces" / look):
        numbered += [(one, piece.picture) for one in piece.phrases[headline(list(piece.phrases))]]
    figure, panels = plt.subplots(each, 2, figsize=(10, 1.75 * each + 0.5), layout="constrained", squeeze=False)
    scores = own.set_index("phrase")["roc_auc"]
    for place, number in enumerate(picked):
        ax = panels[place % each][place // each]
        phrase, picture = numbered[int(number)]
        _example(ax, phrase, picture)
        title = f"{readable(phrase.events.label, 40)}: {scores[number]:.2f}"
        ax.set_title(title, fontsize=9, loc="left", **text_style())
    for ax, what in zip(panels[0], ("best", "worst"), strict=True):
        ax.set_title(what, fontsize=9, loc="right")
    for ax in panels[-1]:
        ax.set_xlabel("time (s); bar: the sound is there; line: attention")
    return figure


def _example(ax: Axes, phrase: AlignedPhrase, picture: np.ndarray) -> None:
    width = max(phrase.seconds, phrase.column_seconds * len(phrase.share))
    ax.imshow(picture, origin="lower", aspect="auto", cmap="Greys", extent=(0, width, 0, 1), alpha=0.75)
    curve = phrase.curves["map"][0].astype(float)
    height = (curve - curve.min()) / np.ptp(curve) if np.ptp(curve) > 0 else np.zeros_like(curve)
    at = (np.arange(len(curve)) + 0.5) * phrase.column_seconds
    ax.plot(at, 0.04 + 0.84 * height, color=MAP_COLOUR, linewidth=1.8)
    for onset, offset in phrase.events.times:
        ax.barh(0.95, offset - onset, left=onset, height=0.07, color=LINE_COLOURS[0])
    ax.set_ylim(0, 1)
    ax.set_xlim(0, width)
    ax.set_yticks([])
