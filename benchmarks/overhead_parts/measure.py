"""Measure one run of one tool: time of each denoiser call, captured layers, and peak memory."""

from __future__ import annotations

import gc
import hashlib
from time import perf_counter
from typing import Any

import torch

from overhead_parts.memory import PeakMemory
from overhead_parts.models import denoiser_of, generate, synchronize
from overhead_parts.settings import Settings
from overhead_parts.tools import Tool


def run_once(
    pipe: Any, tool: Tool, settings: Settings, steps: int, *, memory: PeakMemory | None = None
) -> dict[str, Any]:
    """Generate once with a tool installed.

    Parameters
    ----------
    pipe : diffusers.DiffusionPipeline
        Pipeline from `overhead_parts.models.build_pipeline`.
    tool : Tool
        Tool that is installed before the run and removed afterwards.
    settings : Settings
        Model and prompt.
    steps : int
        Number of denoiser calls.
    memory : PeakMemory, optional
        Measures peak memory.

    Returns
    -------
    dict
        ``seconds`` (installing, generating, restoring), ``call_seconds`` (each denoiser call),
        ``around_seconds`` (time of the generation outside its denoiser calls), ``finish_seconds``
        (from there until the maps exist), ``held_bytes`` (kept when the generation ended),
        ``map_bytes`` (kept once the maps exist), ``grids`` (by layer, as assumed by the tool),
        ``latents`` (digest) and with `memory` ``peak_bytes``, ``peak_bytes_with_maps`` and the same
        of the device.
    """
    device = torch.device(settings.device)
    pipe.scheduler.call_seconds = []
    gc.collect()
    if memory is not None:
        memory.restart()
    synchronize(device)
    start = perf_counter()
    with tool.installed(pipe) as capture:
        latents = generate(pipe, settings, steps)
    synchronize(device)
    seconds = perf_counter() - start
    record: dict[str, Any] = {"tool": tool.name, "steps": steps, "seconds": seconds}
    if memory is not None:
        record |= {"peak_bytes": memory.peak(), "device_peak_bytes": memory.device_peak()}
    held = None if tool.streams else tool.held_bytes(capture)
    start = perf_counter()
    maps = tool.finish(capture)
    synchronize(device)
    record["finish_seconds"] = perf_counter() - start
    if memory is not None:
        record |= {"peak_bytes_with_maps": memory.peak(), "device_peak_bytes_with_maps": memory.device_peak()}
    calls = pipe.scheduler.call_seconds
    if len(calls) != steps:
        raise RuntimeError(f"{tool.name}: {len(calls)} denoiser calls instead of {steps}")
    if not bool(latents.isfinite().all()):
        raise RuntimeError(f"{tool.name}: the latents are not finite")
    record |= {
        "call_seconds": calls,
        "around_seconds": seconds - sum(calls),
        "held_bytes": tool.held_bytes(capture) if held is None else held,
        "map_bytes": tool.held_bytes(capture),
        "grids": tool.grids(capture, denoiser_of(pipe, settings)),
        "latents": hashlib.sha256(latents.float().cpu().numpy().tobytes()).hexdigest()[:16],
    }
    del capture, maps, latents
    return record
