"""Plot scores over the denoising steps, one curve per layer, with the spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from attnviz.alignment.profiling import PROFILED
from attnviz.alignment.report import NAMES
from attnviz.alignment.scoring import SCORES
from attnviz.arguments import public
from attnviz.errors import MapsError
from attnviz.maps.layer import short_name
from attnviz.plots.style import FONTSIZE, LINE_COLOURS, LINE_DASHES, own_axes, plain

_TICKS = 8


@public
def profile_curve(
    profiles: pd.DataFrame,
    *,
    score: str = "roc_auc",
    layers: Sequence[str] | None = None,
    seed: str = "image",
    ax: Axes | None = None,
) -> Axes:
    """Draw a score over the denoising steps, with mean and spread over seeds.

    Parameters
    ----------
    profiles : pandas.DataFrame
        Results of `attnviz.alignment.profile` for one or more seeds, joined with `pandas.concat`.
    score : {"roc_auc", "pearson", "spearman", "partial"}
    layers : sequence of str, optional
        Layers to draw, or ``"mean"`` for the mean of all layers. By default, all in the table.
    seed : str
        Column that identifies seeds: ``"image"``, the samples of one prompt, or an additional column.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on. By default, those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        One line per layer and, with at least two seeds, a band of one standard deviation over seeds, clipped to
        the range of the score. The phrases of a seed are averaged first, so seeds have equal weight. The dotted
        line is chance.

    Raises
    ------
    MapsError
        If the table is not a profile, or lacks a score, a layer or the steps (maps made without
        ``keep=("step",)``).

    Examples
    --------
    >>> import pandas as pd
    >>> from attnviz.alignment import profile
    >>> from attnviz.testing import example_events, example_maps
    >>> seeds = [profile(example_maps(steps=4, seed=seed), example_events()).assign(seed=seed) for seed in (0, 1)]
    >>> ax = profile_curve(pd.concat(seeds), layers=["mean"], seed="seed")
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('timestep', 'ROC-AUC')
    """
    rows = _rows(profiles, score, layers, seed)
    ax = own_axes(6.4, 3.2) if ax is None else ax
    for number, (layer, own) in enumerate(rows.groupby("layer", sort=False)):
        by_seed = own.groupby([seed, "step"], sort=True)[score].mean().unstack("step")
        mean, spread = by_seed.mean(), by_seed.std(ddof=1)
        colour = LINE_COLOURS[number % len(LINE_COLOURS)]
        dash = LINE_DASHES[(number // len(LINE_COLOURS) + number) % len(LINE_DASHES)]
        name = "mean of layers" if layer == "mean" else short_name(str(layer))
        ax.plot(mean.index, mean, color=colour, linestyle=dash, linewidth=1.4, label=name)
        if len(by_seed) > 1:
            # Clip the band to the range of the score.
            low, high = ((mean + side * spread).clip(*SCORES[score].bounds) for side in (-1, 1))
            ax.fill_between(mean.index, low, high, color=colour, alpha=0.16, linewidth=0)
    ax.axhline(SCORES[score].chance, color="0.45", linestyle=":", linewidth=1.0, zorder=1)
    when = rows.drop_duplicates("step").sort_values("step").set_index("step")["timestep"]
    shown = when.iloc[:: -(-len(when) // _TICKS)]
    ax.set_xticks(shown.index, [f"{timestep:.0f}" for timestep in shown], fontsize=FONTSIZE)
    ax.tick_params(axis="y", labelsize=FONTSIZE)
    ax.set_xlabel("timestep", fontsize=FONTSIZE + 1)
    ax.set_ylabel(NAMES[score], fontsize=FONTSIZE + 1)
    seeds = rows[seed].nunique()
    title = f"mean and standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    ax.legend(
        title=title, title_fontsize=FONTSIZE, fontsize=FONTSIZE, frameon=False, loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )  # fmt: skip
    plain(ax)
    return ax


def _rows(profiles: pd.DataFrame, score: str, layers: Sequence[str] | None, seed: str) -> pd.DataFrame:
    """Return the rows of single steps, averaged over heads, that have the score."""
    if score not in PROFILED:
        raise MapsError(f"Unknown score {score!r}; profiles have {', '.join(PROFILED)}.")
    missing = [name for name in ("layer", "step", "timestep", "head", score, seed) if name not in profiles.columns]
    if missing:
        raise MapsError(f"The table lacks the columns {missing}; give the result of attnviz.alignment.profile.")
    rows = profiles[(profiles["step"] >= 0) & (profiles["head"] == -1) & profiles[score].notna()]
    if layers is not None:
        unknown = [layer for layer in layers if layer not in set(profiles["layer"])]
        if unknown or not layers:
            known = ", ".join(dict.fromkeys(profiles["layer"]))
            raise MapsError(f"There are no layers {unknown or 'to draw'}; the profile has {known}.")
        rows = rows[rows["layer"].isin(layers)]
        rows = rows.iloc[np.argsort([list(layers).index(layer) for layer in rows["layer"]], kind="stable")]
    if rows.empty:
        raise MapsError(
            f"No step has a {NAMES[score]}. Were the maps made with keep=('step',), and is there a phrase that is "
            "neither silent nor active over the whole clip?"
        )
    return rows
