"""`attnviz.explore(maps)`: the page in a notebook's cell."""

from __future__ import annotations

import html
import inspect
import re

import numpy as np
import pytest
from report.report_runs import Parsed, events, log_mel, small_maps, sweep

import attnviz
from attnviz.audio import write_wav
from attnviz.errors import AudioError, OutputError, PromptError
from attnviz.report import explore, payload_of


@pytest.fixture(scope="module")
def maps():
    return small_maps("a dog barks, then rain falls", spectrogram=log_mel()[None, None])


def test_it_holds_the_page_s_payload(maps):
    shown = explore(maps, audio=sweep(), events=events())
    assert shown.payload == payload_of(maps, audio=sweep(), log_mel=log_mel(), events=events())
    assert shown.payload["spectrogram"]["rows"] == 40


def test_audio_may_be_a_file(maps, tmp_path):
    write_wav(tmp_path / "x.wav", sweep())
    for given in (tmp_path / "x.wav", str(tmp_path / "x.wav")):
        assert explore(maps, audio=given).payload["audio"]["seconds"] == 3.5
    with pytest.raises(AudioError, match=r"nosuch\.wav"):
        explore(maps, audio=tmp_path / "nosuch.wav")


def test_help_names_every_option(maps):
    for name in inspect.signature(attnviz.explore).parameters:
        assert name in attnviz.explore.__doc__
    assert "x.wav" not in explore(maps, audio=np.zeros(16_000, np.float32)).payload["name"]


def test_a_phrase_asked_for_is_shown_first(maps):
    shown = explore(maps, phrases=["barks, then rain"]).payload
    assert shown["items"][shown["first"]]["label"] == "barks, then rain"
    with pytest.raises(PromptError, match="cat"):
        explore(maps, phrases=["a cat"])


def test_it_can_be_saved_as_a_page(maps, tmp_path):
    path = explore(maps).save(tmp_path / "maps.html")
    assert Parsed(path.read_text("utf-8")).payload["prompt"] == maps.prompts[0]
    with pytest.raises(OutputError, match="exists already"):
        explore(maps).save(path)


def test_a_cell_shows_and_answers(maps, browser):
    """Two cells of a notebook, and its HTML export, hold no more than this: frames that keep apart and grow."""
    shown = explore(maps, audio=sweep())
    assert "maps.html" in repr(shown) or "save(path)" in repr(shown)
    page = browser.new_page(viewport={"width": 900, "height": 700})
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    cell = shown._repr_html_()
    assert html.unescape(re.search(r'srcdoc="([^"]*)"', cell)[1]).startswith("<!doctype html>")
    page.set_content(f"<!doctype html><title>cells</title><div>{cell}</div><div>{cell}</div>")
    first, second = (page.frame_locator(f"div:nth-of-type({number}) > iframe") for number in (1, 2))
    second.locator(".shown").scroll_into_view_if_needed()
    first.get_by_role("button", name="rain", exact=True).click()
    assert first.locator(".shown").inner_text() == "“rain”"
    assert second.locator(".shown").inner_text() != "“rain”"
    first.get_by_role("slider", name="Time in the clip").fill("1.5")
    assert first.locator(".clock").inner_text() == "1.50 / 3.50 s"
    assert second.locator(".clock").inner_text() == "0.00 / 3.50 s"
    frame, inside = page.locator("iframe").first, first.locator("main")
    assert frame.bounding_box()["height"] == pytest.approx(inside.bounding_box()["height"], abs=4)
    prompt = first.locator(".prompt").bounding_box()
    assert prompt["x"] - frame.bounding_box()["x"] >= 12  # its padding
    assert said == []
    page.close()
