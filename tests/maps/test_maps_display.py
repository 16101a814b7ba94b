"""What maps show of themselves."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from maps.maps_synthetic import PROMPT, SMALL, captured, make, table

NASTY = """<script>alert("x")</script> 'quote' & 🐕 dog"""


@pytest.mark.parametrize("render", [repr, lambda maps: maps._repr_html_()], ids=["text", "html"])
def test_it_tells_what_is_inside(render):
    import numpy as np

    text = render(make(spectrogram=np.zeros((1, 1, 40, 72))))
    for fact in (
        PROMPT, "a, dog, barks, then, rain, falls", "5 x 9: down.0.0, up.2.0", "3 x 5: down.1.0, up.1.0",
        "16 of 16 key positions", "mean of 3 denoiser calls, timestep 981 to 1", "mean of 4", "conditional",
        "0.72 s, 0 to 8000 Hz, padding after 0.6 s; with spectrogram", "KiB", "complete", "1 prompt, 1 image",
    ):  # fmt: skip
        assert fact in text, fact
    assert "INCOMPLETE" not in text


def test_it_tells_what_was_kept_and_that_the_run_was_interrupted():
    layers = captured(SMALL, steps=3, heads=4, both=True, images=2)
    text = repr(make(layers, complete=False))
    assert "3 kept, timestep 981 to 1" in text
    assert "4 kept of 4" in text
    assert "both" in text
    assert "INCOMPLETE" in text
    assert "2 images" in text
    narrowed = repr(make(layers).select(steps=1, heads=[0, 1], encoder=0))
    assert "1 kept, timestep 501" in narrowed
    assert "2 kept of 4" in narrowed
    assert "of encoder 0" in narrowed


def test_several_prompts_are_numbered_and_many_counted():
    maps = make(captured(SMALL, prompts=6), tokens=[table(f"dog number {i}") for i in range(6)])
    text = repr(maps)
    assert "prompt 0" in text
    assert "dog number 3" in text
    assert "dog number 4" not in text
    assert "and 2 more prompts" in text


def test_a_long_prompt_is_shortened():
    maps = make(tokens=[table("woof " * 400)])
    assert max(map(len, repr(maps).splitlines())) < 130


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert {name for name, _ in attrs} <= {"style"}

    def handle_data(self, data):
        self.text += data


def test_html_escapes_prompts_and_words():
    parser = Tags()
    parser.feed(make(tokens=[table(NASTY, keys=64)])._repr_html_())
    assert parser.tags == {"table", "caption", "tbody", "tr", "th", "td"}
    assert "<script>alert" in parser.text
    assert "🐕" in parser.text
    assert len(re.findall("<table", make()._repr_html_())) == 1
