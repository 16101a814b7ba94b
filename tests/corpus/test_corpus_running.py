"""Corpus runs with real processes: exactly what is missing is computed, whatever happens to the workers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import popen_forkserver

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import zarr

from attnviz.corpus import Corpus, Plan, read_plan, run_corpus
from attnviz.corpus.arrays import ActivationStore
from attnviz.corpus.folder import locked
from attnviz.corpus.shards import ShardWorker
from attnviz.errors import CorpusError, OutputError


def results(folder):
    """Return the digests of all files that are results."""
    roots = [folder / name for name in ("shards", "activations.zarr", "samples", "files")]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for root in roots
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_every_clip_is_there_once_and_failures_have_reasons(finished):
    corpus = Corpus(finished[1])
    table = corpus.table()
    clips = table.drop_duplicates("clip")
    assert clips["index"].tolist() == list(range(22))
    failed = clips[clips["status"] == "failed"]
    assert failed["index"].tolist() == [6, 13, 20]
    assert failed["reason"].iloc[0] == "AudioError: the audio of c6 is damaged, as the plan asks for"
    counts = table[table["status"] == "done"].groupby("index")["phrase"].agg(["size", "max"])
    assert (counts["size"] == 1 + counts.index % 3).all()
    assert (counts["max"] == counts["size"] - 1).all()
    status = corpus.status()
    assert (status.clips_done, status.clips_failed, status.complete) == (22, 3, True)
    assert status.shards_with_failures == (1, 2, 4)
    assert "3 clips failed" in str(status)


def test_clips_have_no_folders_and_no_figures(finished):
    """Files are those of the corpus and of its shards, however many clips there are."""
    files = [path.relative_to(finished[1]) for path in finished[1].rglob("*") if path.is_file()]
    of_corpus = {"corpus.json", "clips.parquet", "run.json", "run.lock"}
    assert {path.name for path in files if len(path.parts) == 1} <= of_corpus
    assert {path.parts[0] for path in files if len(path.parts) > 1} == {"shards", "log", "activations.zarr"}
    assert {path.suffix for path in files} <= {".json", ".parquet", ".lock", ""}
    assert len(files) <= len(of_corpus) + 5 * (2 + 3) + 4  # a table, costs and three arrays a shard


def test_activations_hold_what_was_scored(finished):
    corpus = Corpus(finished[1])
    table, arrays = corpus.table(), corpus.activations
    assert dict(arrays.sizes) == {"clip": 22, "phrase": 3, "column": 48}
    row = table[(table["clip"] == "c8") & (table["phrase"] == 2)].iloc[0]
    curve = arrays["activation"].sel(clip="c8", phrase=2).to_numpy()
    share = arrays["share"].sel(clip="c8", phrase=2).to_numpy()
    assert np.isnan(curve[40:]).all()
    assert not np.isnan(curve[:40]).any()
    assert row["pearson"] == pytest.approx(np.corrcoef(curve[:40], share[:40])[0, 1], abs=1e-6)
    assert row["energy_pearson"] == pytest.approx(
        np.corrcoef(arrays["energy"].sel(clip="c8").to_numpy()[:40], share[:40])[0, 1], abs=1e-6
    )
    assert np.isnan(arrays["activation"].sel(clip="c6")).all()  # failed


def test_another_number_of_workers_gives_the_same_bytes_and_a_rerun_what_is_missing(finished, tmp_path):
    plan, first = finished
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    expected = results(copy)
    for shard in (1, 3):
        (copy / "shards" / f"00000{shard}.parquet").unlink()
        shutil.rmtree(copy / "activations.zarr" / "activation" / "c" / str(shard))
    before = {path: path.stat().st_mtime_ns for path in (copy / "shards").iterdir()}
    seen = []
    status = run_corpus(plan, copy, workers=1, progress=lambda done, shards: seen.append((done, shards)))
    assert seen == [(3, 5), (4, 5), (5, 5)]
    assert status.complete
    assert results(copy) == expected
    assert all(path.stat().st_mtime_ns == changed for path, changed in before.items())
    run_corpus(plan, copy, retry_failed=True)
    assert results(copy) == expected


def command_of(process):
    """Return the command line of a process; empty if it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def workers_of(coordinator):
    """Return the workers of a coordinator, which are children of its fork server."""
    servers = [one for one in coordinator.children() if "forkserver" in command_of(one)]
    return [worker for server in servers for worker in server.children()]


def kill_workers(stop, rng, killed, most):
    """Kill a random worker now and then."""
    while not stop.is_set() and len(killed) < most:
        time.sleep(rng.uniform(0.05, 0.3))
        with contextlib.suppress(psutil.NoSuchProcess):  # one has just ended
            if workers := workers_of(psutil.Process()):
                victim = rng.choice(workers)
                victim.send_signal(signal.SIGKILL)
                killed.append(victim.pid)


@pytest.mark.parametrize(
    ("deaths", "clips"), [(2, 40), pytest.param(50, 2000, marks=pytest.mark.slow)], ids=["quick", "fifty"]
)
def test_no_clip_is_lost_or_doubled_when_workers_are_killed(tmp_path, write_plan, deaths, clips):
    plan = write_plan(tmp_path, clips=clips, clips_per_shard=4, seconds=0.05)
    stop, killed = threading.Event(), []
    thread = threading.Thread(target=kill_workers, args=(stop, random.Random(0), killed, deaths))
    thread.start()
    try:
        status = _until_complete(plan, tmp_path / "out")
    finally:
        stop.set()
        thread.join()
    assert status.complete
    assert len(killed) == deaths or deaths == 2
    assert killed
    table = Corpus(tmp_path / "out").table(["index", "phrase"])
    assert not table.duplicated().any()
    assert sorted(table["index"].unique()) == list(range(clips))
    assert Corpus(tmp_path / "out").collect(tmp_path / "all.parquet") == len(table)
    assert not list((tmp_path / "out").rglob("*.partial"))


def _until_complete(plan, out):
    for _ in range(20):
        try:
            return run_corpus(plan, out, workers=2)
        except CorpusError as error:  # killed five times in a row
            assert "in a row" in str(error)
    raise AssertionError("never complete")


def test_a_worker_that_always_dies_ends_the_run(tmp_path, write_plan, monkeypatch):
    plan = write_plan(tmp_path, clips=2, seconds=3.0)
    monkeypatch.setattr("attnviz.corpus.local.MOST_DEATHS", 1)
    stop, killed = threading.Event(), []
    thread = threading.Thread(target=kill_workers, args=(stop, random.Random(0), killed, 10**9))
    thread.start()
    try:
        with pytest.raises(CorpusError, match="Workers died 1 times in a row"):
            run_corpus(plan, tmp_path / "out")
    finally:
        stop.set()
        thread.join()


def test_a_worker_dies_while_another_one_starts(tmp_path, write_plan, monkeypatch):
    plan = write_plan(tmp_path, clips=20, seconds=0.1)
    launch, started = popen_forkserver.Popen._launch, []

    def launch_after_a_death(self, process):
        if len(started) == 1:
            os.kill(started[0], signal.SIGKILL)
            time.sleep(0.5)  # the death is dealt with before the next worker has started
        launch(self, process)
        started.append(self.pid)

    monkeypatch.setattr(popen_forkserver.Popen, "_launch", launch_after_a_death)
    status = run_corpus(plan, tmp_path / "out", workers=2)
    assert status.complete
    assert len(started) == 3
    assert sorted(Corpus(tmp_path / "out").table(["index"])["index"].unique()) == list(range(20))


def test_a_worker_that_dies_before_it_has_its_settings_is_replaced(tmp_path, write_plan, monkeypatch):
    launch, started = popen_forkserver.Popen._launch, []

    def broken_once(self, process):
        started.append(process)
        if len(started) == 1:
            raise BrokenPipeError("its end of the pipe is closed")
        launch(self, process)

    monkeypatch.setattr(popen_forkserver.Popen, "_launch", broken_once)
    assert run_corpus(write_plan(tmp_path), tmp_path / "out", workers=2).complete


def test_two_coordinators(finished, tmp_path):
    plan, out = finished
    with locked(out), pytest.raises(CorpusError, match=rf"is being run by process {os.getpid()} on"):
        run_corpus(plan, out)
    run_corpus(plan, out)


@pytest.mark.slow
def test_workers_end_with_a_killed_coordinator(tmp_path, write_plan):
    plan = write_plan(tmp_path, clips=40, seconds=0.5)
    command = ["-m", "attnviz", "corpus", "run", str(plan), "--out", str(tmp_path / "out")]
    coordinator = subprocess.Popen([sys.executable, *command])
    process = psutil.Process(coordinator.pid)
    deadline = time.monotonic() + 300
    while not (workers := workers_of(process)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    coordinator.send_signal(signal.SIGKILL)
    coordinator.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    with locked(tmp_path / "out"):  # the lock died with it
        pass


def test_a_full_disk_ends_the_run_and_the_rest_goes_on_later(tmp_path, write_plan):
    plan = write_plan(tmp_path, clips=10)
    out = tmp_path / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OutputError, match="Is the disk full"):
        # A limit on the size of files is what an unprivileged test can set; workers inherit it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
        try:
            run_corpus(plan, out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((out / "shards").iterdir())
    assert run_corpus(plan, out).complete


def test_a_shard_in_its_own_process_equals_that_of_a_worker(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished[1], copy)
    expected = results(copy)
    (copy / "shards" / "000002.parquet").unlink()
    ShardWorker(copy).run(2)
    assert results(copy) == expected


def test_another_plan_in_the_folder_is_refused(finished, tmp_path, write_plan):
    plan = write_plan(tmp_path, fail_every=0)
    with pytest.raises(CorpusError, match=r"corpus of another plan .*differ in plan\.settings\.fail_every"):
        run_corpus(plan, finished[1])
    moved = write_plan(tmp_path)  # the same plan elsewhere is the same
    assert run_corpus(moved, finished[1]).complete
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(CorpusError, match=r"it has 'thesis\.tex'"):
        run_corpus(plan, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_the_digest_names_the_folder(tmp_path, write_plan):
    plan = write_plan(tmp_path, clips=2)
    status = run_corpus(plan)
    assert status.folder == str(tmp_path / f"corpus-{status.digest[:12]}")
    assert len(Corpus(status.folder)) == 2


def test_shards_of_others_and_damaged_ones_are_named(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished[1], copy)
    path = copy / "shards" / "000001.parquet"
    table = pq.read_table(path)
    for key, value, message in (
        (b"attnviz.format", b"0", "has format version 0; this attnviz reads version 2"),
        (b"attnviz.digest", b"ab" * 32, "belongs to the plan abababababab"),
    ):
        pq.write_table(table.replace_schema_metadata({**table.schema.metadata, key: value}), path)
        with pytest.raises(CorpusError, match=message):
            Corpus(copy).status()
        with pytest.raises(CorpusError, match=message):
            run_corpus(finished[0], copy)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorpusError, match=r"000001\.parquet is damaged"):
        Corpus(copy).table()
    path.unlink()
    with pytest.raises(CorpusError, match=r"1 shard of 5 missing, first 1"):
        Corpus(copy).collect(tmp_path / "all.parquet")
    content = json.loads((copy / "corpus.json").read_text())
    (copy / "corpus.json").write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(CorpusError, match="format version 99"):
        Corpus(copy)


def test_lost_and_altered_values_are_noticed(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished[1], copy)
    assert Corpus(copy).collect(tmp_path / "all.parquet") == len(Corpus(copy).table())
    with pytest.raises(OutputError, match="exists already"):
        Corpus(copy).collect(tmp_path / "all.parquet")
    zarr.open_group(copy / "activations.zarr")["share"][7, 0, 0] = 0.25
    with pytest.raises(CorpusError, match="share of shard 1 .* differs from its checksum"):
        Corpus(copy).collect(tmp_path / "again.parquet")
    assert not (tmp_path / "again.parquet").exists()


def test_a_region_that_is_no_shard_is_refused(tmp_path):
    store = ActivationStore(tmp_path / "a.zarr", clips=11, clips_per_shard=4, slots=2, columns=6)
    store.create()
    for start, clips in ((1, 4), (0, 3), (0, 5), (8, 4), (12, 1), (-4, 4)):
        with pytest.raises(CorpusError, match="is not a shard"):
            store.write_region("activation", start, np.ones((clips, 2, 6)))
    for start, clips in ((4, 4), (8, 3)):
        store.write_region("activation", start, np.full((clips, 2, 6), start))
    values = store.read_region("activation", 8)
    assert values.shape == (3, 2, 6)
    assert (values == 8).all()
    assert np.isnan(store.read_region("activation", 0)).all()
    assert len(list((tmp_path / "a.zarr" / "activation" / "c").rglob("0"))) >= 2


def test_plans_that_cannot_be_run(tmp_path, write_plan):
    plan = write_plan(tmp_path)
    good = plan.read_text()
    cases = {
        good.replace(
            "clips_per_shard", "clips_per_shards"
        ): r"clips_per_shards is not a setting\. Is clips_per_shard",
        good.replace("columns = 48", "colums = 48"): r"keep\.colums is not a setting\. Is keep\.columns meant",
        good.replace("attnviz.corpus.stand_in:make", "draw"): "task is 'draw'",
        good.replace("attnviz.corpus.stand_in:make", "no_such_module_x:make"): "no module 'no_such_module_x'",
        good.replace("[clips]", "[score]\nevents = 'file'\n[clips]"): "clips.events names no file",
        good.replace('task = "attnviz.corpus.stand_in:make"', 'task = "explain"'): r"\[settings\] are those of",
        good.replace("list.csv", "none.csv"): "none.csv is missing",
        good.replace('"attnviz.corpus.stand_in:make"', "3"): "task is 3; it must be text",
        "task =": "is not TOML",
    }
    for text, message in cases.items():
        plan.write_text(text)
        with pytest.raises(CorpusError, match=message):
            run_corpus(read_plan(plan), tmp_path / "out")
    plan.write_text(good)
    for text, message in (
        ("clip,caption\na,dog\na,rain\n", "'clip' has 1 name more than once: 'a'"),
        ("clip,caption\na,...\n", "1 clip without a word in the caption, first in line 2"),
        ("clip,words\na,dog\n", r"unknown columns \['words'\]"),
        ("clip\na\n", "no column 'caption'"),
        ("clip,caption\n", "lists no clip"),
        ("caption,seed\ndog,x\n", "line 2: seed is 'x'"),
        ("", "no column 'caption'"),
    ):
        (tmp_path / "list.csv").write_text(text)
        with pytest.raises(CorpusError, match=message):
            run_corpus(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CorpusError, match="executor='cloud' is unknown"):
        run_corpus(plan, tmp_path / "out", executor="cloud")
    with pytest.raises(CorpusError, match="no corpus.json in it"):
        Corpus(tmp_path)


def test_explained_clips_are_checked_before_anything_runs(tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.wav").write_bytes(b"x")
    (tmp_path / "list.csv").write_text("clip,caption\na.wav,a dog\nb.wav,rain\n")
    (tmp_path / "events.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\t1\t2\tdog\n")
    plan = {"task": "explain", "clips": {"list": "list.csv", "audio": "audio"}, "folder": str(tmp_path)}
    from attnviz.io.settings import read_settings

    with pytest.raises(CorpusError, match=r"1 audio file of 2 missing .* 'b\.wav'"):
        run_corpus(read_settings(Plan, plan, ""), tmp_path / "out")
    (tmp_path / "audio" / "b.wav").write_bytes(b"y")
    plan["clips"] |= {"events": "events.tsv"}
    plan["score"] = {"events": "file"}
    with pytest.raises(CorpusError, match=r"no events of 1 clip of 2: 'b\.wav'"):
        run_corpus(read_settings(Plan, plan, ""), tmp_path / "out")
