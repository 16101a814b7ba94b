"""What a page is given: the maps to half a step of eight bits, the prompt piece by piece, what is missing said."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from report.report_runs import GRID, HOSTILE, Parsed, events, log_mel, small_maps, stored_map, sweep

from attnviz.alignment import align
from attnviz.audio import to_int16
from attnviz.errors import AudioError, MapsError
from attnviz.events import event_table
from attnviz.maps import FittedReadout
from attnviz.maps.layer import short_name
from attnviz.plots.spectrogram import SHOWN_RANGE
from attnviz.report import page_of, payload_of, readings
from attnviz.report.items import first_item, items_of, phrases_of
from attnviz.report.pairing import pairs_of
from attnviz.report.quantised import quantise
from attnviz.separation import separate
from attnviz.text.words import split_words


@pytest.fixture(scope="module")
def maps():
    return small_maps(steps=3)


@pytest.fixture(scope="module")
def whole(maps):
    return payload_of(maps, audio=sweep(), log_mel=log_mel(), events=events())


@given(arrays(np.float64, (3, 7), elements=st.floats(-1e6, 1e6) | st.just(np.nan)))
def test_quantising_is_off_by_half_a_step_at_most(values):
    data, low, high = quantise(values)
    back = low + (data.astype(float) - 1) * (high - low) / 254
    finite = np.isfinite(values)
    assert np.array_equal(data == 0, ~finite)
    if finite.any():
        assert np.abs(back - values)[finite].max() <= (high - low) / 508 * (1 + 1e-9)


def test_every_map_is_the_readout_s_own(maps, whole):
    names = ["mean", "auffusion", *maps.layers]
    assert [one["name"] for one in whole["readouts"]] == ["mean", "auffusion", *map(short_name, maps.layers)]
    labels = [word.label for word in maps.occurrences()]
    phrases = [item["label"] for item in whole["items"] if item["kind"] == "phrase"]
    assert [item["label"] for item in whole["items"]] == [
        *(*labels, *phrases),
        *("start token", "end token", "padding keys"),
    ]
    assert len(whole["views"]) == 4
    for readout, name in enumerate(names):
        for view, part in enumerate([maps, *(maps.select(steps=step) for step in range(3))]):
            for item, word in enumerate(maps.occurrences()):
                found, half = stored_map(whole, readout, view, item)
                wanted = part.heatmap(word.span, readout=name).to_numpy()
                assert np.abs(found - wanted).max() <= half * (1 + 1e-5), (name, view, word)
            for item, phrase in enumerate(phrases, len(labels)):
                found, half = stored_map(whole, readout, view, item)
                span = tuple(whole["items"][item]["span"])
                wanted = part.heatmap(span, readout=name).to_numpy()
                assert np.abs(found - wanted).max() <= half * (1 + 1e-5), (name, view, phrase)
            found, half = stored_map(whole, readout, view, len(labels) + len(phrases))
            wanted = part.token_heatmap("start", readout=name).to_numpy()
            assert np.abs(found - wanted).max() <= half * (1 + 1e-5)


def test_steps_are_named_by_their_timestep(whole):
    assert [view["label"] for view in whole["views"]] == [
        "average of 3 timesteps",
        "step 1 of 3, timestep 981", "step 2 of 3, timestep 501", "step 3 of 3, timestep 1",
    ]  # fmt: skip


def test_pieces_are_the_prompt(whole):
    assert "".join(piece["text"] for piece in whole["pieces"]) == HOSTILE
    for piece in whole["pieces"]:
        if piece["item"] is not None:
            assert whole["items"][piece["item"]]["label"].startswith(piece["text"])


def test_a_word_that_was_cut_off_is_a_piece_without_map():
    prompt = "dog " * 90 + "rain"
    found = payload_of(small_maps(prompt))
    assert "".join(piece["text"] for piece in found["pieces"]) == prompt
    assert found["pieces"][-1]["item"] is None
    assert found["pieces"][-1]["text"].endswith(" rain")


def test_one_word_is_enough_and_none_is_an_error():
    assert [item["label"] for item in payload_of(small_maps("dog"))["items"]] == [
        "dog",
        "start token",
        "end token",
        "padding keys",
    ]
    with pytest.raises(MapsError, match="no word to show"):
        payload_of(small_maps("?!"))


def test_fewer_steps_where_there_is_less_room():
    maps = small_maps("dog barks", steps=3)
    items = items_of(maps, 0)
    cells = sum(maps[name].shape[-1] * maps[name].shape[-2] for name in maps.layers) + 5 * 9 + 3 * 5 + 7 * 36
    per_view = len(items) * cells
    for views, steps in ((4, [0, 1, 2]), (3, [0, 2]), (2, [2]), (1, [])):
        found = readings.read_all(maps, items, prompt_index=0, sample=0, room=views * per_view)
        assert found.steps == steps
        assert any(f"{len(steps)} of 3 denoising steps" in notice for notice in found.notices) == (views < 4)
    few = readings.read_all(maps, items, prompt_index=0, sample=0, room=len(items) * 132)
    assert [one["name"] for one in few.readouts] == ["mean", "auffusion"]
    assert "Omitted" in few.notices[0]
    with pytest.raises(MapsError, match="very long"):
        readings.read_all(maps, items, prompt_index=0, sample=0, room=len(items))


def test_maps_without_steps():
    found = payload_of(small_maps("a dog barks"))
    assert [view["label"] for view in found["views"]] == ["average of 3 timesteps"]
    assert not any(one["stepped"] for one in found["readouts"])


def test_a_readout_that_these_maps_cannot_give_is_said(maps):
    found = payload_of(maps.select(layers=["mid.0"]))
    assert [one["name"] for one in found["readouts"]] == ["mean", "mid.0"]
    assert any("Auffusion" in notice and "narrowed" in notice for notice in found["notices"])


def test_audio_is_lossless(whole):
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(whole["audio"]["data"])), dtype="int16")
    assert rate == 16_000
    assert np.array_equal(samples, to_int16(sweep()))
    assert whole["audio"]["seconds"] == 3.5


def test_solos_are_the_sounds_of_the_phrases():
    maps = small_maps("a dog barks, then rain falls")
    found = payload_of(maps, audio=sweep(), log_mel=log_mel())
    separated = separate(maps, sweep())
    assert [solo["label"] for solo in found["solos"]] == ["dog barks", "rain falls"]
    for solo, sound in zip(found["solos"], separated.audios, strict=True):
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(solo["audio"]["data"])), dtype="int16")
        assert rate == 16_000
        assert samples.tolist() == to_int16(sound).tolist()
        assert found["items"][solo["item"]]["label"] == solo["label"]


def test_solos_that_are_missing():
    assert payload_of(small_maps("dog"), audio=sweep())["solos"] == []  # the only word has all of the clip
    assert payload_of(small_maps("a dog barks, then rain falls"))["solos"] == []
    few = payload_of(small_maps("a dog barks, then rain falls"), audio=sweep(), limit=1_000_000)
    assert [solo["label"] for solo in few["solos"]] == ["dog barks"]
    assert any("the solos of “rain falls”" in notice for notice in few["notices"])
    other = payload_of(small_maps("a dog barks, then rain falls"), audio=sweep()[:16_000])
    assert other["solos"] == []
    assert any("There are no solos. the audio lasts 1.00 s" in notice for notice in other["notices"])


def test_axes_and_padding(whole):
    assert whole["axes"]["seconds"] == 4.0
    assert whole["axes"]["audio_seconds"] == 3.5
    assert np.allclose(whole["axes"]["hertz"], GRID.freq(40), atol=0.006)
    ticks = whole["axes"]["ticks"]
    assert [tick["hz"] for tick in ticks] == [125, 250, 500, 1000, 2000, 4000, 8000]
    assert [tick["at"] for tick in ticks] == sorted(tick["at"] for tick in ticks)
    assert ticks[-1]["at"] == 1.0
    heard = {one["name"]: (one["columns"], one["heard"]) for one in whole["readouts"]}
    assert heard["mean"] == (9, 8)  # centres at 3.33 s and 3.78 s
    assert heard["mid.0"] == (3, 2)  # columns of 1.78 s: the last is centred at 4.44 s


def test_spectrogram_keeps_its_values_and_shows_what_is_not_finite():
    values = log_mel()
    values[3, 5:9] = np.nan
    values[:, 390] = 40.0  # in the padding: no part of the scale
    found = payload_of(small_maps("dog"), log_mel=values)
    one = found["spectrogram"]
    cells = np.frombuffer(base64.b64decode(one["data"]), np.uint8).reshape(40, 400)
    assert np.array_equal(cells == 0, np.isnan(values))
    assert (one["low"], one["high"]) == SHOWN_RANGE  # one scale for every clip, whatever is in it
    step = (one["high"] - one["low"]) / found["levels"]
    heard = np.isfinite(values) & ~GRID.padding(400)
    shown = np.clip(values, *SHOWN_RANGE)
    assert np.abs(one["low"] + (cells.astype(float) - 1) * step - shown)[heard].max() <= step / 2 * (1 + 1e-5)
    assert any("4 values of the spectrogram are not finite" in notice for notice in found["notices"])


def test_what_is_missing_is_said():
    found = payload_of(small_maps("dog", complete=False), log_mel=np.full((40, 400), np.nan, np.float32))
    assert found["audio"] is found["spectrogram"] is found["events"] is found["scores"] is None
    for part in ("interrupted", "no audio", "no spectrogram"):
        assert any(part in notice for notice in found["notices"])


def test_events_stand_beside_the_words_that_name_them(maps, whole):
    labels = [item["label"] for item in whole["items"]]
    words = [at for at, item in enumerate(whole["items"]) if item["kind"] == "word"]
    found = {
        event["label"]: [labels[item] for item in event["items"] if item in words] for event in whole["events"]
    }
    assert found == {"barks": ["barks"], "rain": ["rain"], "a <i>bell</i>": []}
    assert whole["events"][0] | {"items": None} == {
        "label": "barks", "items": None, "heard": False,
        "onset": 0.5, "offset": 1.25, "low": 500.0, "high": 4000.0,
    }  # fmt: skip
    assert whole["events"][1]["low"] is None
    assert "Not drawn: 1 of 4 events, of zero length." in whole["notices"]


def test_scores_are_means_over_draws():
    rows = [
        (0, "dog", "map", 0, "", 0.9, np.nan, 0),
        (0, "dog", "random", 0, "", 0.25, np.nan, 0),
        (0, "dog", "random", 1, "", 0.75, np.nan, 0),
        (1, "rain", "map", 0, "always there", np.nan, np.nan, 0),
        (0, "dog", "map", 0, "", 0.1, np.nan, 1),
    ]
    names = ["phrase", "label", "method", "draw", "undefined", "roc_auc", "iou", "image"]
    found = payload_of(small_maps("dog"), scores=pd.DataFrame(rows, columns=names))["scores"]
    assert found["names"] == ["ROC-AUC"]
    assert [(row["method"], row["draws"], row["values"]) for row in found["rows"]] == [
        ("map", 1, [0.9]), ("random", 2, [0.5]), ("map", 1, [None]),
    ]  # fmt: skip
    assert found["rows"][2]["undefined"] == "always there"


def test_scores_name_their_readout_and_columns(tmp_path):
    """And two runs whose scores are of other maps say so; alike or without scores, they do not."""
    maps, rows = small_maps("a dog barks"), events().iloc[:1]
    layer = maps.layers[-1]
    one = payload_of(maps, scores=align(maps, rows).table, name="one")
    other = payload_of(maps, scores=align(maps, rows, readout=layer).table, name="other")
    widths = [1e3 * 4 / readout["columns"] for readout in (one["readouts"][0], other["readouts"][-1])]
    assert (one["scores"]["readout"], one["scores"]["of"]) == ("mean", "mean of all layers")
    assert (other["scores"]["readout"], other["scores"]["of"]) == (short_name(layer), short_name(layer))
    for found, width in zip((one, other), widths, strict=True):
        assert float(found["scores"]["columns"]) == pytest.approx(width)
        assert found["scores"]["readout"] in [readout["name"] for readout in found["readouts"]]

    def unlike(*payloads):
        return json.loads(Parsed(page_of(*payloads).decode()).texts["script"][0])["unlike"]

    said = unlike(one, other)
    assert "cannot be compared: one: readout mean of all layers in columns of " in said
    assert f"; other: readout {short_name(layer)} in columns of " in said
    assert unlike(one, one) == unlike(one, payload_of(maps)) == unlike(other) == ""
    old = payload_of(maps, scores=align(maps, rows).table.drop(columns=["readout", "column_ms"]))["scores"]
    assert (old["readout"], old["columns"]) == (None, "")
    assert old["of"].startswith("unknown")


def test_the_bundled_fitted_readout_is_known_by_its_name_in_scores():
    name = FittedReadout.load(readings.BUNDLED).name
    assert readings.shown_name(name) == "fitted"
    assert readings.readout_label(name) == "fitted (bundled model)"
    assert readings.shown_name("fitted 00000000") == "fitted 00000000"  # somebody's own


def test_the_record_is_text_so_that_no_seed_is_rounded():
    record = {"seed": 2**63 - 1, "negative": None, "model": {"name": "m", "flags": {"on": True}}, "seeds": [1, 2]}
    found = payload_of(small_maps("dog"), record=record)["record"]
    assert found == [
        {"title": "", "rows": [["seed", "9223372036854775807"], ["negative", "none"], ["seeds", "1, 2"]]},
        {"title": "model", "rows": [["name", "m"]]},
        {"title": "model / flags", "rows": [["on", "yes"]]},
    ]


@pytest.mark.parametrize(("prompt", "image"), [(1, 0), (0, 1), (0, -1), (-1, 0)])
def test_no_such_prompt_or_image(maps, prompt, image):
    with pytest.raises(MapsError, match="There is no"):
        payload_of(maps, prompt_index=prompt, sample=image)


def test_bad_audio_is_refused(maps):
    with pytest.raises(AudioError):
        payload_of(maps, audio=np.full(160, np.nan))


def test_a_clip_too_long_for_a_page_is_refused(maps):
    with pytest.raises(MapsError, match="Explain a part"):
        payload_of(maps, audio=sweep(), limit=420_000)


# ---- phrases, and what is shown first ------------------------------------------------------------------------


def labelled(found, kind):
    return [item["label"] for item in found["items"] if item["kind"] == kind]


def test_phrases_of_the_prompt_and_of_events_are_offered(maps):
    plain = payload_of(small_maps("a dog barks, then heavy rain falls on a roof"))
    assert labelled(plain, "phrase") == ["dog barks", "heavy rain falls"]
    rows = event_table([{"clip": "a.wav", "label": "rain falls on a roof", "onset": 1.0, "offset": 2.0}])
    found = payload_of(small_maps("a dog barks, then heavy rain falls on a roof"), events=rows)
    assert labelled(found, "phrase") == ["dog barks", "heavy rain falls", "rain falls on a roof"]
    assert found["items"][found["first"]]["label"] == "rain falls on a roof"


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("rain", []),
        ("the sound of rain", []),
        ("loud dog barks\nthen silence", ["loud dog barks"]),
        ("dog, rain, thunder", []),
        ("Heavy  rain AND a barking dog", ["Heavy  rain", "barking dog"]),
    ],
)
def test_phrases_stand_between_function_words_and_punctuation(prompt, phrases):
    spans = [(word.start, word.end) for word in split_words(prompt)]
    assert [prompt[start:end] for start, end in phrases_of(prompt, spans)] == phrases


def test_the_first_phrase_that_sounds_is_shown_first():
    prompt = "a dog barks, then rain falls"
    items = items_of(small_maps(prompt), 0)
    flat, peaked = np.full(9, 0.1), np.eye(9)[4]
    labels = [item.label for item in items]

    def first(*loud, named=()):
        curves = [peaked if item.label in loud else flat + 0.001 * np.arange(9) for item in items]
        return labels[first_item(items, named, curves, prompt)]

    assert first("a", "then", "dog barks", "rain falls") == "dog barks"  # never "a", whatever its map is
    assert first("rain falls") == "rain falls"
    assert first("dog barks", named=[(18, 28)]) == "rain falls"  # events know better than the map
    assert first(named=[(18, 22), None]) == "rain"
    assert first("a") in ("dog barks", "rain falls")


def test_a_prompt_of_function_words_alone_has_a_first_word():
    found = payload_of(small_maps("and then"))
    assert found["items"][found["first"]]["kind"] == "word"


def test_words_of_two_prompts_are_paired_in_order():
    one, two = (
        payload_of(small_maps(text)) for text in ("a dog barks, then rain", "a big cat meows, then heavy rain")
    )
    pairs = pairs_of(one["items"], two["items"])
    found = {
        item["label"]: None if at is None else two["items"][at]["label"]
        for item, at in zip(one["items"], pairs, strict=True)
    }
    assert found["a"] == "a"
    assert found["then"] == "then"
    assert found["rain"] in ("heavy rain", "rain")
    assert found["dog barks"] == "big cat meows"
    assert found["start token"] == "start token"
    same = pairs_of(one["items"], one["items"])
    assert same == list(range(len(same)))


def test_the_record_shows_the_model_once():
    record = {
        "prompt": "dog", "model": {"model": None, "device": "cpu"}, "num_inference_steps": 5, "seed": 3,
        "provenance": {"model": "bundled", "num_inference_steps": 5, "seed": 4},
    }  # fmt: skip
    sections = payload_of(small_maps("dog"), record=record)["record"]
    rows = [(section["title"], *row) for section in sections for row in section["rows"]]
    assert [row for row in rows if row[1] == "model"] == [("provenance", "model", "bundled")]
    assert [row for row in rows if row[1] == "num_inference_steps"] == [("provenance", "num_inference_steps", "5")]
    assert [row[2] for row in rows if row[1] == "seed"] == ["3", "4"]  # they differ: both are said
    assert ("model", "device", "cpu") in rows


def test_two_runs_start_on_the_first_phrase_that_sounds():
    """With the events of one run, of the other, and of none."""
    heard = event_table([{"clip": "a", "label": "rain falls", "onset": 0.5, "offset": 1.0}])
    first, second = small_maps("a dog barks, then rain falls"), small_maps("a cat meows, then rain falls")
    for known in (heard, None):
        for maps in (first, second):
            one = payload_of(maps, events=known)
            label = one["items"][one["first"]]["label"]
            assert label == "rain falls" if known is not None else label.split()[0] not in {"a", "then"}
