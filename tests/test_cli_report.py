"""``attnviz report``: from a generation to a page, and what it says where it cannot."""

from __future__ import annotations

import pytest
from report.report_runs import HOSTILE, Parsed
from typer.testing import CliRunner

from attnviz.cli.app import app
from attnviz.report.run_folder import is_run


@pytest.fixture
def attnviz_command():
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def generated(checkpoint, folder, prompt, *settings):
    arguments = ["generate", prompt, "--model", checkpoint, "--out", folder, "--guidance", 1, *settings]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::attnviz.errors.TruncationWarning")
def test_from_a_prompt_to_a_page(adapter_checkpoint, attnviz_command, tmp_path):
    run = generated(
        adapter_checkpoint, tmp_path / "run", HOSTILE, "--steps", 3, "--keep", "step", "--duration", 9.5
    )
    result = attnviz_command("report", run)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Written to {run / 'report.html'} (")
    assert is_run(run)
    page = (run / "report.html").read_bytes()
    assert len(page) < 10_000_000
    payload = Parsed(page.decode()).payload
    assert payload["prompt"] == HOSTILE
    assert [one["name"] for one in payload["readouts"][:3]] == ["mean", "auffusion", "down.0.0"]
    assert len(payload["readouts"]) == 19  # sharp is the last
    assert payload["axes"]["audio_seconds"] == 9.5
    assert len(payload["views"]) > 3
    again = attnviz_command("report", run)
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    assert (run / "report.html").read_bytes() == page


@pytest.mark.slow
@pytest.mark.parametrize(
    "prompt", ["dog", "incomprehensibilities " * 12 + "and a dog whose words are cut off " * 9]
)
@pytest.mark.filterwarnings("ignore::attnviz.errors.TruncationWarning")
def test_one_token_and_more_tokens_than_fit(prompt, adapter_checkpoint, attnviz_command, tmp_path):
    run = generated(adapter_checkpoint, tmp_path / "run", prompt, "--steps", 1)
    result = attnviz_command("report", run)
    assert result.exit_code == 0, result.output
    payload = Parsed((run / "report.html").read_text("utf-8")).payload
    assert "".join(piece["text"] for piece in payload["pieces"]) == prompt
    words = [item for item in payload["items"] if item["kind"] == "word"]
    assert 0 < len(words) <= 75
    assert (len(words) < len(prompt.split())) == (prompt != "dog")
    assert any("cut off" in notice for notice in payload["notices"]) == (prompt != "dog")


def test_not_a_run(attnviz_command, tmp_path):
    result = attnviz_command("report", tmp_path)
    assert result.exit_code == 1
    assert "is not a run folder" in result.stderr
    assert "attnviz generate, attnviz explain and attnviz edit" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())
