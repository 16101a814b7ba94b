"""Metrics of a training: means over steps, a growing CSV file, and a progress bar."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from attnviz.errors import OutputError
from attnviz.io.storage import write_whole

COLUMNS = ("step", "seconds", "name", "value")


class MetricsLog:
    """Metrics of a training in long format, one value per line: ``step, seconds, name, value``.

    ``seconds`` is the training time so far. After resuming, it excludes steps that are repeated.

    Parameters
    ----------
    path : pathlib.Path
        Path of the file, which is created if it does not exist.
    resumed_at : int
        Step at which the training is resumed. Lines of later steps are removed, since they will be written again.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """

    def __init__(self, path: Path, resumed_at: int = 0) -> None:
        self.path = path
        kept = _lines_until(path, resumed_at) if resumed_at else []
        write_whole(path, ("\n".join([",".join(COLUMNS), *kept]) + "\n").encode())
        before = float(kept[-1].split(",")[1]) if kept else 0.0
        self._began = time.monotonic() - before

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append metrics.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        seconds = f"{time.monotonic() - self._began:.1f}"
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(
                    (step, seconds, name, f"{value:.6g}") for name, value in values.items()
                )
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror or error}.") from error


def last_values(path: Path, prefix: str = "") -> dict[str, float]:
    """Return the values with a prefix that a `MetricsLog` wrote last, by their names without it.

    Values of earlier steps than the last such value are left out; the result is empty if there are none.
    """
    found: dict[int, dict[str, float]] = {}
    if path.is_file():
        for line in filter(_is_whole, path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]):
            step, _, name, value = line.split(",")
            if name.startswith(prefix):
                found.setdefault(int(step), {})[name.removeprefix(prefix)] = float(value)
    return found[max(found)] if found else {}


def _lines_until(path: Path, step: int) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    return [line for line in lines if _is_whole(line) and int(line.split(",")[0]) <= step]


def _is_whole(line: str) -> bool:
    """Return whether a line is complete; the last one may be truncated if the run was killed."""
    fields = line.split(",")
    try:
        int(fields[0]), float(fields[1]), float(fields[3])
    except (ValueError, IndexError):
        return False
    return len(fields) == len(COLUMNS)


class Means:
    """Running means over steps and processes since the last :meth:`take`."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[torch.Tensor, int]] = {}

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        """Add values without synchronising with their device."""
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + torch.as_tensor(value).detach().float(), count + 1)

    def shared(self, accelerator: Accelerator) -> dict[str, list[float]]:
        """Return the sum and count of each value, averaged over all processes, which call this together."""
        if not self._sums:
            return {}
        sums = torch.stack([total.to(accelerator.device) for total, _ in self._sums.values()])
        totals = accelerator.reduce(sums, "mean")
        self._sums = {name: (totals[i], count) for i, (name, (_, count)) in enumerate(self._sums.items())}
        return {name: [float(total), count] for name, (total, count) in self._sums.items()}

    def restore(self, shared: Mapping[str, list[float]]) -> None:
        """Restore the result of :meth:`shared`."""
        self._sums = {name: (torch.tensor(total), int(count)) for name, (total, count) in shared.items()}

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means and reset them."""
        means = {name: total / count for name, (total, count) in self.shared(accelerator).items()}
        self._sums.clear()
        return means


@contextmanager
def progress_bar(name: str, total: int, *, shown: bool) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Show a progress bar on stderr; yield a function that updates it with a step and metrics."""
    bar = Progress(
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
        console=Console(stderr=True),
        disable=not shown,
    )
    with bar:
        task = bar.add_task(name, total=total, values="")

        def advance(step: int, values: Mapping[str, float]) -> None:
            bar.update(task, completed=step)
            if values:
                bar.update(task, values=" ".join(f"{key} {value:.4g}" for key, value in values.items()))

        yield advance
