"""Targets of the study, whether they are reached, and the page of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from harness import Bar, Study

from attnviz.alignment.bootstrap import Bootstrap, interval
from solo_parts.separating import CONTROLS, IDEAL, SOLO, UNREFINED
from solo_parts.two_sounds import KINDS

GAINS = {"one after another": 15.0, "anywhere": 9.0}
SHARP = {"roc_auc": 0.96, "psds1": 0.15, "iou": 0.70}
NAMES = {"roc_auc": "frame ROC-AUC", "psds1": "PSDS1", "iou": "IoU", "onset_distance": "|onset error| (s)",
         "segment_f1": "segment F1"}  # fmt: skip
HEARD, SILENCED = 0.85, 0.80
Tables = Mapping[str, pd.DataFrame]


def bars_of(tables: Tables) -> list[Bar]:
    """Compare the measured tables with every target."""
    bars = []
    scenes, sharp, made = (tables.get(name) for name in ("scenes", "sharp", "generation"))
    if scenes is not None:
        means = scenes.groupby(["kind", "method"])["gain"].mean()
        for kind, least in GAINS.items():
            own, best = means[kind, SOLO], max(means[kind, control] for control in CONTROLS)
            bars.append(_bar(f"solo, {kind}: SI-SDR improvement, dB", least, own, ".1f"))
            bars.append(_bar(f"solo, {kind}: above every control, dB", 0.0, own - best, ".1f"))
    if sharp is not None:
        own = sharp[sharp["method"] == "map"].set_index("score")["value"]
        bars += [_bar(f"sharp: {NAMES[score]} at 40 ms", least, own[score]) for score, least in SHARP.items()]
    if made is not None:
        heard = made[made["before"].astype(bool)]
        both = heard[heard["other_before"].astype(bool)]
        bars.append(_bar("generation: the soloed phrase is heard", HEARD, heard["own"].mean(), ".1%"))
        bars.append(_bar("generation: the other one is not", SILENCED, 1 - both["other"].mean(), ".1%"))
    return bars


def _bar(what: str, least: float, value: float, form: str = ".3f") -> Bar:
    measured = None if np.isnan(value) else format(value, form)
    wanted = format(least, ".0%") if form.endswith("%") else f"{least:g}"
    return Bar.of(what, f">= {wanted}", measured, value >= least)


def write_report(study: Study, settings: Any, bars: Sequence[Bar], tables: Tables) -> None:
    """Write the page of the results."""
    text = (
        f"Model `{settings.model}`, fold {settings.fold}; choices on folds "
        f"{', '.join(map(str, settings.choosing_folds))}. Scenes are explained by noising at timesteps "
        f"{', '.join(map(str, settings.timesteps))}. Written by `python benchmarks/solo.py`."
    )
    sections = [
        *_scene_lines(tables, settings), *_sharp_lines(tables), *_generation_lines(tables), *_choice_lines(tables)
    ]  # fmt: skip
    study.page("Hear a word: solos and sharp maps", [text], bars, [*sections, ""])


def _scene_lines(tables: Tables, settings: Any) -> list[str]:
    scenes = tables.get("scenes")
    if scenes is None:
        return []
    lines = [
        "", "## SI-SDR improvement over the mixture, dB", "",
        "Mean over phrases with 95 % interval over source recordings and scenes, and median.", "",
        f"| mask | {' | '.join(KINDS)} |", "|---|---|---|",
    ]  # fmt: skip
    for method in (SOLO, UNREFINED, *CONTROLS, IDEAL):
        cells = []
        for kind in KINDS:
            part = scenes[(scenes["method"] == method) & (scenes["kind"] == kind)]
            values = part[["gain"]].to_numpy()
            sources, clips = (part[name].factorize()[0] for name in ("source", "scene"))
            bootstrap = Bootstrap(sources, settings.resamples, seed=0, clips=clips)
            low, high = interval(bootstrap.means(values), bootstrap.clusters(values))
            cells.append(f"{values.mean():+.1f} [{low[0]:+.1f}, {high[0]:+.1f}], {np.median(values):+.1f}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    phrases = scenes[scenes["method"] == SOLO].groupby("kind").size()
    return [*lines, "", f"Phrases: {', '.join(f'{kind} {phrases[kind]}' for kind in KINDS)}."]


def _sharp_lines(tables: Tables) -> list[str]:
    scores = tables.get("sharp")
    if scores is None:
        return []
    methods = list(dict.fromkeys(scores["method"]))
    lines = ["", "## Sharp maps, in columns of 40 ms", "",
             "`map` is sharp; `energy` is the sharp map of a constant map: what the spectrogram alone brings.",
             "`unrefined` is what was refined, `mean` the mean of all layers.", "",
             f"| score | {' | '.join(methods)} |", f"|---{'|---' * len(methods)}|"]  # fmt: skip
    for score, name in NAMES.items():
        rows = scores[scores["score"] == score].set_index("method")
        values = rows.loc[methods, ["value", "low", "high"]].to_numpy()
        cells = [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _generation_lines(tables: Tables) -> list[str]:
    made = tables.get("generation")
    if made is None:
        return []
    both = made[made["before"] & made["other_before"]]
    own, other = made[made["before"]]["own"].mean(), both["other"].mean()
    text = (
        f"{len(made) // 2} clips of two-sound prompts. Of {int(made['before'].sum())} phrases that the listener "
        f"hears in the clip, it hears {own:.0%} in their solo. Of {len(both)} in whose clip it hears both, it "
        f"does not hear the other one in {1 - other:.0%} of the solos."
    )
    return ["", "## During generation", "", text]


def _choice_lines(tables: Tables) -> list[str]:
    table = tables.get("choose")
    if table is None:
        return []
    wide = table.pivot_table(index="method", columns="kind", values="gain").reindex(columns=list(KINDS))
    wide = wide.loc[wide.sum(axis=1).sort_values(ascending=False).index]
    lines = ["", "## Choice, on the choosing folds: mean SI-SDR improvement, dB", "",
             f"| maps | {' | '.join(KINDS)} |", "|---|---|---|"]  # fmt: skip
    return [*lines, *(f"| {name} | {row.iloc[0]:+.1f} | {row.iloc[1]:+.1f} |" for name, row in wide.iterrows())]
