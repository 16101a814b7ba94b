"""The page in a real browser: it plays, it answers to mouse and keyboard, it fetches and runs nothing else."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from report.report_runs import GRID, HOSTILE, Parsed, events, log_mel, small_maps, stored_map, sweep, write_run

from attnviz.alignment import align
from attnviz.audio import SpectrogramGrid
from attnviz.events import read_tsv, write_tsv
from attnviz.maps import AttentionMaps, LayerAttention
from attnviz.maps.layer import short_name
from attnviz.plots.style import ATTENTION, attention_colours
from attnviz.report import page_of, payload_of, write_report
from attnviz.report.page import FILE
from attnviz.testing import make_tokenizer
from attnviz.text import token_table

SIZES = [(1280, 900), (390, 844)]
PIXELS = "() => document.querySelector('.area-map canvas:nth-of-type(2)').toDataURL()"


@contextmanager
def opened(
    browser, path, size=SIZES[0], scheme="light", expected=("Canvas2D: Multiple readback",)
):  # the tests' own reading of pixels
    """Open a page, with all that the browser complains of or asks for recorded."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, offline=True
    )
    context.set_default_timeout(120_000)  # of a machine that is busy with other tests
    page = context.new_page()
    said, asked, dialogs = [], [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("requestfailed", lambda request: asked.remove(request.url) if request.failure == "csp" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(path.resolve().as_uri())
    page.get_by_role("toolbar").first.wait_for()
    yield page
    assert not any(button.is_disabled() for button in page.locator(".play").all())  # or the audio failed
    assert [text for text in said if not any(part in text for part in expected)] == []
    assert {url.split(":")[0] for url in asked} <= {"file", "blob", "data"}
    assert [url for url in asked if url.startswith("file")] == [path.resolve().as_uri()]
    assert dialogs == []
    context.close()


def played_until(page, reached):
    """Wait for the clock; looked at from here, since the page's policy lets no waiting script in."""
    for _ in range(400):
        if reached(float(page.locator(".clock").inner_text().split()[0])):
            return
        page.wait_for_timeout(25)
    pytest.fail(f"the clock stands at {page.locator('.clock').inner_text()}")


def pressed(page):
    return page.locator(".word[aria-pressed=true]").all_inner_texts()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_and_fits(browser, report_run, size, scheme):
    with opened(browser, report_run / FILE, size, scheme) as page:
        assert (
            page.locator(".prompt").evaluate("e => [...e.childNodes].map(n => n.textContent).join('')") == HOSTILE
        )
        assert page.evaluate("document.querySelectorAll('script').length") == 2
        assert page.evaluate("window.attacked") is None
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        background = page.locator("main").evaluate("e => getComputedStyle(e).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) < 200) == (scheme == "dark")
        area = page.locator(".area-spectrogram").bounding_box()
        assert area["width"] > 0.75 * size[0]
        assert area["height"] >= 190
        assert page.locator(".area-map .padding").bounding_box()["x"] == pytest.approx(
            page.locator(".area-map").bounding_box()["x"] + area["width"] * 3.5 / 4, abs=1.5
        )
        ticks = page.locator(".plot").first.locator(".axis-hz span").all_inner_texts()
        assert {"8k", "1k"} <= set(ticks)
        for overlapping in page.locator(".axis-hz").all():
            boxes = sorted(tick.bounding_box()["y"] for tick in overlapping.locator("span").all())
            assert min(np.diff(boxes)) >= 11


@pytest.mark.parametrize("size", SIZES)
def test_the_playhead_moves_while_it_plays(browser, report_run, size):
    with opened(browser, report_run / FILE, size) as page:
        heads = page.locator(".playhead")
        assert heads.count() == 2 + page.locator(".track").count()

        def places():
            return [head.bounding_box()["x"] for head in heads.all()[:3]]

        start = places()
        page.get_by_role("button", name="Play").click()
        pause = page.get_by_role("button", name="Pause")
        pause.wait_for()
        played_until(page, lambda clock: clock > 0.5)
        pause.click()
        page.get_by_role("button", name="Play").wait_for()
        stopped = places()
        assert all(after > before + 10 for before, after in zip(start, stopped, strict=True))
        page.wait_for_timeout(150)
        assert places() == stopped
        clock, whole = map(float, re.findall(r"[\d.]+", page.locator(".clock").inner_text()))
        assert whole == 3.5
        area = page.locator(".area-map").bounding_box()
        assert stopped[1] - area["x"] == pytest.approx(area["width"] * clock / 4, abs=2.5)


def test_it_plays_to_the_end_and_again(browser, report_run):
    with opened(browser, report_run / FILE) as page:
        page.get_by_role("slider", name="Time in the clip").fill("3")
        page.get_by_role("button", name="Play").click()
        played_until(page, lambda clock: clock == 3.5)
        page.get_by_role("button", name="Play").click()  # at the end it is "Play" again, and starts anew
        played_until(page, lambda clock: 0 < clock < 3.4)


def test_it_plays_from_wherever_it_is_asked_to(browser, report_run):
    with opened(browser, report_run / FILE) as page:
        area = page.locator(".area-spectrogram").bounding_box()
        page.get_by_role("button", name="Play").click()
        for share in (0.8, 0.1, 0.5, 0.86, 0.3):  # of 4 s
            page.mouse.click(area["x"] + share * area["width"], area["y"] + 30)
            played_until(page, lambda clock, start=4 * share: start + 0.01 <= clock <= 3.5)
            if page.locator(".play").get_attribute("aria-label") == "Play":  # it has come to the end meanwhile
                page.locator(".play").click()


@pytest.mark.parametrize("size", SIZES)
def test_a_solo_plays_in_time_with_the_clip(browser, tmp_path, size):
    maps = small_maps("a dog barks, then rain falls", steps=3)
    with opened(browser, write_report(write_run(tmp_path / "run", maps)), size) as page:
        dog, rain = (page.get_by_role("button", name=f"Solo: {phrase}") for phrase in ("dog barks", "rain falls"))

        def pressed_solos():
            return page.locator(".solo[aria-pressed=true]").all_inner_texts()

        page.get_by_role("slider", name="Time in the clip").fill("0.5")
        dog.click()  # starts to play, from where the slider is
        page.get_by_role("button", name="Pause").wait_for()
        assert pressed_solos() == ["dog barks"]
        played_until(page, lambda clock: 0.6 < clock < 3)
        rain.click()  # goes on from where the other was
        assert pressed_solos() == ["rain falls"]
        played_until(page, lambda clock: 0.8 < clock < 3)
        rain.click()
        assert pressed_solos() == []
        played_until(page, lambda clock: 1 < clock < 3.4)
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Play").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


@pytest.mark.parametrize("size", SIZES)
def test_clicking_a_word_changes_the_picture(browser, report_run, size):
    with opened(browser, report_run / FILE, size) as page:
        page.locator(".word").first.click()
        before = page.evaluate(PIXELS)
        page.get_by_role("button", name="barks", exact=True).click()
        after = page.evaluate(PIXELS)
        assert after != before
        assert pressed(page) == ["barks"]
        assert (
            "Map of barks. mean of all layers, average of 3 timesteps." in page.get_by_role("status").inner_text()
        )
        assert page.locator(".shown").inner_text() == "“barks”"
        page.locator(".word").first.click()
        assert page.evaluate(PIXELS) == before
        page.locator(".track").nth(2).click(position={"x": 5, "y": 5})
        assert page.evaluate(PIXELS) == after


def test_the_picture_is_the_map(browser, report_run):
    """Each pixel is a cell, highest frequency on top, in the colours of the shared scale."""
    maps = AttentionMaps.load(report_run / "maps.zarr")
    heats = [maps.heatmap(word.span) for word in maps.occurrences()]
    heard = ~heats[0]["padding"].to_numpy()
    highest = max(float(heat.to_numpy()[:, heard].max()) for heat in heats)
    read = """() => { const canvas = document.querySelector('.area-map canvas:nth-of-type(2)');
        return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]; }"""
    with opened(browser, report_run / FILE) as page:
        for word in (0, 3):
            page.locator(".word").nth(word).click()
            pixels = np.array(page.evaluate(read)).reshape(5, 9, 4)
            wanted = attention_colours(ATTENTION)(heats[word].to_numpy()[::-1] / highest)[..., :3] * 255
            assert np.abs(pixels[:, heard, :3] - wanted[:, heard]).max() < 5
            assert (pixels[..., 3] == 255).all()


def test_words_by_keyboard(browser, report_run):
    with opened(browser, report_run / FILE) as page:
        words = page.locator(".word")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "word"
        page.keyboard.press("Home")
        pictures = {page.evaluate(PIXELS)}
        for key, number in (
            ("ArrowRight", 1),
            ("ArrowRight", 2),
            ("ArrowLeft", 1),
            ("End", -1),
            ("ArrowRight", 0),
            ("ArrowUp", -1),
            ("Home", 0),
        ):
            page.keyboard.press(key)
            word = words.nth(number)
            assert word.get_attribute("aria-pressed") == "true"
            assert word.evaluate("e => e === document.activeElement && e.tabIndex === 0")
            pictures.add(page.evaluate(PIXELS))
        assert len(pictures) == 4  # words 0, 1, 2 and the last
        assert page.locator(".word[tabindex='0']").count() == 1
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Play"
        page.keyboard.press("Space")
        page.get_by_role("button", name="Pause").wait_for()


def test_hovering_shows_time_frequency_and_value(browser, report_run):
    maps = AttentionMaps.load(report_run / "maps.zarr")
    with opened(browser, report_run / FILE) as page:
        page.get_by_role("button", name="rain", exact=True).click()
        area = page.locator(".area-map")
        area.scroll_into_view_if_needed()
        box = area.bounding_box()
        for across, up in ((0.3, 0.7), (0.85, 0.1), (0.02, 0.97)):
            page.mouse.move(box["x"] + across * box["width"], box["y"] + (1 - up) * box["height"])
            tip = area.locator(".tip")
            assert tip.is_visible()
            time, hertz, value = map(
                float, re.search(r"([\d.]+) s, ([\d.]+) Hz.*?: ([\d.e-]+) % att", tip.inner_text(), re.S).groups()
            )
            assert time == pytest.approx(across * 4, abs=0.01)
            heat = maps.heatmap("rain")
            row, column = int(up * 5), int(across * 9)
            assert hertz == pytest.approx(
                float(np.interp(up * 40 - 0.5, np.arange(40), GRID.freq(40))), rel=0.03, abs=30
            )
            assert value == pytest.approx(100 * float(heat[row, column]), rel=0.03, abs=0.02)
            shown = tip.bounding_box()
            assert box["x"] <= shown["x"]
            assert shown["x"] + shown["width"] <= box["x"] + box["width"]
        assert page.locator(".area-spectrogram .cursor").is_visible()
        page.mouse.move(2, 2)
        assert not area.locator(".tip").is_visible()
        page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 20)
        assert page.locator(".clock").inner_text().startswith("2.0")


def test_a_cursor_by_keyboard_reads_values(browser, report_run):
    with opened(browser, report_run / FILE) as page:
        page.locator(".area-map").focus()
        page.keyboard.press("ArrowRight")
        first = page.get_by_role("status").inner_text()
        page.keyboard.press("ArrowUp")
        second = page.get_by_role("status").inner_text()
        shown = page.locator(".shown").inner_text()
        assert re.match(rf"[\d.]+ s, \d+ Hz {re.escape(shown)}: [\d.]+ % attention", first)
        assert first != second
        page.keyboard.press("Enter")
        assert not page.locator(".clock").inner_text().startswith("0.00")


def test_steps_readouts_and_colours(browser, report_run):
    payload = Parsed((report_run / FILE).read_text("utf-8")).payload
    with opened(browser, report_run / FILE) as page:
        pictures = [page.evaluate(PIXELS)]
        step = page.get_by_role("slider", name=re.compile("Denoising"))
        step.focus()
        for label in ("step 1 of 3, timestep 981", "step 2 of 3, timestep 501"):
            page.keyboard.press("ArrowRight")
            assert step.get_attribute("aria-valuetext") == label
            assert page.locator(".step-said").inner_text() == label
            pictures.append(page.evaluate(PIXELS))
        highest = max(
            stored_map(payload, 0, 2, item)[0][:, :8].max()
            for item, one in enumerate(payload["items"]) if one["kind"] in ("word", "phrase")
        )  # fmt: skip
        end = float(page.locator(".map-section .scale .end").last.inner_text().removesuffix(" %"))
        assert end == pytest.approx(100 * highest, rel=0.01)
        page.get_by_label("Readout").select_option("mid.0 (2 x 3)")
        assert page.locator(".area-map canvas").last.evaluate("c => [c.width, c.height]") == [3, 2]
        pictures.append(page.evaluate(PIXELS))
        page.get_by_label("Colours").select_option("this map's own range")
        pictures.append(page.evaluate(PIXELS))
        assert "own minimum to its own maximum" in page.locator("main").inner_text()
        page.get_by_role("button", name="Over the spectrogram").click()
        pictures.append(page.evaluate(PIXELS))
        assert page.locator(".area-map canvas").first.is_visible()
        assert len(set(pictures)) == len(pictures)


def test_events_scores_and_record(browser, report_run):
    with opened(browser, report_run / FILE) as page:
        page.get_by_role("button", name="barks", exact=True).click()
        area, box = page.locator(".area-map").bounding_box(), page.locator(".area-map .event").bounding_box()
        assert box["x"] - area["x"] == pytest.approx(area["width"] * 0.5 / 4, abs=1.5)
        assert box["width"] == pytest.approx(area["width"] * 0.75 / 4, abs=2)
        assert 0 < box["y"] - area["y"] < area["height"] / 3
        page.get_by_role("button", name="roof", exact=True).click()
        assert page.locator(".event").count() == 0
        events = Parsed((report_run / FILE).read_text("utf-8")).payload["events"]
        assert page.locator(".bar").count() == sum(max(len(event["items"]), 1) for event in events)
        assert page.locator(".other .track-name").all_inner_texts() == ["a <i>bell</i>"]
        table = page.get_by_role("region", name="Scores and controls").get_by_role("table")
        assert "ROC-AUC" in table.inner_text()
        assert table.get_by_role("row").count() == 1 + len(
            Parsed((report_run / FILE).read_text("utf-8")).payload["scores"]["rows"]
        )
        page.get_by_text("How this was made").click()
        assert page.get_by_text("9223372036854775807").is_visible()
        page.get_by_text("Words in numbers").click()
        assert page.get_by_role("region", name="Words in numbers").is_visible()


def test_events_say_who_located_them(browser, report_run, tmp_path):
    run = shutil.copytree(report_run, tmp_path / "run")
    (run / FILE).unlink()
    rows = read_tsv(run / "events.tsv")
    with opened(browser, report_run / FILE) as page:
        assert "Given events: barks 0.50 to 1.25 s, rain" in page.locator("main").inner_text()
    write_tsv(rows.assign(origin=["listener", "", "listener"]), run / "events.tsv")
    with opened(browser, write_report(run)) as page:
        text = page.locator("main").inner_text()
        assert "Given events: rain 2.00 to 3.50 s. Heard by the listener: barks 0.50 to 1.25 s, a <i>bell" in text
        titles = [bar.get_attribute("title") for bar in page.locator(".bar").all()]
        assert {title.split(" (")[1] for title in titles} == {"given)", "heard by the listener)"}


def test_a_run_without_audio_spectrogram_events_and_scores(browser, report_run, tmp_path):
    run = shutil.copytree(report_run, tmp_path / "run")
    for name in ("audio.wav", "spectrogram.npz", "events.tsv", "alignment.csv", FILE):
        (run / name).unlink()
    with opened(browser, write_report(run)) as page:
        text = page.locator("main").inner_text()
        for said in ("no audio", "no spectrogram", "no events.tsv", "no alignment.csv"):
            assert said in text
        assert not page.get_by_role("button", name="Play").is_visible()
        page.get_by_role("slider", name="Time in the clip").fill("2")
        area = page.locator(".area-map").bounding_box()
        assert page.locator(".area-map .playhead").bounding_box()["x"] == pytest.approx(
            area["x"] + area["width"] / 2, abs=2
        )


def test_code_that_got_in_would_not_run(browser, report_run, tmp_path):
    """A planted script and a planted request: the policy stops both, so that escaping is not the only wall."""
    page_file = tmp_path / "planted.html"
    script = "<script>window.attacked = 1</script>"
    image = "<img src=https://example.org/x.png onerror='window.attacked = 2'>"
    page = (report_run / FILE).read_text("utf-8").replace("</body>", f"{script}{image}</body>")
    page_file.write_text(page, "utf-8")
    with opened(browser, page_file, expected=("Content Security Policy", "Content-Security-Policy")) as page:
        assert page.evaluate("window.attacked") is None


# ---- where things stand -----------------------------------------------------------------------------------------


def boxes(page):
    """Where everything on the page stands, but for what moves by itself: cursor, playhead, and what is folded."""
    return page.evaluate(
        """() => [...document.querySelectorAll('main *')]
        .filter((one) => one.checkVisibility() && !one.closest('.lane svg, .tip, .cursor, .playhead, details'))
        .map((one) => { const { x, y, width, height } = one.getBoundingClientRect();
            return [one.tagName, one.className, ...[x, y + scrollY, width, height].map(Math.round)].join(' ');
        })"""
    )


@pytest.mark.parametrize("size", SIZES)
def test_the_first_phrase_that_sounds_is_shown_and_its_map_is_in_view(browser, report_run, size):
    payload = Parsed((report_run / FILE).read_text("utf-8")).payload
    with opened(browser, report_run / FILE, size) as page:
        label = payload["items"][payload["first"]]["label"]
        assert pressed(page) == [label] == ["barks"]  # the first of the prompt that an event names
        assert page.locator(".shown").inner_text() == "“barks”"
        for name in ("rain", "barks"):
            page.get_by_role("button", name=name, exact=True).click()
            box, top = page.locator(".area-map").bounding_box(), page.locator(".player").bounding_box()
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= size[1]
            assert box["y"] >= top["y"] + top["height"]  # not beneath the player, which stays on top


def test_the_map_is_in_view_without_a_click(browser, report_run):
    with opened(browser, report_run / FILE) as page:
        assert page.evaluate("scrollY") == 0
        box = page.locator(".area-map").bounding_box()
        assert box["y"] + box["height"] <= 900


@pytest.mark.parametrize("size", SIZES)
def test_nothing_jumps_when_the_step_slider_moves(browser, report_run, size):
    with opened(browser, report_run / FILE, size) as page:
        step = page.get_by_role("slider", name=re.compile("Denoising"))
        before = boxes(page)
        for value in ("1", "2", "3", "0"):
            step.fill(value)
            moved = [pair for pair in zip(before, boxes(page), strict=True) if pair[0] != pair[1]]
            # the label of the step changes its text, and nothing around it
            assert [pair for pair in moved if "UL" not in pair[0]] == []


@pytest.mark.parametrize("size", SIZES)
def test_no_label_or_column_is_cut(browser, report_run, size):
    with opened(browser, report_run / FILE, size) as page:
        for fold in page.locator("summary").all():
            fold.click()
        cut = page.evaluate(
            """() => [...document.querySelectorAll(
                '.track-name, .chips .word, th, td, dd, dt, .end, .step-said, .clip, .table')]
            .filter((one) => one.checkVisibility())
            .filter((one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== 'inline'
                || one.getBoundingClientRect().right > innerWidth
                || getComputedStyle(one).textOverflow === 'ellipsis')
            .map((one) => `${one.className} ${one.textContent}`)"""
        )
        assert cut == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_special_tokens_have_a_scale_of_their_own(browser, report_run):
    payload = Parsed((report_run / FILE).read_text("utf-8")).payload
    at = [item["label"] for item in payload["items"]].index("start token")
    with opened(browser, report_run / FILE) as page:
        page.get_by_role("button", name="start token").click()
        end = float(page.locator(".map-section .scale .end").last.inner_text().removesuffix(" %"))
        assert end == pytest.approx(100 * stored_map(payload, 0, 0, at)[0][:, :8].max(), rel=0.02)
        assert "on its own scale" in page.locator(".map-section .unit").inner_text()
        path = page.locator(".track").nth(at).locator("path").get_attribute("d")
        heights = [float(y) for y in re.findall(r"L[\d.e-]+ ([\d.e-]+)", path)]
        assert min(heights) == pytest.approx(0.06, abs=1e-6)
        assert sum(height < 0.0601 for height in heights) <= 2  # only its highest column reaches the top


def test_negative_attention_is_blue_about_zero(browser, tmp_path):
    """A word of weight -2: a scale about 0, its cells blue, its curve below the middle of its row."""
    maps = small_maps("a dog barks")
    word = maps.occurrences()[1].span
    layers = {name: maps[name].to_numpy().copy() for name in maps.layers}
    rows = maps.tokens[0].find(word)
    for name, values in layers.items():
        at = [int((maps[name]["token"].to_numpy() == row).argmax()) for row in rows]
        values[:, :, at] *= -2
    tree = maps.tree.copy(deep=True)
    for name, values in layers.items():
        tree[f"layers/{name}"]["attention"].values[...] = values
    path = tmp_path / "page.html"
    path.write_bytes(page_of(payload_of(AttentionMaps(tree), audio=sweep())))
    with opened(browser, path) as page:
        page.get_by_role("button", name="dog", exact=True).click()
        ends = [float(text.removesuffix(" %")) for text in page.locator(".map-section .end").all_inner_texts()]
        assert ends[0] == -ends[1] < 0
        pixels = np.array(page.evaluate(
            """() => { const canvas = document.querySelector('.area-map canvas:nth-of-type(2)');
            return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]; }"""
        )).reshape(-1, 4)  # fmt: skip
        assert (pixels[:, 2] > pixels[:, 0]).mean() > 0.9
        paths = [track.locator("path").get_attribute("d") for track in page.locator(".track").all()[:3]]
        feet = [float(path.split("L")[0].split()[1]) for path in paths]
        assert feet == pytest.approx([0.53] * 3)
        heights = [float(y) for y in re.findall(r"L[\d.e-]+ ([\d.e-]+)", paths[1])]
        assert min(heights) >= 0.53 - 1e-9


# ---- two runs --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    for name, prompt, steps in (
        ("first", "a dog barks, then rain falls", 3),
        ("second", "a cat meows, then rain falls", 3),
    ):
        write_run(folder / name, small_maps(prompt, steps=steps))
    return write_report(folder / "first", folder / "second")


@pytest.mark.parametrize("size", SIZES)
def test_two_runs_share_words_clock_and_step(browser, two_page, size):
    assert two_page.name == "first-second.html"
    with opened(browser, two_page, size) as page:
        left, right = page.locator(".panel").all()
        left.get_by_role("button", name="barks", exact=True).click()
        assert [one.locator(".shown").inner_text() for one in (left, right)] == ["“barks”", "“meows”"]
        right.get_by_role("button", name="rain falls", exact=True).click()
        assert [one.locator(".shown").inner_text() for one in (left, right)] == ["“rain falls”", "“rain falls”"]
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        maps = [one.locator(".area-map").bounding_box() for one in (left, right)]
        if size[0] >= 900:
            assert maps[0]["y"] == maps[1]["y"]
            assert maps[0]["x"] + maps[0]["width"] < maps[1]["x"]
            assert maps[0]["y"] + maps[0]["height"] <= size[1]
        ends = [one.locator(".map-section .end").last.inner_text() for one in (left, right)]
        assert ends[0] == ends[1]  # one scale
        page.get_by_role("slider", name=re.compile("Denoising")).fill("2")
        assert page.locator(".step-said").inner_text() == "step 2 of 3, timestep 501"
        page.get_by_role("slider", name="Time in the clip").fill("2")
        heads = [one.locator(".area-map .playhead").bounding_box()["x"] for one in (left, right)]
        areas = [one.locator(".area-map").bounding_box() for one in (left, right)]
        for head, area in zip(heads, areas, strict=True):
            assert head == pytest.approx(area["x"] + area["width"] / 2, abs=2)


def test_one_of_two_clips_plays_at_a_time(browser, two_page):
    with opened(browser, two_page) as page:
        page.get_by_role("button", name="Play first").click()
        page.get_by_role("button", name="Pause first").wait_for()
        played_until(page, lambda clock: clock > 0.3)
        page.get_by_role("button", name="Play second").click()
        page.get_by_role("button", name="Pause second").wait_for()
        page.get_by_role("button", name="Play first").wait_for()
        played_until(page, lambda clock: clock > 0.6)  # it goes on from where the first was


def test_a_page_of_scores_opens_on_their_readout_and_each_run_names_its_steps(browser, tmp_path):
    maps, rows = small_maps("a dog barks", steps=3), events().iloc[:1]
    first, second = maps, small_maps("a dog barks", timesteps=[981, 501])
    layer = maps.layers[-1]
    write_run(tmp_path / "one", first)
    write_run(tmp_path / "two", second, events=rows, alignment=align(second, rows, readout=layer).table)
    with opened(browser, write_report(tmp_path / "two")) as page:
        shown = page.get_by_label("Readout").evaluate("e => e.selectedOptions[0].textContent")
        assert shown.startswith(f"{short_name(layer)} (")
        assert f"Readout of the scores: {short_name(layer)}, in columns of " in page.locator("main").inner_text()
    with opened(browser, write_report(tmp_path / "one", tmp_path / "two")) as page:
        assert page.get_by_label("Readout").evaluate("e => e.selectedOptions[0].textContent") == shown
        assert page.locator(".step-said").inner_text() == "average of 3 timesteps / average of 2 timesteps"
        captions = page.locator(".caption").all_inner_texts()
        assert [text.split(".")[0] for text in captions] == [
            "Shown: average of 3 timesteps", "Shown: average of 2 timesteps",
        ]  # fmt: skip
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[0][0]


def test_a_word_without_counterpart_leaves_the_other_map_empty(browser, tmp_path):
    for name, prompt in (("one", "dog barks"), ("other", "loud dog barks")):
        write_run(tmp_path / name, small_maps(prompt))
    with opened(browser, write_report(tmp_path / "one", tmp_path / "other")) as page:
        left, right = page.locator(".panel").all()
        right.get_by_role("button", name="loud", exact=True).click()
        assert left.locator(".shown").inner_text() == "no counterpart"
        assert not left.locator(".area-map canvas").last.is_visible()
        left.get_by_role("button", name="dog", exact=True).click()
        assert right.locator(".shown").inner_text() == "“dog”"


def test_an_edit_stands_beside_its_source(browser, tmp_path):
    run = tmp_path / "swap"
    write_run(run, small_maps("a cat meows"))
    small_maps("a dog barks", spectrogram=log_mel()[None, None]).save(run / "source.zarr")
    shutil.copy(run / "audio.wav", run / "source.wav")
    with opened(browser, write_report(run)) as page:
        assert page.locator(".run-name").all_inner_texts() == ["source", "edit"]
        page.locator(".panel").first.get_by_role("button", name="dog", exact=True).click()
        assert page.locator(".shown").all_inner_texts() == ["“dog”", "“cat”"]
        assert page.locator(".area-spectrogram").count() == 2


def test_maps_without_frequency_are_a_strip_over_time(browser, tmp_path):
    """The strip has seconds and no hertz; the spectrogram below is of the audio, and says so."""
    grid = SpectrogramGrid(height=None, width=20, hop_length=2048, sampling_rate=44100, audio_seconds=0.8)
    table = token_table([make_tokenizer("t5")], "a dog barks", [16])
    attention = np.full((1, 1, 16, 20), 0.02, np.float32)
    attention[0, 0, table.find("dog"), 12] = 0.4
    layers = {"blocks.0": LayerAttention(attention, ("prompt", "image", "token", "column"), 4)}
    maps = AttentionMaps.from_layers(layers, tokens=[table], positions=range(16), timesteps=[1.0], grid=grid)
    sound = np.sin(np.arange(12_800, dtype=np.float32) / 9)
    path = tmp_path / "flat.html"
    path.write_bytes(page_of(payload_of(maps, audio=sound)))
    with opened(browser, path) as page:
        page.locator(".word", has_text="dog").first.click()
        assert "Strongest at 0.58 s: " in page.locator(".caption").inner_text()
        assert page.locator(".area-map").bounding_box()["height"] < 100
        assert page.locator(".axis-name-hz").count() == 1  # of the spectrogram alone
        assert page.locator(".map-section .axis-hz span").count() == 0
        assert "Of the audio at 16 kHz" in page.locator("main").inner_text()
        box = page.locator(".area-map").bounding_box()
        page.mouse.move(box["x"] + 12.5 / 20 * box["width"], box["y"] + 30)
        tip = page.locator(".map-section .tip").inner_text()
        assert "dog" in tip and "Hz" not in tip
        for fold in page.locator("summary").all():
            fold.click()
        kinds = page.get_by_role("region", name="Attention by kind of key").inner_text()
        assert "words" in kinds and "padding" in kinds
        assert "at (Hz)" not in page.get_by_role("region", name="Words in numbers").inner_text()
        page.screenshot(path=str(tmp_path / "flat.png"), full_page=True)
