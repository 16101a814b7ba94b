"""The page as a file: whole, self-contained, and nothing of a prompt becomes markup or code."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil

import pytest
from report.report_runs import HOSTILE, Parsed, small_maps, write_run

from attnviz.errors import AttnVizError, AudioError, EventsError, MapsError, OutputError, PromptError
from attnviz.report import page, page_of, payload_of, write_report
from attnviz.report.page import FILE, is_report, program_text, template_file

TWO_CLIPS = b"filename\tonset\toffset\tevent_label\na.wav\t0\t1\tx\nb.wav\t0\t1\tx\n"


@pytest.fixture(scope="module")
def parsed(report_run):
    return Parsed((report_run / FILE).read_text("utf-8"))


def hashed(text):
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def test_nothing_of_the_prompt_becomes_markup(parsed):
    assert [tag for tag, _ in parsed.tags if tag in ("b", "i", "script", "img", "iframe")] == ["script", "script"]
    assert parsed.payload["prompt"] == HOSTILE
    (title,) = parsed.texts["title"]
    assert title.startswith(HOSTILE[:100])
    assert title.endswith(" · attnviz report")
    assert "{{program}}" in parsed.payload["prompt"]  # what was filled in was not filled again
    assert parsed.texts["script"][0].count("attnvizReport(") == 0


@pytest.mark.parametrize(
    "prompt", ["</title><script>x</script>", "a {{payload}} dog", "\u2028 dog \x00", "<!--<script> dog"]
)
def test_any_prompt_is_read_back(prompt):
    payload = {"prompt": prompt, "items": []}
    found = Parsed(page_of(payload).decode())
    assert found.payload == payload
    assert [tag for tag, _ in found.tags].count("script") == 2
    assert len(found.texts["script"]) == 2


def test_a_prompt_of_half_a_character_is_still_a_page():
    assert "\ud83d" in Parsed(page_of({"prompt": "dog \ud83d"}).decode()).payload["prompt"]


def test_the_policy_lets_only_the_program_run(parsed):
    (style,) = parsed.texts["style"]
    assert parsed.policy == (
        f"default-src 'none'; script-src {hashed(parsed.texts['script'][1])}; style-src {hashed(style)}; "
        "media-src blob:; img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert "unsafe" not in parsed.policy


def test_nothing_is_fetched(parsed):
    links = [
        value for _, attrs in parsed.tags for name, value in attrs.items() if name in ("src", "href", "action")
    ]
    assert links == ["data:,"]
    assert not [name for _, attrs in parsed.tags for name in attrs if name.startswith("on") or name == "style"]


def test_the_page_s_own_files_are_plain():
    own = program_text() + template_file("style.css")
    for risky in (
        *("</script", "</style", "<!--", "{{", "\r", "innerHTML", "outerHTML", "insertAdjacent", "document.write"),
        *("eval(", "import(", "import ", "@import", "url(", "fetch(", "XMLHttp", "WebSocket", "//cdn"),
    ):
        assert risky not in own, risky
    assert own.replace("http://www.w3.org/2000/svg", "").count("http") == 0


def test_the_payload_is_that_of_the_run(parsed, report_run):
    assert parsed.payload["record"][0]["rows"][2] == ["seed", "9223372036854775807"]
    assert [event["label"] for event in parsed.payload["events"]] == ["barks", "rain", "a <i>bell</i>"]
    assert {row["method"] for row in parsed.payload["scores"]["rows"]} >= {"map", "constant", "reversed"}
    assert (report_run / FILE).stat().st_size < 10_000_000


def test_a_report_is_replaced_only_when_asked_for(report_run, tmp_path):
    run = shutil.copytree(report_run, tmp_path / "run")
    before = (run / FILE).read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_report(run)
    write_report(run, overwrite=True)
    assert (run / FILE).read_bytes() == before
    (run / FILE).write_text("<!doctype html> my thesis")
    with pytest.raises(OutputError, match="is not replaced"):
        write_report(run, overwrite=True)
    assert not is_report(run / FILE)
    assert not is_report(run)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        ({"run.json": None}, AttnVizError, "no run.json"),
        ({"run.json": b"{oops"}, AttnVizError, "run.json is not JSON that can be read"),
        ({"run.json": b'{"experiment": 3}'}, AttnVizError, "another program"),
        ({"run.json": b"[" * 100_000}, AttnVizError, "run.json is not JSON that can be read"),
        ({"maps.zarr": None}, MapsError, "maps.zarr does not exist"),
        ({"maps.zarr/zarr.json": None}, MapsError, "does not contain maps"),
        ({"spectrogram.npz": b"PK"}, MapsError, "cannot read log_mel from .*spectrogram.npz"),
        ({"spectrogram.npz": b""}, MapsError, "cannot read log_mel from .*spectrogram.npz"),
        ({"audio.wav": b"RIFF"}, AudioError, "audio.wav"),
        ({"events.tsv": b"filename\tonset\n"}, EventsError, "events.tsv"),
        ({"events.tsv": TWO_CLIPS}, EventsError, "2 clips"),
        ({"alignment.csv": b"a,b\n1,2\n"}, AttnVizError, "alignment.csv lacks the columns phrase"),
        ({"alignment.csv": b""}, AttnVizError, "alignment.csv cannot be read"),
    ],
)  # fmt: skip
def test_damaged_runs_are_refused_and_nothing_is_written(damage, error, message, report_run, tmp_path):
    run = shutil.copytree(report_run, tmp_path / "run")
    (run / FILE).unlink()
    for name, content in damage.items():
        if content is not None:
            (run / name).write_bytes(content)
        elif (run / name).is_dir():
            shutil.rmtree(run / name)
        else:
            (run / name).unlink()
    left = sorted(path.name for path in run.iterdir())
    with pytest.raises(error, match=message):
        write_report(run)
    assert sorted(path.name for path in run.iterdir()) == left


def test_no_folder_at_all(tmp_path):
    with pytest.raises(AttnVizError, match="there is no such folder"):
        write_report(tmp_path / "nowhere")


def test_a_spectrogram_of_another_run_is_refused(report_run, tmp_path):
    import numpy as np

    run = shutil.copytree(report_run, tmp_path / "run")
    np.savez(run / "spectrogram.npz", log_mel=np.zeros((40, 399), np.float32))
    with pytest.raises(MapsError, match=r"\(40, 399\).*\(40, 400\)"):
        write_report(run, overwrite=True)


def test_a_page_above_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(page, "LIMIT", 50_000)
    with pytest.raises(OutputError, match="exceeds the limit"):
        page_of(payload_of(small_maps("a dog barks")))


def test_not_a_number_is_no_json():
    with pytest.raises(ValueError, match="JSON"):
        page_of({"prompt": "dog", "value": float("nan")})
    assert json.dumps("<").replace("<", "\\u003c") == '"\\u003c"'


def test_two_runs_need_two_folders_and_phrases_a_prompt(tmp_path):
    for name, prompt in (("one", "a dog barks"), ("other", "a cat meows")):
        write_run(tmp_path / name, small_maps(prompt))
    with pytest.raises(AttnVizError, match="given twice"):
        write_report(tmp_path / "one", tmp_path / "one")
    with pytest.raises(PromptError, match="bird"):
        write_report(tmp_path / "one", tmp_path / "other", phrases=["bird"])
    path = write_report(tmp_path / "one", tmp_path / "other", out=tmp_path / "page.html", phrases=["a cat"])
    runs = json.loads(Parsed(path.read_text("utf-8")).texts["script"][0])["runs"]
    assert [run["name"] for run in runs] == ["one", "other"]
    assert "a cat" in [item["label"] for item in runs[1]["items"]]
    assert not (tmp_path / "one" / FILE).exists()
