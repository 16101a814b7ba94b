"""The bars the project set itself, and whether they are reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
from harness import Bar
from harness.results import NOT_MEASURED

from bundled_parts.alignment import MEAN, chosen, mean_auc
from bundled_parts.levels import OWN

_QUIET_DB = -50.0

Tables = Mapping[str, pd.DataFrame]


def judge(tables: Tables) -> list[Bar]:
    """Hold the measured tables against every bar; what was not measured is said to be so."""
    return [
        *_values(
            tables,
            "vae",
            ("PSNR", "VAE: PSNR of the mel image, dB", ">=", 25.0),
            ("listener mAP lost", "VAE: listener mAP lost in reconstruction", "<=", 0.05),
        ),
        *_values(
            tables,
            "vocoder",
            ("log-mel distance", "vocoder: log-mel distance over audible cells, nats", "<=", 0.40),
            ("times faster than Griffin-Lim", "vocoder: times faster than Griffin-Lim", ">=", 20.0),
            ("listener mAP lost", "vocoder: listener mAP lost", "<=", 0.03),
        ),
        *_values(
            tables,
            "listener",
            ("frame mAP", "listener: frame mAP", ">=", 0.75),
            ("PSDS1", "listener: PSDS1", ">=", None),
        ),
        *_levels(tables.get("levels"), tables.get("scene_levels")),
        *_generation(tables.get("generation")),
        _maps("maps of real scenes: frame ROC-AUC of the best layer", 0.88, "scenes", tables),
        _maps("maps during generation: frame ROC-AUC of the best layer", 0.80, "generated", tables),
        *_values(
            tables,
            "speed",
            ("generate, warm, s", "generate, warm, s", "<=", 6.0),
            ("generate, cold start, s", "generate, cold start, s", "<=", 15.0),
        ),
        *_values(tables, "size", ("all parts", "all parts together, MB", "<=", 40.0)),
    ]


def _values(tables: Tables, part: str, *bars: tuple[str, str, str, float | None]) -> list[Bar]:
    table = tables.get(part)
    found = {} if table is None else dict(zip(table["name"], table["value"], strict=True))
    made = []
    for name, what, sign, bar in bars:
        value, wanted = found.get(name), "" if bar is None else f"{sign} {bar:g}"
        reached = value is not None and bar is not None and (value >= bar if sign == ">=" else value <= bar)
        made.append(Bar.of(what, wanted, None if value is None else f"{value:.3g}", reached))
    return made


def _levels(table: pd.DataFrame | None, scenes: pd.DataFrame | None) -> list[Bar]:
    own, quiet, other = (
        "level of one sound less the scenes of its class, dB: the class where it is furthest off",
        "generations of one sound below -50 dB",
        "the same level at other guidance scales, dB: the scale whose median is furthest off",
    )
    if table is None or scenes is None:
        return [Bar.of(what, bar) for what, bar in ((own, "within 6"), (quiet, "none"), (other, "within 10"))]
    gaps = table.assign(gap=table["level"] - table["class"].map(scenes.groupby("class")["level"].median()))
    at_own, elsewhere = gaps[gaps["scale"] == OWN], gaps[gaps["scale"] != OWN]
    below = int((at_own["level"] < _QUIET_DB).sum())
    return [
        _furthest(own, 6.0, at_own.groupby("class")["gap"].median()),
        Bar.of(quiet, "none", f"{below} of {len(at_own)}", not below),
        _furthest(other, 10.0, elsewhere.groupby("scale")["gap"].median()),
    ]


def _furthest(what: str, bar: float, gaps: pd.Series) -> Bar:
    name = gaps.abs().idxmax()
    return Bar.of(what, f"within {bar:g}", f"{gaps[name]:+.1f} ({name})", abs(gaps[name]) <= bar)


def _generation(table: pd.DataFrame | None) -> list[Bar]:
    one, judged, least, two, order = (
        "generation, one sound: the asked class is the strongest",
        "generation, one sound: the second judge names the asked class",
        "generation, one sound: the class that is least often the strongest",
        "generation, two sounds: both among the top two",
        'generation, "X, then Y": X first, where both are heard',
    )
    if table is None:
        return [Bar.of(what, "") for what in (one, judged, least, two, order)]
    pairs = table["classes"].str.contains(r" \+ ")
    placed = table.loc[pairs, "in order"].dropna().astype(str) == "True"
    alone = table[~pairs]
    return [
        _share(one, 0.92, alone["right"].astype(bool)),
        _share(judged, 0.88, alone["judged"] == alone["classes"]),
        _least(least, 0.70, alone),
        _share(two, 0.85, table.loc[pairs, "right"].astype(bool)),
        _share(order, 0.90, placed),
    ]


def _least(what: str, bar: float, alone: pd.DataFrame) -> Bar:
    shares = alone["right"].astype(bool).groupby(alone["classes"]).mean()
    if shares.empty:
        return Bar(what, f">= {bar:.0%}", "no case", NOT_MEASURED)
    sound = shares.idxmin()
    worst = _share(what, bar, alone.loc[alone["classes"] == sound, "right"].astype(bool))
    return replace(worst, measured=f"{sound}: {worst.measured}")


def _share(what: str, bar: float, right: pd.Series) -> Bar:
    if right.empty:
        return Bar(what, f">= {bar:.0%}", "no case", NOT_MEASURED)
    share = float(right.mean())
    measured = f"{share:.0%} ({int(right.sum())} of {len(right)})"
    return Bar.of(what, f">= {bar:.0%}", measured, share >= bar)


def _maps(what: str, bar: float, part: str, tables: Tables) -> Bar:
    table, choosing = tables.get(part), tables.get(f"{part}_choosing")
    if table is None or choosing is None:
        return Bar.of(what, f">= {bar:g}")
    if choosing["auc"].isna().all():  # no asked sound was heard, or each one all the time
        return Bar(what, f">= {bar:g}", "undefined for every phrase to choose by", NOT_MEASURED)
    layer, timestep = chosen(choosing)
    value, defined, undefined = mean_auc(table, layer, timestep)
    mean, _, _ = mean_auc(table, MEAN, timestep)
    when = "all steps" if timestep is None else f"t = {timestep:g}"
    measured = f"{value:.3f} ({layer}, {when}; {defined} phrases, {undefined} undefined); mean readout {mean:.3f}"
    return Bar.of(what, f">= {bar:g}", measured, value >= bar)
