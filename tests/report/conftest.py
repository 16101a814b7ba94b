"""Run folders and a browser for the report's tests."""

from __future__ import annotations

import importlib.util
import shutil

import pytest
from report.report_runs import events, small_maps, write_run

from attnviz.alignment import align
from attnviz.report import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def report_run(tmp_path_factory):
    """A run folder with everything: steps kept apart, events, scores, a hostile prompt, and its report."""
    maps, table = small_maps(steps=3), events()
    table = table[table["label"] != "click"]  # has no length: reading it back would warn
    named = table[~table["label"].str.contains("bell")]
    spans = [(maps.prompts[0].find(label), maps.prompts[0].find(label) + len(label)) for label in named["label"]]
    scored = align(maps, named.assign(span=spans))
    folder = tmp_path_factory.mktemp("report") / "run"
    write_run(folder, maps, events=table, alignment=scored.table)
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium of the system, driven by playwright; skips where one of the two is missing."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed (pip install 'attnviz[dev]')")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)} is on the path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Containers have no user namespace for Chromium's sandbox; only our own pages are opened.
        launched = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield launched
        launched.close()
