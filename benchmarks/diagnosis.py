"""Values of each sign of `attnviz.diagnose` on good and bad maps of a model.

own       the model's own maps
planted   the same maps with an artificial fault for the sign
shuffled  maps of the same prompts with shuffled weights of the U-Net (one seed per prompt)

For every threshold, print the share of each kind beyond it, and the two values between which it must be. See
benchmarks/README.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diagnosis_parts.planting import planted
from harness import Model, Study, parser

import attnviz
from attnviz.attribution.randomizing import cascade, randomized
from attnviz.audio import image_to_mel, mel_to_image
from attnviz.diagnosis import THRESHOLDS, Diagnosis
from attnviz.maps import AttentionMaps
from attnviz.models.pipelines import AuffusionPipeline
from attnviz.testing import write_adapter_checkpoint
from attnviz.text.sounds import PHRASES
from attnviz.training.vae import reconstruct

OUTPUTS = {"values": ("values", "summary")}
OWN, PLANTED, SHUFFLED = KINDS = ("own", "planted", "shuffled")
SPARED = 0.05
"""Maximum share of good maps beyond a threshold, and of planted faults that are not."""


@dataclass(frozen=True)
class Settings:
    """Settings of the study; steps and guidance are None where the model recommends them."""

    model: str
    prompts: int
    steps: int | None
    guidance: float | None


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write the results; return 1 if a threshold does not separate good maps and faults."""
    options = _parser().parse_args(arguments)
    texts = prompts()[: options.prompts if options.prompts is not None else 1 if options.tiny else 20]
    steps = 2 if options.tiny and options.steps is None else options.steps
    with tempfile.TemporaryDirectory() as scratch:
        model = Model(str(write_adapter_checkpoint(Path(scratch) / "tiny")) if options.tiny else options.model)
        settings = Settings(model.fingerprint, len(texts), steps, options.guidance)
        study = Study(options.out, settings, OUTPUTS, fresh=OUTPUTS if options.fresh else ())

        def measured(text: str, seed: int) -> list[dict[str, Any]]:
            tables = measure(model.pipe, text, seed, steps=settings.steps, guidance=settings.guidance)
            return pd.concat(list(tables), ignore_index=True).to_dict("records")

        study.cases("values", texts, measured, digits=6)
    summary = summarize(study.tables()["values"].fillna({"unjudged": ""}))
    study.write("summary", summary.reset_index(), digits=6)
    print(summary.to_string(float_format=lambda value: f"{value:.4g}"))
    print(f"{len(texts)} prompts. Results: {study.folder}")
    return 0 if (summary["state"] == "apart").all() else 1


def prompts() -> list[str]:
    """Return prompts for every sound of ESC-10 alone, and with the next one."""
    clauses = [phrases.clauses[0] for phrases in PHRASES.values()]
    pairs = [f"{one}, then {other}" for one, other in zip(clauses, [*clauses[1:], clauses[0]], strict=True)]
    return [text for couple in zip(clauses, pairs, strict=True) for text in couple]


def measure(
    pipe: AuffusionPipeline, prompt: str, seed: int, *, steps: int | None, guidance: float | None
) -> Iterator[pd.DataFrame]:
    """Generate a prompt with original and shuffled weights, and return the values of every sign."""

    def rows(diagnosis: Diagnosis, weights: str) -> pd.DataFrame:
        table = diagnosis.table[["finding", "found", "value", "unjudged"]]
        return table.assign(prompt=prompt, seed=seed, weights=weights)

    maps, given = generate(pipe, prompt, seed, steps=steps, guidance=guidance)
    yield rows(attnviz.diagnose(maps, **given), OWN)
    for name, diagnosis in planted(maps, **given).items():
        table = rows(diagnosis, PLANTED)
        yield table[table["finding"] == name]
    with randomized(pipe.unet, cascade(pipe.unet), seed):
        maps, given = generate(pipe, prompt, seed, steps=steps, guidance=guidance)
    yield rows(attnviz.diagnose(maps, **given), SHUFFLED)


def generate(
    pipe: AuffusionPipeline, prompt: str, seed: int, *, steps: int | None, guidance: float | None
) -> tuple[AttentionMaps, dict[str, Any]]:
    """Generate a prompt; return its maps, and further arguments of `attnviz.diagnose`.

    These are both predictions half-way, the spectrogram with its reconstruction, and the audio.
    """
    with ExitStack() as stack:
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
    predictions = guided.numpy(), unguided.numpy()
    return trace.maps, {"predictions": predictions, "reconstruction": (log_mel, again), "audio": out.audios[0]}


def summarize(values: pd.DataFrame) -> pd.DataFrame:
    """Tabulate each sign: threshold, share of each kind beyond it, and the values between which it must be.

    Few of the model's own values are beyond ``own_end``, and nearly all planted faults beyond ``planted_end``.
    ``state`` is ``apart`` if the threshold is between the two, ``own beyond`` or ``fault missed`` if it is not,
    and ``not judged`` if there are no values.
    """
    rows: list[dict[str, Any]] = []
    for name, limit in THRESHOLDS.items():
        sign = values[(values["finding"] == name) & (values["unjudged"] == "")]
        numbers = {kind: sign.loc[sign["weights"] == kind, "value"].to_numpy(dtype=float) for kind in KINDS}
        judged = {kind: found for kind, found in numbers.items() if len(found)}
        beyond = {kind: np.mean([limit.passed(one) for one in found]) for kind, found in judged.items()}
        if not {OWN, PLANTED} <= beyond.keys():
            state = "not judged"
        elif beyond[OWN] > SPARED:
            state = "own beyond"
        else:
            state = "apart" if beyond[PLANTED] >= 1 - SPARED else "fault missed"
        high = limit.sign == ">"
        row = {"finding": name, "fault": limit.sign, "threshold": limit.value, "state": state}
        row |= {f"{kind}_beyond": beyond.get(kind, np.nan) for kind in KINDS}
        row["own_end"] = _quantile(numbers[OWN], 1 - SPARED if high else SPARED)
        row["planted_end"] = _quantile(numbers[PLANTED], SPARED if high else 1 - SPARED)
        row |= {f"{kind}_median": _quantile(numbers[kind], 0.5) for kind in KINDS}
        row |= {f"{kind}_judged": len(numbers[kind]) for kind in KINDS}
        rows.append(row)
    return pd.DataFrame(rows).set_index("finding")


def _quantile(numbers: np.ndarray, share: float) -> float:
    return float(np.quantile(numbers, share)) if len(numbers) else float("nan")


@contextmanager
def _predictions(unet: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect the output of the U-Net for each call."""
    found: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        sample = output[0] if isinstance(output, tuple) else output.sample
        found.append(sample.detach().float().cpu())

    handle = unet.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def _parser() -> Any:
    options = parser(__doc__, "diagnosis")
    options.add_argument("--prompts", type=int, help="number of prompts, at most 20 (default)")
    options.add_argument("--steps", type=int, help="denoising steps (default: those of the model)")
    options.add_argument("--guidance", type=float, help="guidance scale (default: that of the model)")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
