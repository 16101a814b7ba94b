"""The metrics of an evaluation, and how they are printed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from attnviz.arguments import public
from attnviz.wording import short_repr

_MOST_DECIMALS = 6
COLUMNS = (
    "metric", "embedder", "value", "low", "high", "clips", "reference_clips", "needed", "better", "undefined",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of evaluated clips.

    Attributes
    ----------
    table : pandas.DataFrame
        A row for each metric and embedder: ``metric`` (with the embedder's name, as in ``FD-listener``),
        ``embedder``, ``value``, ``low`` and ``high`` (95 % interval), ``clips``, ``reference_clips``, ``needed``
        (clips that the metric needs), ``better`` ("lower" or "higher") and ``undefined`` (why there is no value,
        or empty).
    notes : tuple of str
        What a reader of the table must know: what each embedder is, how many clips were paired, what was drawn.
    """

    table: pd.DataFrame
    notes: tuple[str, ...] = ()

    __repr__ = short_repr

    @property
    def listing(self) -> pd.DataFrame:
        """The metrics that have a value, as text: ``metric``, ``value``, ``clips`` and ``clips needed``."""
        defined = self.table[self.table["undefined"] == ""]
        rows = [
            {
                "metric": str(row["metric"]),
                "value [95 % interval]": _with_interval(*(float(row[name]) for name in ("value", "low", "high"))),
                "clips": f"{row['clips']} : {row['reference_clips']}"
                if row["reference_clips"]
                else str(row["clips"]),
                "needed": str(row["needed"]),
            }
            for row in defined.to_dict("records")
        ]
        return pd.DataFrame(rows)

    @property
    def lines(self) -> list[str]:
        """What stands below the listing: which values are better, metrics without a value, and the notes."""
        defined = self.table["undefined"] == ""
        better = [
            f"{which.capitalize()} is better: {', '.join(self.table.loc[rows, 'metric'])}."
            for which in ("lower", "higher")
            if (rows := defined & (self.table["better"] == which)).any()
        ]
        undefined = self.table[~defined]
        missing = [f"{row['metric']}: {row['undefined']}" for row in undefined.to_dict("records")]
        few = [
            f"{row['metric']}: fewer clips than needed, so the value can change with more."
            for row in self.table[defined].to_dict("records")
            if min(row["clips"], row["reference_clips"] or row["clips"]) < row["needed"]
        ]
        return [*better, *few, *missing, *self.notes]

    @public
    def summary(self) -> str:
        """Return the metrics and notes as text, as ``attnviz evaluate`` prints them."""
        listing = self.listing
        table = [listing.to_string(index=False)] if len(listing) else []
        return "\n".join([*table, *self.lines])


def _with_interval(value: float, low: float, high: float) -> str:
    if np.isnan(low):
        return f"{value:.3g}"
    # As many decimals as the width of the interval asks for, so that it is seen to contain the value.
    decimals = 2 - int(np.floor(np.log10(max(high - low, 1e-12))))
    if 0 <= decimals <= _MOST_DECIMALS:
        return f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"
