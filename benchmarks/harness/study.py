"""The folder of a study, which an interrupted run continues."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from attnviz.io.storage import write_whole
from harness.results import Bar, bar_lines

PIECES = "pieces"
Row = dict[str, Any]
Case = TypeVar("Case")
Measure = Callable[[Case, int], list[Row]]
"""Function of a case and its number that returns the rows of the case, JSON-serialisable."""


class Study:
    """The settings, tables and report of a study in a folder.

    ``study.json`` has the settings and the environment. A folder with results of other settings is refused before
    anything is removed. Cases are written to ``pieces/`` as they are measured, so that an interrupted study
    continues; their content is in the tables at the end, and git ignores them.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the results, created if missing.
    settings : dataclass instance
        Settings that identify the study. Of paths, only the name is saved.
    outputs : mapping of str to sequence of str
        Names of what each part writes: ``NAME.csv`` or a folder ``NAME``, with its cases in ``pieces/NAME``.
    fresh : iterable of str
        Parts to measure again. What they wrote is removed.
    environment : dict, optional
        Machine and versions. Default: `environment` of this process.
    same : sequence of str
        Entries of ``study.json`` that must be equal for a study to be continued.
    **more
        Further entries of ``study.json``.

    Raises
    ------
    SystemExit
        The folder has results of another study.
    """

    def __init__(
        self,
        folder: Path,
        settings: Any,
        outputs: Mapping[str, Sequence[str]],
        *,
        fresh: Iterable[str] = (),
        environment: Row | None = None,
        same: Sequence[str] = ("settings",),
        **more: Any,
    ) -> None:
        self.folder = Path(folder)
        content = {"settings": _saved(settings), "environment": environment or _environment(), **more}
        self.content: dict[str, Any] = json.loads(json.dumps(content))
        again = list(dict.fromkeys(name for part in fresh for name in outputs[part]))
        names = dict.fromkeys(name for part in outputs for name in outputs[part])
        kept = [name for name in names if name not in again and any(path.exists() for path in self._places(name))]
        there = self.folder / "study.json"
        known = json.loads(there.read_text(encoding="utf-8")) if there.exists() else {}
        if kept and [known.get(entry) for entry in same] != [self.content[entry] for entry in same]:
            raise SystemExit(
                f"{folder} contains a study with other {' or '.join(same)} ({', '.join(kept)}); use --fresh with "
                "all parts, or another --out."
            )
        for path in (path for name in again for path in self._places(name)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        there.write_text(json.dumps(self.content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def opened(cls, folder: Path) -> Study:
        """Return the study of a folder as it is, for another process that measures some of it."""
        study = cls.__new__(cls)
        study.folder = Path(folder)
        study.content = json.loads((study.folder / "study.json").read_text(encoding="utf-8"))
        return study

    def has(self, table: str) -> bool:
        """Return whether a table is complete."""
        return (self.folder / f"{table}.csv").exists()

    def write(self, table: str, rows: pd.DataFrame | Iterable[Row], digits: int | None = None) -> None:
        """Write ``TABLE.csv`` as a whole, with a number of significant digits if given."""
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
        path = self.folder / f"{table}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = frame.to_csv(index=False, float_format=None if digits is None else f"%.{digits}g")
        write_whole(path, text.encode())

    def tables(self) -> dict[str, pd.DataFrame]:
        """Read the tables by name (``FOLDER/NAME`` in folders); ``bars`` is not one of them."""
        found = {}
        for path in sorted(self.folder.rglob("*.csv")):
            place = path.relative_to(self.folder).with_suffix("")
            if place.parts[0] != PIECES and place.as_posix() != "bars":
                found[place.as_posix()] = pd.read_csv(path)
        return found

    def piece(self, part: str, name: str) -> Path:
        """Return the path of a case of a part; its folder exists."""
        pieces = self.folder / PIECES
        (pieces / part).mkdir(parents=True, exist_ok=True)
        (pieces / ".gitignore").write_text("*\n", encoding="utf-8")
        return pieces / part / name

    def rows(self, part: str) -> list[Row]:
        """Return the rows of all measured cases of a part, by name of the case."""
        found = sorted((self.folder / PIECES / part).glob("*.json"))
        return [row for path in found for row in json.loads(path.read_text(encoding="utf-8"))]

    def cases(
        self,
        part: str,
        items: Iterable[Case],
        measure: Measure[Case],
        *,
        processes: int = 1,
        digits: int | None = None,
    ) -> None:
        """Write the table of a part if it is missing, after measuring the missing cases.

        Parameters
        ----------
        part : str
            Name of the table.
        items, measure, processes
            As for `measure`.
        digits : int, optional
            Significant digits of the table.
        """
        if not self.has(part):
            with timed(part):
                self.measure(part, items, measure, processes=processes)
                self.write(part, self.rows(part), digits)

    def measure(self, part: str, items: Iterable[Case], measure: Measure[Case], *, processes: int = 1) -> None:
        """Measure the missing cases of a part, and write each when it is done.

        Parameters
        ----------
        part : str
        items : iterable
            Cases, in a fixed order.
        measure : callable
            Function of a case and its number. With several processes it is pickled.
        processes : int
            Number of processes that measure.
        """
        paths = ((self.piece(part, f"{number:04d}.json"), number, case) for number, case in enumerate(items))
        left = [(path, measure, case, number) for path, number, case in paths if not path.exists()]
        progress = Progress(part, len(left))
        if processes == 1:
            for one in left:
                _measure(*one)
                progress.step()
            return
        # Spawned, because a forked process would share the locks of torch's threads.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _share_cores, (processes,)) as pool:
            for done in as_completed([pool.submit(_measure, *one) for one in left]):
                done.result()
                progress.step()

    def case(self, part: str, number: int, measure: Callable[[], list[Row]]) -> None:
        """Measure a single case of a part if it is missing, and write it.

        For parts whose cases are not measured in order, such as several methods of one clip after the other.
        """
        path = self.piece(part, f"{number:04d}.json")
        if not path.exists():
            write_whole(path, json.dumps(measure(), default=_plain).encode())

    def page(
        self,
        title: str,
        text: Sequence[str],
        bars: Sequence[Bar] = (),
        sections: Iterable[str] = (),
        end: str = "",
    ) -> None:
        """Write ``README.md`` and, if there are any, ``bars.csv``.

        Parameters
        ----------
        title : str
        text : sequence of str
            Paragraphs before the targets.
        bars : sequence of Bar
        sections : iterable of str
            Lines after the targets.
        end : str
            Beginning of the last paragraph, which names ``study.json``.
        """
        lines = [f"# {title}", "", *(line for paragraph in text for line in (paragraph, ""))]
        if bars:
            lines += [*bar_lines(bars), ""]
            self.write("bars", [vars(bar) for bar in bars])
        lines += [*sections, f"{end} Machine and versions: `study.json`.".lstrip(), ""]
        (self.folder / "README.md").write_text("\n".join(lines), encoding="utf-8")

    def _places(self, name: str) -> tuple[Path, ...]:
        return self.folder / f"{name}.csv", self.folder / name, self.folder / PIECES / name


class Progress:
    """Show the progress of a part and the remaining time.

    Parameters
    ----------
    what : str
    count : int
        Number of steps.
    """

    def __init__(self, what: str, count: int) -> None:
        self.what, self.count, self.done, self.start = what, count, 0, perf_counter()

    def step(self) -> None:
        """Count one step."""
        self.done += 1
        passed = perf_counter() - self.start
        left = max(passed / self.done * (self.count - self.done), 0.0)
        line = f"\r{self.what}: {self.done} of {self.count}, {passed:.0f} s, about {left:.0f} s left   "
        print(line, end="" if self.done < self.count else "\n", file=sys.stderr, flush=True)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long the block took."""
    start = perf_counter()
    yield
    print(f"{what}: {perf_counter() - start:.0f} s", flush=True)


def seed_of(*facts: int) -> int:
    """Return the seed of a case, derived from all numbers that identify it."""
    return int(np.random.SeedSequence(facts).generate_state(1)[0])


def environment() -> Row:
    """Return versions and machine, without host names and paths."""
    import torch

    import attnviz

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "attnviz": attnviz.__version__,
    }


_environment = environment  # `Study` has an argument of that name


def _saved(settings: Any) -> Row:
    return {name: value.name if isinstance(value, Path) else value for name, value in asdict(settings).items()}


def _measure(path: Path, measure: Measure[Any], case: Any, number: int) -> None:
    write_whole(path, json.dumps(measure(case, number), default=_plain).encode())


def _share_cores(processes: int) -> None:
    # Before torch is imported, which a measuring function does.
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))


def _plain(value: Any) -> Any:
    """Return a number of numpy as JSON has it."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} in the rows of a case; use numbers, texts and lists.")
