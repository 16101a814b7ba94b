"""`maps.explore()`: the same program in a notebook's cell."""

from __future__ import annotations

import re
import sys

import pytest
from report.report_runs import events, log_mel, small_maps, sweep

from attnviz.errors import AttnVizError
from attnviz.report import payload_of, widget


@pytest.fixture(scope="module")
def maps():
    return small_maps("a dog barks, then rain falls", spectrogram=log_mel()[None, None])


def test_without_anywidget_it_says_what_to_install(maps, monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    widget._widget_class.cache_clear()
    with pytest.raises(AttnVizError, match=re.escape("pip install 'attnviz[notebook]'")):
        maps.explore()
    widget._widget_class.cache_clear()


def test_the_widget_holds_the_page_s_payload(maps):
    pytest.importorskip("anywidget", reason="the extra 'notebook' is not installed")
    shown = maps.explore(audio=sweep(), events=events())
    assert shown.payload == payload_of(maps, audio=sweep(), log_mel=log_mel(), events=events())
    assert shown.payload["spectrogram"]["rows"] == 40
    assert "attnvizReport" in str(shown._esm)
    assert ".attnviz" in str(shown._css)


def test_a_cell_shows_and_answers(maps, browser):
    """The module as a notebook loads it: imported, given a model and an element."""
    page = browser.new_page(viewport={"width": 800, "height": 700})
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.set_content("<!doctype html><title>cell</title><div id=a></div><div id=b></div>")
    page.add_style_tag(content=widget.style_text())
    render = """async ([module, payload, id]) => {
        const loaded = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
        loaded.default.render({ model: { get: () => payload }, el: document.getElementById(id) });
    }"""
    payload = payload_of(maps, audio=sweep(), log_mel=log_mel())
    for cell in ("a", "b"):
        page.evaluate(render, [widget.module_text(), payload, cell])
    first, second = page.locator("#a"), page.locator("#b")
    first.get_by_role("button", name="rain", exact=True).click()
    assert first.locator(".shown").inner_text() == "“rain”"
    assert second.locator(".shown").inner_text() == "“a”"  # two cells keep apart
    first.get_by_role("slider", name="Time in the clip").fill("1.5")
    assert first.locator(".clock").inner_text() == "1.50 / 3.50 s"
    assert second.locator(".clock").inner_text() == "0.00 / 3.50 s"
    assert said == []
    page.close()
