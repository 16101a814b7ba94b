"""Write the results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from harness import Bar, Study

from alignment_parts.bars import LookTables
from alignment_parts.settings import GENERATION, WAYS, WEIGHTS
from attnviz.alignment.report import NAMES, estimate, method_name
from attnviz.maps.layer import short_name

_SHOWN = ("roc_auc", "average_precision", "pearson", "spearman", "partial", "pointing", "onset_distance", "iou",
          "psds1", "segment_f1")  # fmt: skip


def write_summary(
    study: Study, bars: Sequence[Bar], tables: LookTables, quality: Mapping[str, Any] | None
) -> None:
    """Write ``README.md`` and ``bars.csv``."""
    lines: list[str] = []
    for look in (*WAYS, GENERATION, WEIGHTS):
        if "readouts" in tables.get(look, {}):
            lines += _look(look, tables[look], quality)
    lines += _known(tables.get("", {}).get("known"))
    lines += _refused(tables.get("", {}).get("refused"))
    end = (
        "Intervals are 95 %, by bootstrap over source recordings (over prompts, in generation; over clips, where "
        "events name no source). Readouts are compared on the columns of the one that is held against the others, "
        "resampled where a layer's are wider."
    )
    text = _what(study.content["settings"])
    study.page("Does a word's attention fall where its sound is?", [text], bars, lines, end)


def _what(s: Mapping[str, Any]) -> str:
    looked = f"noised to timesteps {', '.join(map(str, s['timesteps']))} ({s['draws']} noise draws)"
    return (
        f"Model `{s['model']}`, clips of `{s['audio']}`: up to {s['scenes']} (of fold {s['fold']}, where they are "
        f"composed), {looked}; prompts x seeds: {s['prompts']} x {s['seeds']}, {s['steps']} steps, guidance "
        f"{s['guidance']:g} within {s['guidance_interval']} of the timesteps. "
        f"Readouts are fitted, and the best layer is chosen, on fold {s['choosing_fold']}. "
        f"Randomised weights: seeds x clips: {s['weight_seeds']} x {s['weight_scenes']}. Seed {s['seed']}."
    )


def _look(look: str, tables: Mapping[str, pd.DataFrame], quality: Mapping[str, Any] | None) -> list[str]:
    lines = [f"## {look}", ""]
    if look == GENERATION:
        lines += [_listener(quality), ""]
    lines += [_counts(tables), ""]
    if tables["readouts"]["value"].isna().all():
        return lines
    lines += [*_readouts(tables), "", *_controls(tables), ""]
    lines += _lags(tables.get("lags")) if look != WEIGHTS else []
    return lines + (_profile(tables["profile"]) if look == GENERATION else [])


def _listener(quality: Mapping[str, Any] | None) -> str:
    if quality is None:
        return "The truth is what the listener hears; how well it hears was not measured."
    return (
        f"The truth is what the listener hears: frame mAP {quality['frame_map']:.2f}, PSDS1 "
        f"{quality['psds1']:.2f} on recordings of fold {quality['fold']}, which it was not trained on."
    )


def _counts(tables: Mapping[str, pd.DataFrame]) -> str:
    undefined = tables["undefined"]
    total = tables["phrases"]["phrase"].nunique()
    reasons = ", ".join(f"{number} {reason}" for reason, number in undefined["reason"].value_counts().items())
    return f"{total} phrases, {total - len(undefined)} scored" + (f"; not scored: {reasons}." if reasons else ".")


def _readouts(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    gains = tables["gains"].set_index("over")
    main = str(tables["gains"]["readout"].iloc[0]) if len(gains) else ""
    lines = [f"| readout | frame ROC-AUC | phrases | {main} minus this | |", "|---|---|---|---|---|"]
    for row in tables["readouts"].to_dict("records"):
        gained, verdict = "", ""
        if row["readout"] in gains.index:
            gain = gains.loc[row["readout"]]
            gained = estimate(gain["value"], gain["low"], gain["high"], sign=True)
            verdict = str(gain["verdict"])
        lines.append(
            f"| {row['readout']} | {estimate(row['value'], row['low'], row['high'])} | {row['phrases']} "
            f"| {gained} | {verdict} |"
        )
    return lines


def _controls(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Tabulate the scores of the main readout and of its controls, and whether each is at chance."""
    main = str(tables["gains"]["readout"].iloc[0]) if len(tables["gains"]) else "mean"
    own = tables["controls"][tables["controls"]["readout"] == main]
    methods = list(dict.fromkeys(own["method"]))
    values = own.set_index(["score", "method"])
    lines = ["| score | " + " | ".join(map(method_name, methods)) + " |", "|---" * (len(methods) + 1) + "|"]
    for score in _SHOWN:
        cells = [values.loc[(score, method)] for method in methods]
        if any(pd.notna(cell["value"]) for cell in cells):
            texts = [estimate(c["value"], c["low"], c["high"]) if pd.notna(c["value"]) else "" for c in cells]
            lines.append(f"| {NAMES[score]} | " + " | ".join(texts) + " |")
    judged = {method: values.loc[("roc_auc", method)] for method in methods}
    texts = [
        "" if pd.isna(row["at_chance"]) else "yes" if str(row["at_chance"]) == "True" else "no"
        for row in judged.values()
    ]
    return [*lines, "| ROC-AUC at chance | " + " | ".join(texts) + " |", "", *_judged(tables, main)]


def _judged(tables: Mapping[str, pd.DataFrame], main: str) -> list[str]:
    """Describe the comparison of the main readout with every control, and the number of comparisons."""
    rows = tables["differences"][tables["differences"]["readout"] == main]
    if "p" not in rows.columns:  # table of an earlier version
        return []
    shown = rows[(rows["score"] == "roc_auc") & rows["value"].notna()].to_dict("records")
    each = "; ".join(
        f"{method_name(row['control'])} {estimate(row['value'], row['low'], row['high'], sign=True)}"
        f"{', ' + row['verdict'] if isinstance(row['verdict'], str) and row['verdict'] else ''}"
        for row in shown
    )
    return [
        f"ROC-AUC of {main} minus that of its controls: {each}. {int(rows['p'].notna().sum())} comparisons with "
        f"controls, and {int(tables['gains']['low'].notna().sum())} of readouts, were judged together each: at "
        "most 5 % of the verdicts are expected to be chance (Benjamini-Hochberg)."
    ]


def _lags(lags: pd.DataFrame | None) -> list[str]:
    if lags is None:
        return []
    lines = ["| readout | column, ms | lag, ms | correlation at the lag | without |", "|---|---|---|---|---|"]
    for row in lags.to_dict("records"):
        known = pd.notna(row["lag_ms"])
        ends = "" if pd.isna(row["low"]) else f" [{row['low']:+.0f}, {row['high']:+.0f}]"
        lag = f"{row['lag_ms']:+.0f}{ends}" if known else "no peak"
        lines.append(
            f"| {row['readout']} | {row['column_ms']:.0f} | {lag} | {row['correlation']:.3f} | "
            f"{row['correlation_at_0']:.3f} |"
        )
    return [
        "Lag: the shift of the true activity at which curves fit it best; above 0 the map is late. It says little "
        "where the correlation is low.",
        "",
        *lines,
        "",
    ]


def _profile(profile: pd.DataFrame) -> list[str]:
    """Tabulate the best step and head of each layer."""
    rows = profile[profile["score"] == "roc_auc"].dropna(subset="value")
    lines = ["| layer | first call | last call | best call | best head |", "|---|---|---|---|---|"]
    for layer, own in rows.groupby("layer", sort=False):
        steps = own[(own["head"] < 0) & (own["step"] >= 0)].sort_values("step")
        heads = own[(own["step"] < 0) & (own["head"] >= 0)]
        if steps.empty:
            continue
        first, last, best = steps.iloc[0], steps.iloc[-1], steps.loc[steps["value"].idxmax()]
        cells = [estimate(row["value"], row["low"], row["high"]) for row in (first, last)]
        cells.append(f"{int(best['step']) + 1} (t = {best['timestep']:g}): {_estimate(best)}")
        top = None if heads.empty else heads.loc[heads["value"].idxmax()]
        cells.append("" if top is None else f"{int(top['head'])}: {_estimate(top)}")
        name = "mean of layers" if layer == "mean" else short_name(str(layer))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    note = "Frame ROC-AUC by denoiser call and head; the best of many is the luckiest of many as well."
    return [note, "", *lines, ""]


def _estimate(row: pd.Series) -> str:
    return estimate(row["value"], row["low"], row["high"])


def _known(known: pd.DataFrame | None) -> list[str]:
    if known is None:
        return []
    lines = [
        "## Maps with known answers",
        "",
        "| planted | expected | ROC-AUC | against energy | at chance | given |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for row in known.to_dict("records"):
        lines.append(
            f"| {row['kind']} | {row['expected']} | {estimate(row['value'], row['low'], row['high'])} | "
            f"{row['over energy']} | {_yes(row['at_chance'])} | {_yes(row['given'])} |"
        )
    return [*lines, ""]


def _yes(value: Any) -> str:
    return "too few clips" if pd.isna(value) else "yes" if str(value) == "True" else "no"


def _refused(refused: pd.DataFrame | None) -> list[str]:
    if refused is None:
        return []
    reasons = [f"- {row['look']}, {row['clip']}: {row['reason']}" for row in refused.head(10).to_dict("records")]
    return [f"## {len(refused)} clips that could not be scored (`refused.csv`)", "", *reasons, ""]
