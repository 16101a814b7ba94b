"""Ray and Slurm: the same bytes as local processes, and what was killed is computed."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import random
import signal
import sys
import threading
import time

import psutil
import pytest

from attnviz.corpus import Corpus, run_corpus
from attnviz.errors import CorpusError


def results(folder):
    roots = [folder / name for name in ("shards", "activations.zarr")]
    files = [path for root in roots for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


SBATCH = """#!{python}
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
open({log!r}, "a").write(script)
command = next(line for line in script.splitlines() if line.startswith("srun"))
command = command[command.index({python!r}) :].split()
first, last = map(int, re.search("--array=([0-9]+)-([0-9]+)", script).groups())
names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
given = dict.fromkeys(names, "0") | dict.fromkeys(("SLURM_NTASKS", "SLURM_NNODES", "SLURM_JOB_NUM_NODES"), "1")
given |= {{"SLURM_JOB_NODELIST": "here", "SUBMITIT_EXECUTOR": "slurm", "SLURM_ARRAY_JOB_ID": "7"}}
for task in range(first, last + 1) if {runs} else ():
    own = {{"SLURM_JOB_ID": str(100 + task), "SLURM_ARRAY_TASK_ID": str(task)}}
    subprocess.Popen(command, env=os.environ | given | own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("Submitted batch job 7")
"""


def fake_slurm(folder, monkeypatch, *, runs):
    """Put an sbatch into the path that runs the tasks of an array as processes, or loses all; return its log."""
    log = folder / "sbatch.log"
    state = "RUNNING" if runs else "FAILED"  # of a task without a result, which submitit looks for first
    sacct = f"#!/bin/sh\necho 'JobID|State|NodeList'\nfor t in 0 1 2 3; do echo \"7_$t|{state}|here\"; done\n"
    text = SBATCH.format(python=sys.executable, log=str(log), runs=runs)
    for name, content in (("sbatch", text), ("srun", "#!/bin/sh\n"), ("sacct", sacct)):
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    return log


def test_jobs_of_slurm_that_fail_leave_their_shards_for_a_rerun(tmp_path, write_plan, monkeypatch):
    pytest.importorskip("submitit")
    log = fake_slurm(tmp_path, monkeypatch, runs=False)
    parameters = {"slurm_partition": "gpu", "timeout_min": 7}
    status = run_corpus(
        write_plan(tmp_path, clips=9, clips_per_shard=2), tmp_path / "out", executor="slurm", workers=3, gpus=1,
        slurm=parameters,
    )  # fmt: skip
    assert (status.shards_done, status.shards, status.complete) == (0, 5, False)
    script = log.read_text()
    for option in ("--array=0-2", "--partition=gpu", "--time=7", "--cpus-per-task=1", "--gpus-per-node=1"):
        assert f"#SBATCH {option}" in script


@pytest.mark.slow
def test_slurm_arrays_vs_local_processes(finished, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    fake_slurm(tmp_path, monkeypatch, runs=True)
    status = run_corpus(finished[0], tmp_path / "out", executor="slurm", workers=2)
    assert status.complete
    assert results(tmp_path / "out") == results(finished[1])


def test_slurm_is_refused_where_it_is_not_or_parameters_are_wrong(tmp_path, write_plan, monkeypatch):
    pytest.importorskip("submitit")
    plan = write_plan(tmp_path, clips=2)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CorpusError, match="submitit cannot use Slurm"):
        run_corpus(plan, tmp_path / "out", executor="slurm")
    with pytest.raises(CorpusError, match="submitit cannot use Slurm"):
        run_corpus(plan, tmp_path / "out", executor="slurm", slurm={"cluster": "debug", "partitions": "gpu"})
    with pytest.raises(CorpusError, match="whole GPUs"):
        run_corpus(plan, tmp_path / "out", executor="slurm", gpus=0.5)


def test_what_is_not_installed_is_named(tmp_path, write_plan, monkeypatch):
    plan = write_plan(tmp_path, clips=2)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("ray", "submitit") else find(name)
    )
    for executor, package in (("ray", "ray"), ("slurm", "submitit")):
        with pytest.raises(CorpusError, match=f"pip install {package}"):
            run_corpus(plan, tmp_path / "out", executor=executor)
    assert not (tmp_path / "out").exists()


def command_of(process):
    """Return the command line of a process; empty if it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.slow
def test_ray_vs_local_processes_while_actors_are_killed(tmp_path, write_plan):
    pytest.importorskip("ray")
    plan = write_plan(tmp_path, clips=60, clips_per_shard=4, seconds=0.1)
    run_corpus(plan, tmp_path / "local", workers=2)
    stop, killed = threading.Event(), []

    def kill():
        rng = random.Random(0)
        while not stop.is_set() and len(killed) < 3:
            time.sleep(rng.uniform(0.2, 0.8))
            children = psutil.Process().children(recursive=True)
            actors = [one for one in children if "ShardWorker" in command_of(one)]
            if actors:
                victim = rng.choice(actors)
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.send_signal(signal.SIGKILL)
                killed.append(victim.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        status = run_corpus(plan, tmp_path / "ray", executor="ray", workers=2)
    finally:
        stop.set()
        thread.join()
    assert killed
    assert status.complete
    assert results(tmp_path / "ray") == results(tmp_path / "local")
    assert len(Corpus(tmp_path / "ray").table(["index"])["index"].unique()) == 60
