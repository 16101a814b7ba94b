"""`attnviz corpus`: run, status and collect."""

from __future__ import annotations

import json

import pandas as pd
from typer.testing import CliRunner

from attnviz.cli.app import app


def test_a_plan_is_run_shown_and_collected(tmp_path):
    (tmp_path / "list.csv").write_text("caption\n" + "dog rain\n" * 6)
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'task = "attnviz.corpus.stand_in:make"\nclips_per_shard = 4\n[clips]\nlist = "list.csv"\n'
        "[settings]\nfail_every = 5\ncolumns = 30\n"
    )
    run = CliRunner().invoke
    found = run(app, ["--json", "corpus", "run", str(plan), "--out", str(tmp_path / "out")])
    answer = json.loads(found.stdout)
    assert found.exit_code == 3  # a clip failed
    assert (answer["clips_done"], answer["clips_failed"], answer["complete"]) == (6, 1, True)
    assert "1 clip failed" in run(app, ["corpus", "status", str(tmp_path / "out")]).output
    found = run(app, ["corpus", "collect", str(tmp_path / "out"), "--out", str(tmp_path / "all.parquet")])
    assert found.exit_code == 0, found.output
    found = run(app, ["corpus", "collect", str(tmp_path / "out"), "--out", str(tmp_path / "all.parquet"),
                      "--overwrite", "--align"])  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "10 phrases of 5 clips, readout 'mean', columns of 341.3 ms" in found.output
    assert "map minus order: ROC-AUC" in found.output
    assert len(pd.read_parquet(tmp_path / "all.parquet")) == 11  # two phrases of five clips, and a failed one
    found = run(app, ["corpus", "run", str(plan), "--executor", "slurm", "--slurm", "partition"])
    assert found.exit_code == 1
    assert "NAME=VALUE" in found.output
    assert run(app, ["corpus", "status", str(tmp_path)]).exit_code == 1
