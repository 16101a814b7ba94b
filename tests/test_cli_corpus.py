"""`attnviz corpus`: run, status and collect."""

from __future__ import annotations

import json

import pandas as pd
import pytest
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
    assert found.exit_code == 3, found.output
    assert "1 of 6 clips failed" in found.output
    found = run(app, ["corpus", "collect", str(tmp_path / "out"), "--out", str(tmp_path / "all.parquet"),
                      "--overwrite", "--align"])  # fmt: skip
    assert found.exit_code == 3, found.output
    assert "10 phrases of 5 clips, readout 'mean', columns of 341.3 ms" in found.output
    assert "map minus order: ROC-AUC" in found.output
    assert len(pd.read_parquet(tmp_path / "all.parquet")) == 11  # two phrases of five clips, and a failed one
    found = run(app, ["corpus", "run", str(plan), "--executor", "slurm", "--slurm", "partition"])
    assert found.exit_code == 1
    assert "NAME=VALUE" in found.output
    assert run(app, ["corpus", "status", str(tmp_path)]).exit_code == 1


def test_what_cannot_be_done_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "list.csv").write_text("caption\na dog barks\nrain\n")
    plan = tmp_path / "plan.toml"
    text = 'task = "attnviz.corpus.stand_in:make"\n[clips]\nlist = "list.csv"\n[settings]\nfail_every = 1\n'
    plan.write_text(text)
    run = CliRunner().invoke
    found = run(app, ["corpus", "run", str(plan), "--out", str(tmp_path / "out"), "--gpus", "1"])
    assert "gpus is for the executors ray and slurm" in found.output
    assert not (tmp_path / "out").exists()
    found = run(app, ["corpus", "run", str(plan), "--out", str(tmp_path / "out")])
    assert found.exit_code == 3
    assert "is a setting of the plan wrong?" in found.output
    assert (
        "2 x AudioError: the audio of 00000000 is damaged, as the plan asks for (clip '00000000', ...)"
        in found.output
    )
    out = tmp_path / "all.parquet"
    found = run(app, ["corpus", "collect", str(tmp_path / "out"), "--out", str(out), "--align"])
    assert found.exit_code == 1
    assert "has no phrase with scores" in " ".join(found.output.split())
    assert not out.exists()
    found = run(app, ["corpus", "collect", str(tmp_path / "out"), "--out", str(tmp_path / "all.csv")])
    assert "is written as .parquet" in found.output
    plan.write_text(text.replace("fail_every", "fail_evry"))
    found = run(app, ["corpus", "run", str(plan), "--out", str(tmp_path / "other")])
    assert "settings.fail_evry is not a setting. Is settings.fail_every meant?" in " ".join(found.output.split())


def test_a_column_that_one_shard_lacks_is_empty_there(tmp_path):
    """Of a shard in which every clip failed, no fact of the task is known."""
    (tmp_path / "list.csv").write_text("caption\na dog barks\nrain\nbell\n")
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'task = "attnviz.corpus.stand_in:make"\nclips_per_shard = 1\n[clips]\nlist = "list.csv"\n[settings]\n'
        "fail_every = 2\n"
    )
    CliRunner().invoke(app, ["corpus", "run", str(plan), "--out", str(tmp_path / "out")])
    from attnviz.corpus import Corpus
    from attnviz.errors import CorpusError

    corpus = Corpus(tmp_path / "out")
    table = corpus.table(["clip", "level_dbfs"])
    assert table.groupby("clip")["level_dbfs"].first().isna().tolist() == [False, True, False]
    with pytest.raises(CorpusError, match=r"have no column \['levels'\]"):
        corpus.table(["levels"])
