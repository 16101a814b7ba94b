"""Measure peak memory above a baseline, exactly if the system allows it."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from pathlib import Path

import torch

_PROC = Path("/proc/self")
_RESET_PEAK = "5"  # see proc(5), clear_refs


class PeakMemory:
    """Peak resident memory since `restart` and, with CUDA, peak allocated device memory.

    On Linux, the peak counter of the kernel is reset and read, so no peak is missed. On other systems, a thread
    samples the resident size every millisecond.

    Attributes
    ----------
    method : str
        ``"kernel"`` or ``"sampled"``.
    """

    def __init__(self) -> None:
        self.method = "kernel" if _can_reset_peak() else "sampled"
        self._baseline = 0
        self._device_baseline = 0
        self._sampler: _Sampler | None = None

    def restart(self) -> None:
        """Return freed memory to the system, and set the baseline."""
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self._device_baseline = torch.cuda.memory_allocated()
        if self.method == "kernel":
            (_PROC / "clear_refs").write_text(_RESET_PEAK)
            self._baseline = _status("VmRSS")
        else:
            self._sampler = self._sampler or _Sampler()
            self._baseline = self._sampler.restart()

    def peak(self) -> int:
        """Return the peak resident memory above the baseline in bytes."""
        if self._sampler is not None:
            return self._sampler.peak - self._baseline
        return _status("VmHWM") - self._baseline

    def device_peak(self) -> int:
        """Return the peak CUDA memory above the baseline in bytes; 0 without CUDA."""
        if not torch.cuda.is_available():
            return 0
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - self._device_baseline


class _Sampler(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True)
        import psutil

        self._process = psutil.Process()
        self._stopped = threading.Event()
        self.peak = 0
        self.start()

    def restart(self) -> int:
        self.peak = self._process.memory_info().rss
        return self.peak

    def run(self) -> None:
        while not self._stopped.wait(0.001):
            self.peak = max(self.peak, self._process.memory_info().rss)


def _can_reset_peak() -> bool:
    try:
        (_PROC / "clear_refs").write_text(_RESET_PEAK)
        return _status("VmHWM") > 0
    except (OSError, KeyError):
        return False


def _status(key: str) -> int:
    lines = (_PROC / "status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(values[key].split()[0]) * 1024
