"""What each sign of `attnviz.diagnose` measures on a model's own maps, and on those of its shuffled weights.

Every prompt is generated twice, as the model is and with the weights of its U-Net shuffled (one seed a prompt). A
threshold is good where few of the model's own values pass it; the value that 5 % of them pass is printed beside.
Signs of the conditioning and of the words should tell the two apart; flatness and speckle need not, since shuffled
convolutions still smooth.

Results: results/diagnosis/values.csv, a row a prompt, weights and sign; summary.csv, a row a sign.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import attnviz
from attnviz.audio import image_to_mel, mel_to_image
from attnviz.diagnosis import THRESHOLDS
from attnviz.explaining.randomizing import cascade, randomized
from attnviz.pipelines import AuffusionPipeline
from attnviz.sounds.phrases import PHRASES
from attnviz.testing import write_adapter_checkpoint
from attnviz.training.vae import reconstruct

HERE = Path(__file__).resolve().parent
OWN, SHUFFLED = "own", "shuffled"
PASSED_BY = 0.05  # share of the model's own values that may pass a threshold


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; 1 where more of the model's own values pass a threshold than may."""
    options = _parser().parse_args(arguments)
    texts = prompts()[: options.prompts]
    with tempfile.TemporaryDirectory() as scratch:
        model = write_adapter_checkpoint(Path(scratch) / "tiny") if options.tiny else options.model
        pipe = attnviz.load(model)
        pipe.set_progress_bar_config(disable=True)
        values = pd.concat(
            [
                measure(pipe, text, seed, steps=options.steps, guidance=options.guidance, weights=weights)
                for seed, text in enumerate(texts)
                for weights in (OWN, SHUFFLED)
            ],
            ignore_index=True,
        )
    summary = summarize(values)
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    values.to_csv(folder / "values.csv", index=False, float_format="%.6g")
    summary.to_csv(folder / "summary.csv", float_format="%.6g")
    print(summary.to_string(float_format=lambda value: f"{value:.4g}"))
    print(f"{len(texts)} prompts. Results: {folder}")
    return 1 if (summary["own_passed"] > PASSED_BY).any() else 0


def prompts() -> list[str]:
    """Name every sound of ESC-10 alone, and with the next one."""
    clauses = [phrases.clauses[0] for phrases in PHRASES.values()]
    pairs = [f"{one}, then {other}" for one, other in zip(clauses, [*clauses[1:], clauses[0]], strict=True)]
    return [text for couple in zip(clauses, pairs, strict=True) for text in couple]


def measure(
    pipe: AuffusionPipeline, prompt: str, seed: int, *, steps: int, guidance: float, weights: str
) -> pd.DataFrame:
    """Generate one prompt, and return what every sign measures on it."""
    with ExitStack() as stack:
        if weights == SHUFFLED:
            stack.enter_context(randomized(pipe.unet, cascade(pipe.unet), seed))
        predicted = stack.enter_context(_predictions(pipe.unet))
        trace = stack.enter_context(attnviz.trace(pipe, branch="both"))
        out = pipe(
            prompt,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed),
        )
    unguided, guided = predicted[len(predicted) // 2].chunk(2)
    log_mel = np.asarray(out.spectrograms[0])
    again = image_to_mel(reconstruct(pipe.vae, mel_to_image(log_mel)[None])[0])
    result = attnviz.diagnose(
        trace.maps, predictions=(guided.numpy(), unguided.numpy()), reconstruction=(log_mel, again)
    )
    return result.table[["finding", "found", "value", "unjudged"]].assign(
        prompt=prompt, seed=seed, weights=weights
    )


def summarize(values: pd.DataFrame) -> pd.DataFrame:
    """Lay out each sign: its threshold, the values of both kinds of weights, and how many pass."""
    rows: list[dict[str, Any]] = []
    for name, limit in THRESHOLDS.items():
        sign = values[values["finding"] == name]
        row: dict[str, Any] = {"finding": name, "threshold": limit.value, "fault": limit.sign}
        for weights in (OWN, SHUFFLED):
            judged = sign[(sign["weights"] == weights) & (sign["unjudged"] == "")]
            numbers = judged["value"].to_numpy(dtype=float)
            row |= {
                f"{weights}_judged": len(judged),
                f"{weights}_median": np.median(numbers) if len(judged) else np.nan,
                f"{weights}_passed": judged["found"].mean() if len(judged) else np.nan,
            }
            if weights == OWN:
                share = 1 - PASSED_BY if limit.sign == ">" else PASSED_BY
                row["passed_by_5%"] = np.quantile(numbers, share) if len(judged) else np.nan
        rows.append(row)
    return pd.DataFrame(rows).set_index("finding").astype({"own_passed": float, "shuffled_passed": float})


@contextmanager
def _predictions(unet: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """List what the U-Net returns, call by call."""
    found: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        sample = output[0] if isinstance(output, tuple) else output.sample
        found.append(sample.detach().float().cpu())

    handle = unet.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or hub name; left out: the bundled model")
    parser.add_argument("--prompts", type=int, default=20, help="how many of the 20 prompts")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--tiny", action="store_true", help="a tiny random checkpoint: shows that everything runs")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "diagnosis")
    return parser


if __name__ == "__main__":
    sys.exit(main())
