"""Plans of the stand-in model, and a corpus of them that is run once."""

from __future__ import annotations

import csv

import pytest

from attnviz.corpus import run_corpus

PLAN = """task = "attnviz.corpus.stand_in:make"
clips_per_shard = {clips_per_shard}
[clips]
list = "list.csv"
[settings]
columns = 40
fail_every = {fail_every}
sources = 9
seconds = {seconds}
[keep]
columns = 48
"""


@pytest.fixture
def write_plan():
    return _write


def _write(folder, *, clips=22, clips_per_shard=5, fail_every=7, seconds=0.0):
    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "caption"])
        # One, two or three phrases
        writer.writerows(
            [[f"c{number}", " ".join(("dog", "rain", "bell")[: 1 + number % 3])] for number in range(clips)]
        )
    path = folder / "plan.toml"
    path.write_text(PLAN.format(clips_per_shard=clips_per_shard, fail_every=fail_every, seconds=seconds))
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A corpus of 22 clips in 5 shards, of which clips 6, 13 and 20 failed: its plan and its folder."""
    folder = tmp_path_factory.mktemp("corpus")
    plan = _write(folder)
    run_corpus(plan, folder / "out", workers=2)
    return plan, folder / "out"
