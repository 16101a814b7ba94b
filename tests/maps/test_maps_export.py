"""Tables and files of word activity."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from maps.maps_synthetic import GRID, PROMPT, SMALL, captured, inside, make, table

from attnviz.audio.grid import SpectrogramGrid
from attnviz.errors import MapsError, OutputError, PromptError
from attnviz.maps import LayerAttention
from attnviz.text.words import find_phrase, split_words


def two_prompts():
    return make(captured(SMALL, prompts=2, images=2), tokens=[table(PROMPT), table("a dog and a dog")])


def of_curve(curve, prompt="dog rain", **changes):
    """Maps whose first word has this activity in time, and whose second has none."""
    attention = np.zeros((1, 1, 16, 3, len(curve)))
    attention[0, 0, 1] = curve
    layers = {
        "down_blocks.0.attentions.0": LayerAttention(attention, ("prompt", "image", "token", "row", "column"), 1)
    }
    grid = SpectrogramGrid(height=9, width=10 * len(curve), audio_seconds=changes.pop("audio_seconds", None))
    return make(layers, tokens=[table(prompt)], grid=grid, **changes)


# ---- table -----------------------------------------------------------------------------------------------


def test_the_table_has_every_word_of_every_prompt_and_image():
    maps = two_prompts()
    rows = maps.to_dataframe()
    assert list(rows.columns) == [
        "prompt", "image", "word", "occurrence", "start", "end", "time", "activation", "padding",
    ]  # fmt: skip
    words = rows.groupby(["prompt", "image", "word", "occurrence"]).size()
    assert len(words) == 2 * (6 + 5)
    assert set(words) == {9}
    dogs = rows[(rows.prompt == 1) & (rows.image == 1) & (rows.word == "dog")]
    assert dogs.groupby("occurrence")[["start", "end"]].first().to_numpy().tolist() == [[2, 5], [12, 15]]
    second = dogs[dogs.occurrence == 1]
    curve = maps.activation("dog", occurrence=1, prompt_index=1, sample=1)
    np.testing.assert_array_equal(second["activation"], curve)
    np.testing.assert_array_equal(second["time"], curve["time"])
    assert rows["activation"].isna().equals(rows["padding"])
    assert rows["padding"].sum() == 22


def test_the_table_along_frequency():
    maps = make()
    rows = maps.to_dataframe(axis="freq", readout="mid.0", pool="max")
    assert list(rows.columns)[-2:] == ["freq", "activation"]
    dog = rows[rows.word == "barks"]
    curve = maps.activation("barks", axis="freq", readout="mid.0", pool="max")
    np.testing.assert_array_equal(dog["activation"], curve)
    assert rows.attrs == {"readout": "mid.0", "pool": "max"}


def test_the_table_survives_csv(tmp_path):
    rows = make().to_dataframe()
    rows.to_csv(tmp_path / "words.csv", index=False)
    again = pd.read_csv(tmp_path / "words.csv", keep_default_na=False, na_values={"activation": [""]})
    pd.testing.assert_frame_equal(again, rows, check_dtype=False, rtol=1e-6)


def test_maps_without_words_have_no_table(tmp_path):
    maps = make(captured(SMALL, tokens=1), positions=[0])
    for attempt in (
        maps.to_dataframe,
        lambda: maps.to_npz(tmp_path / "words.npz"),
        lambda: maps.to_audacity(tmp_path / "words.txt"),
    ):
        with pytest.raises(MapsError, match="No word"):
            attempt()
    assert inside(tmp_path) == []


# ---- NPZ -------------------------------------------------------------------------------------------------


def test_npz_holds_maps_activity_and_axes_without_pickle(tmp_path):
    maps = two_prompts()
    maps.to_npz(tmp_path / "words.npz")
    assert inside(tmp_path) == ["words.npz"]
    with np.load(tmp_path / "words.npz", allow_pickle=False) as file:
        content = {name: file[name] for name in file.files}
    assert content["heatmap"].shape == (11, 2, 5, 9)
    assert content["heatmap"].dtype == np.float32
    assert content["word"].tolist() == [
        "a",
        "dog",
        "barks",
        "then",
        "rain",
        "falls",
        "a",
        "dog",
        "and",
        "a",
        "dog",
    ]
    assert content["prompt"].tolist() == [0] * 6 + [1] * 5
    assert content["occurrence"].tolist()[-3:] == [0, 1, 1]
    last = maps.heatmap("dog", occurrence=1, prompt_index=1, sample=1)
    np.testing.assert_array_equal(content["heatmap"][-1, 1], last)
    np.testing.assert_array_equal(
        content["activation"][-1, 1], maps.activation("dog", occurrence=1, prompt_index=1, sample=1)
    )
    np.testing.assert_array_equal(content["freq"], GRID.freq(5))
    np.testing.assert_array_equal(content["time"], GRID.time(9))
    np.testing.assert_array_equal(content["padding"], GRID.padding(9))
    assert content["span"][-1].tolist() == [12, 15]
    assert content["prompts"].tolist() == [PROMPT, "a dog and a dog"]
    assert '"model": "tiny"' in str(content["provenance"])


def test_npz_refuses_an_existing_file_and_a_folder(tmp_path):
    (tmp_path / "words.npz").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        make().to_npz(tmp_path / "words.npz")
    assert (tmp_path / "words.npz").read_text() == "mine"
    make().to_npz(tmp_path / "words.npz", overwrite=True)
    assert np.load(tmp_path / "words.npz")["word"].size == 6
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="not replaced"):
        make().to_npz(tmp_path / "folder", overwrite=True)


# ---- Audacity --------------------------------------------------------------------------------------------


def read_labels(path) -> list[tuple[float, float, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(float(start), float(end), label) for start, end, label in (line.split("\t") for line in lines)]


def test_labels_are_the_columns_above_the_threshold(tmp_path):
    maps = of_curve([0, 4, 5, 10, 0, 6, 0, 0, 0, 0])
    written = maps.to_audacity(tmp_path / "words.txt")
    assert read_labels(tmp_path / "words.txt") == [(0.2, 0.4, "dog"), (0.5, 0.6, "dog")]
    assert written.to_numpy().tolist() == [[0.2, 0.4, "dog"], [0.5, pytest.approx(0.6), "dog"]]
    maps.to_audacity(tmp_path / "words.txt", threshold=0.4, overwrite=True)
    assert read_labels(tmp_path / "words.txt")[0] == (0.1, 0.4, "dog")
    maps.to_audacity(tmp_path / "words.txt", threshold=1, overwrite=True)
    assert read_labels(tmp_path / "words.txt") == [(0.3, 0.4, "dog")]


def test_padding_neither_sets_the_maximum_nor_gets_a_label(tmp_path):
    maps = of_curve([0, 1, 0, 0, 1, 0.9, 0, 0, 0, 50], audio_seconds=0.57)
    maps.to_audacity(tmp_path / "words.txt")
    assert read_labels(tmp_path / "words.txt") == [(0.1, 0.2, "dog"), (0.4, 0.57, "dog")]


def test_a_constant_map_is_active_throughout_and_an_empty_one_nowhere(tmp_path):
    maps = of_curve([0.3] * 10)
    maps.to_audacity(tmp_path / "words.txt")
    assert read_labels(tmp_path / "words.txt") == [(0.0, 1.0, "dog")]


def test_labels_stand_in_the_order_of_time_and_are_one_line_each(tmp_path):
    attention = np.zeros((1, 1, 16, 3, 10))
    attention[0, 0, 1, :, 6:] = 1
    attention[0, 0, 2, :, :2] = 1
    layers = {
        "down_blocks.0.attentions.0": LayerAttention(attention, ("prompt", "image", "token", "row", "column"), 1)
    }
    grid = SpectrogramGrid(height=9, width=100)
    maps = make(layers, tokens=[table("dog\t\n🐕 rain")], grid=grid)
    maps.to_audacity(tmp_path / "words.txt")
    assert [label for *_, label in read_labels(tmp_path / "words.txt")] == ["🐕", "dog"]
    maps.to_audacity(tmp_path / "phrase.txt", phrases=[(0, 6)])
    assert {label for *_, label in read_labels(tmp_path / "phrase.txt")} == {"dog 🐕"}


def test_phrases_and_repeated_words(tmp_path):
    maps = make(tokens=[table("a dog and a dog")])
    maps.to_audacity(tmp_path / "words.txt")
    assert {"dog (1st)", "dog (2nd)"} <= {label for *_, label in read_labels(tmp_path / "words.txt")}
    maps.to_audacity(tmp_path / "one.txt", phrases=["a dog and", (12, 15)])
    assert {label for *_, label in read_labels(tmp_path / "one.txt")} == {"a dog and", "dog"}


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold, tmp_path):
    with pytest.raises(MapsError, match="at most 1"):
        make().to_audacity(tmp_path / "words.txt", threshold=threshold)
    assert inside(tmp_path) == []


# ---- several prompts -------------------------------------------------------------------------------------


def test_words_of_another_prompt_name_their_prompt():
    maps = two_prompts()
    only = next(word for word in split_words(PROMPT) if not find_phrase("a dog and a dog", word.text)).text
    with pytest.raises(PromptError, match=r"Prompt 1 has it: give prompt_index=1\."):
        maps.heatmap("and")
    with pytest.raises(PromptError, match=r"Prompt 0 has it: give prompt_index=0\."):
        maps.activation(only, prompt_index=1)
    with pytest.raises(PromptError) as caught:
        maps.heatmap("siren")
    assert "prompt_index" not in str(caught.value)
    assert maps.heatmap("and", prompt_index=1).attrs["prompt"] == "a dog and a dog"
