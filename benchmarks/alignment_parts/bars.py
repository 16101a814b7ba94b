"""Targets of the study, and whether they are reached."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from harness import Bar

from alignment_parts.looking import BEST, FITTED, RANDOM
from alignment_parts.settings import GENERATION, WAYS, WEIGHTS
from attnviz.alignment.pooling import BETTER
from attnviz.alignment.report import estimate

LookTables = Mapping[str, Mapping[str, pd.DataFrame]]


def best_way(tables: LookTables) -> str | None:
    """Return the method with the best fitted readout on held-out recordings of the choosing fold."""
    found = {}
    for way in WAYS:
        table = tables.get(f"calibration/{way}", {}).get("readouts")
        if table is not None:
            chosen = table[table["chosen"].astype(bool) & (table["method"] == FITTED)]
            found[way] = float(chosen["value"].iloc[0])
    return max(found, key=lambda way: found[way]) if found else None


def judge(tables: LookTables) -> list[Bar]:
    """Compare the measured tables with every target."""
    chosen = best_way(tables)
    way = chosen or next((one for one in WAYS if "readouts" in tables.get(one, {})), "")
    explain = tables.get(way, {})
    named = f"explain ({way}, chosen on the other fold)" if chosen else f"explain {way}".strip()
    bars = [
        _value(f"{named}: frame ROC-AUC of the fitted readout", 0.92, explain),
        _difference(f"{named}: fitted minus the energy control", explain.get("differences"), "control", "energy"),
        _difference(f"{named}: fitted minus the best single layer", explain.get("gains"), "over", BEST),
        _value("generation: frame ROC-AUC of the fitted readout", 0.85, tables.get(GENERATION, {})),
    ]
    for what, look, control in (
        (f"{named}: constant map", explain, "constant"),
        (f"{named}: other clips' words", explain, "other_clip"),
        (f"{WAYS[0]}: randomised weights", tables.get(WEIGHTS, {}), RANDOM),
        ("generation: other clips' words", tables.get(GENERATION, {}), "other_clip"),
    ):
        bars.append(_chance(f"{what} at chance", look.get("controls"), control))
    named_order = f"{named}: fitted minus the order control"
    bars.append(_difference(named_order, explain.get("differences"), "control", "order"))
    known = tables.get("", {}).get("known")
    right = pd.Series(dtype=bool) if known is None else known["given"].dropna().astype(bool)
    if right.empty:
        return [*bars, Bar.of("synthetic maps: the known answers", "all")]
    measured = f"{right.sum()} of {len(right)}"
    return [*bars, Bar.of("synthetic maps: the known answers", "all", measured, right.all())]


def _value(what: str, bar: float, tables: Mapping[str, pd.DataFrame]) -> Bar:
    rows = tables.get("readouts")
    rows = None if rows is None else rows[rows["readout"] == FITTED]
    if rows is None or rows.empty or rows["value"].isna().all():
        return Bar.of(what, f">= {bar:g}")
    row = rows.iloc[0]
    measured = f"{estimate(row['value'], row['low'], row['high'])} ({row['phrases']} phrases)"
    return Bar.of(what, f">= {bar:g}", measured, row["value"] >= bar)


def _difference(what: str, rows: pd.DataFrame | None, column: str, name: str) -> Bar:
    if rows is not None:
        rows = rows[(rows["readout"] == FITTED) & (rows[column] == name)]
        rows = rows[rows["score"] == "roc_auc"] if "score" in rows.columns else rows
    if rows is None or rows.empty or rows["value"].isna().all():
        return Bar.of(what, "above 0, 0 excluded")
    row = rows.iloc[0]
    measured = f"{estimate(row['value'], row['low'], row['high'], sign=True)}"
    return Bar.of(what, "above 0, 0 excluded", measured, row["verdict"] == BETTER)


def _chance(what: str, rows: pd.DataFrame | None, control: str) -> Bar:
    wanted = "permutation interval holds 0.5"
    if rows is not None:
        main = FITTED if FITTED in set(rows["readout"]) else "mean"
        rows = rows[(rows["readout"] == main) & (rows["method"] == control) & (rows["score"] == "roc_auc")]
        rows = rows[rows["at_chance"].notna()]
    if rows is None or rows.empty:
        return Bar.of(what, wanted)
    row = rows.iloc[0]
    measured = estimate(row["value"], row["permutation_low"], row["permutation_high"])
    return Bar.of(what, wanted, f"{measured} by {row['permuted']}", str(row["at_chance"]) == "True")
