"""What the activity probe brings: alignment of two denoisers that differ in it alone.

The denoiser of `unet.toml` predicts, while it is trained, which sounds are active in each column; that of
`unet-unsupervised.toml` does not. Train and measure both, then compare:

    attnviz train unet --data data/esc10 --out with
    attnviz train unet --config unet-unsupervised --data data/esc10 --out without
    python benchmarks/bundled.py --data data/esc10 --model with/bundle --out runs/with --parts scenes
    python benchmarks/bundled.py --data data/esc10 --model without/bundle --out runs/without --parts scenes
    python benchmarks/activity_probe.py runs/with runs/without --steps 10000

``with/bundle`` is a copy of ``attnviz/bundled`` into which `attnviz bundle` wrote the denoiser.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
from harness.command import RESULTS

from attnviz.alignment.bootstrap import Bootstrap, interval

KEY = ["clip", "sound", "source", "layer", "timestep"]
RESAMPLES = 2000
NAMES = ("with", "without")


def main(arguments: list[str] | None = None) -> int:
    """Write the comparison."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folders", nargs=2, type=Path, metavar="FOLDER", help="results with and without the probe")
    made.add_argument("--steps", type=int, required=True, help="training steps of both denoisers")
    made.add_argument("--out", type=Path, default=RESULTS / "activity_probe")
    options = made.parse_args(arguments)
    studies = [json.loads((folder / "study.json").read_text("utf-8"))["settings"] for folder in options.folders]
    differing = {name for name in studies[0] if studies[0][name] != studies[1][name]} - {"model"}
    if differing:
        raise SystemExit(f"The two results differ in {', '.join(sorted(differing))}; measure both alike.")
    table = compare(*(pd.read_csv(folder / "scenes.csv") for folder in options.folders))
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "layers.csv", index=False)
    (options.out / "README.md").write_text(page(table, studies[0], options.steps), encoding="utf-8")
    print(table.to_string(index=False))
    return 0


def compare(supervised: pd.DataFrame, unsupervised: pd.DataFrame) -> pd.DataFrame:
    """Return the mean frame ROC-AUC of every layer, with paired intervals over sources and clips.

    Parameters
    ----------
    supervised, unsupervised : pandas.DataFrame
        ``scenes.csv`` of both denoisers: ``clip, sound, source, layer, timestep, auc`` of the same phrases.
    """
    both = supervised.merge(unsupervised, on=KEY, suffixes=("_with", "_without"), validate="one_to_one")
    both = both[both["timestep"].isna()].dropna(subset=["auc_with", "auc_without"])
    both["gain"] = both["auc_with"] - both["auc_without"]
    rows = []
    for layer, part in both.groupby("layer", sort=False):
        sources, clips = (part[name].factorize()[0] for name in ("source", "clip"))
        values = part[["auc_with", "auc_without", "gain"]].to_numpy()
        bootstrap = Bootstrap(sources, RESAMPLES, seed=0, clips=clips)
        low, high = interval(bootstrap.means(values), bootstrap.clusters(values))
        row = {"layer": layer, "phrases": len(part), "sources": part["source"].nunique()}
        for column, name in enumerate((*NAMES, "gain")):
            mean = values[:, column].mean()
            row |= {name: mean, f"{name} low": low[column], f"{name} high": high[column]}
        rows.append(row)
    return pd.DataFrame(rows)


def page(table: pd.DataFrame, settings: dict, steps: int) -> str:
    """Return the page of the results."""

    def cell(row: pd.Series, name: str) -> str:
        sign = "+" if name == "gain" else ""
        return f"{row[name]:{sign}.3f} [{row[f'{name} low']:{sign}.3f}, {row[f'{name} high']:{sign}.3f}]"

    lines = [
        "# What the activity probe brings",
        "",
        f"Two denoisers of one recipe from scratch, {steps:,} steps each (`unet.toml` and "
        "`unet-unsupervised.toml` of `attnviz/training/configs`). Only the first was asked, while trained, which "
        "sounds are active in each column (`ActivityProbe`). Neither is the one that ships. Both have words "
        "pretrained on captions, which tell what sounds first, but not when.",
        "",
        f"Frame ROC-AUC of the maps of {settings['scenes']} real scenes of fold {settings['fold']} "
        f"(`attnviz.explain`, mean over timesteps {', '.join(map(str, settings['timesteps']))}). Fold "
        f"{settings['fold']} was seen by earlier choices. Intervals are 95 %, over source recordings and "
        "clips; gains are paired by phrase. Written by `python benchmarks/activity_probe.py`.",
        "",
        "| readout | with | without | gain |",
        "|---|---|---|---|",
        *(
            f"| {row['layer']} | {' | '.join(cell(row, name) for name in (*NAMES, 'gain'))} |"
            for _, row in table.iterrows()
        ),
        "",
        f"{table['phrases'].max()} phrases of {table['sources'].max()} recordings.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
