"""Maps of a model whose latents are a sequence in time: no `freq` anywhere, and all that goes by time works."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import attnviz
from attnviz import plots
from attnviz.audio.grid import SpectrogramGrid
from attnviz.errors import AudioError, MapsError
from attnviz.maps import AttentionMaps, LayerAttention, attention_share, segment_share, word_overlap
from attnviz.maps.schema import CONTENT
from attnviz.testing import make_tokenizer
from attnviz.text import token_table

COLUMNS = 11
GRID = SpectrogramGrid(height=None, width=COLUMNS, hop_length=2048, sampling_rate=44100, audio_seconds=0.4)
DIMS = ("prompt", "image", "token", "column")


@pytest.fixture
def maps():
    table = token_table([make_tokenizer("t5")], "a dog barks", [16])
    attention = np.random.default_rng(0).random((1, 1, 16, COLUMNS)).astype(np.float32)
    attention[0, 0, table.find("dog"), 6] = 5.0
    layers = {
        name: LayerAttention(attention * scale, DIMS, 4) for name, scale in (("blocks.0", 1), ("blocks.1", 3))
    }
    return AttentionMaps.from_layers(layers, tokens=[table], positions=range(16), timesteps=[1.0], grid=GRID)


def test_there_is_no_freq(maps):
    assert maps["blocks.0"].dims == ("prompt", "image", "token", "time")
    assert maps.heatmap("dog").dims == ("time",)
    assert "freq" not in maps.heatmap("dog").coords
    assert "no frequency axis" in repr(maps)
    with pytest.raises(MapsError, match="no frequency axis"):
        maps.activation("dog", axis="freq")
    with pytest.raises(AudioError, match="no frequency axis"):
        maps.grid.freq(4)


def test_seconds_are_those_of_the_latents(maps):
    curve = maps.activation("dog")
    assert float(curve.idxmax()) == pytest.approx(6.5 * 2048 / 44100)
    np.testing.assert_allclose(curve.time, (np.arange(COLUMNS) + 0.5) * 2048 / 44100)
    assert np.isnan(curve.to_numpy()[curve.time.to_numpy() > 0.4]).all()
    one, other = (maps.activation("dog", readout=name) for name in maps.layers)
    np.testing.assert_allclose(curve, (one + other) / 2, rtol=1e-6)


def test_statistics_and_exports(maps, tmp_path):
    assert word_overlap(maps).shape == (3, 3)
    assert len(attention_share(maps, "dog")) == 2
    assert len(maps.to_dataframe()) == 3 * COLUMNS
    maps.to_npz(tmp_path / "maps.npz")
    with np.load(tmp_path / "maps.npz") as saved:
        assert "freq" not in saved
        assert saved["heatmap"].shape == (3, 1, COLUMNS)
    assert maps.to_audacity(tmp_path / "dog.txt", phrases=["dog"], threshold=0.9).shape == (1, 3)
    with pytest.raises(MapsError, match="one grid only"):
        maps.heatmap("dog", readout="auffusion")


def test_netcdf(maps, tmp_path):
    maps.heatmap("dog").to_netcdf(tmp_path / "dog.nc", engine="scipy")
    with xr.open_dataarray(tmp_path / "dog.nc", engine="scipy") as again:
        np.testing.assert_array_equal(again, maps.heatmap("dog"))
        assert again.dims == ("time",)


def test_saved_and_loaded(maps, tmp_path):
    maps.save(tmp_path / "maps.zarr")
    loaded = AttentionMaps.load(tmp_path / "maps.zarr")
    np.testing.assert_array_equal(loaded.heatmap("dog"), maps.heatmap("dog"))
    assert loaded.grid == GRID
    assert AttentionMaps.merge([maps, loaded]).images == 2


def test_rows_and_grid_agree(maps):
    rows = LayerAttention(np.ones((1, 1, 16, 2, COLUMNS), np.float32), (*DIMS[:3], "row", "column"), 4)
    with pytest.raises(MapsError, match="agree on 'row'"):
        AttentionMaps.from_layers(
            {"blocks.0": rows}, tokens=maps.tokens, positions=range(16), timesteps=[1.0], grid=GRID
        )


def test_what_reads_maps_works_on_time_alone(maps):
    events = pd.DataFrame({"clip": ["a"], "label": ["dog"], "onset": [0.28], "offset": [0.32]})
    table = attnviz.align(maps, events).table
    row = table[(table["method"] == "map") & (table["label"] == "dog")].iloc[0]
    assert row["roc_auc"] == 1.0
    assert len(attnviz.diagnose(maps).table) > 5
    figure = plots.word_maps(maps)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == []
    assert plots.heatmap(maps.heatmap("dog"), maps.grid).get_ylabel() == ""
    plots.activations(maps)
    plots.piano_roll(maps)
    page = attnviz.explore(maps, audio=np.sin(np.arange(16_000, dtype=np.float32) / 9), phrases=["dog"])
    axes, spectrogram = page.payload["axes"], page.payload["spectrogram"]
    assert axes["flat"] and axes["fmax"] == 8000
    assert spectrogram["columns"] == round(COLUMNS * 2048 / 44100 * 100)  # 10 ms each, as long as the maps
    mean = page.payload["readouts"][0]
    assert (mean["rows"], mean["columns"]) == (1, COLUMNS)
    assert attnviz.explore(maps).payload["axes"]["hertz"] == []


def test_samples_of_another_rate_and_several_channels_are_shown(maps):
    stereo = np.random.default_rng(0).uniform(-0.1, 0.1, (22_050, 2)).astype(np.float32)
    sound = attnviz.explore(maps, audio=stereo, sampling_rate=44_100).payload["audio"]
    assert sound["seconds"] == pytest.approx(0.5)


def test_shares_of_kinds_of_keys_sum_to_one(maps):
    """Of a prompt of 16 keys: three words, an end token, and padding that is not masked."""
    layers = {"blocks.0": maps["blocks.0"].to_numpy()}
    layers["blocks.0"] = layers["blocks.0"] / layers["blocks.0"].sum(axis=2, keepdims=True)
    whole = AttentionMaps.from_layers(
        {name: LayerAttention(values, DIMS, 4) for name, values in layers.items()},
        tokens=maps.tokens, positions=range(16), timesteps=[1.0], grid=GRID,
    )  # fmt: skip
    table = segment_share(whole).set_index("kind")
    assert list(table.index) == ["text", "end", "padding", "rest"]
    heard = layers["blocks.0"][0, 0][:, : int(0.4 / 2048 * 44100 + 0.5)]
    words = [row for row, kind in enumerate(maps.tokens[0].rows["kind"]) if kind == "text"]
    assert table.loc["text", "share"] == pytest.approx(heard[words].sum(axis=0).mean(), rel=1e-5)
    assert table.loc["text", "keys"] == len(words)
    assert table["share"].sum() == pytest.approx(1.0)
    assert table.loc["rest", "share"] == pytest.approx(0.0, abs=1e-6)
    text_only = AttentionMaps.from_layers(
        {"blocks.0": LayerAttention(layers["blocks.0"][:, :, words], DIMS, 4)},
        tokens=maps.tokens, positions=words, timesteps=[1.0], grid=GRID,
    )  # fmt: skip
    rest = segment_share(text_only).set_index("kind").loc["rest", "share"]
    assert rest == pytest.approx(table.loc[["end", "padding"], "share"].sum(), rel=1e-4)
    with pytest.raises(MapsError, match="no sample 3 of prompt 0"):
        segment_share(whole, sample=3)


def test_the_schema_says_what_the_values_are(maps, tmp_path):
    assert maps.content == CONTENT
    layers = {"blocks.0": LayerAttention(np.ones((1, 1, 16, COLUMNS), np.float32), DIMS, 4)}
    content = {"quantity": "a difference", "signed": 1, "method": "ours", "family": "stable-audio-3"}
    signed = AttentionMaps.from_layers(
        layers, tokens=maps.tokens, positions=range(16), timesteps=[1.0], grid=GRID, content=content
    )
    signed.save(tmp_path / "signed.zarr")
    loaded = AttentionMaps.load(tmp_path / "signed.zarr")
    assert loaded.content == content
    assert loaded.heatmap("dog").attrs["long_name"] == "a difference"
    with pytest.raises(MapsError, match="quantity|family"):
        AttentionMaps.merge([maps.select(layers="blocks.0"), loaded])


def test_files_without_these_attributes_still_load(maps, tmp_path):
    """Maps that an earlier version saved: the same tree without the attributes."""
    for name in CONTENT:
        del maps.tree.attrs[name]
    maps.save(tmp_path / "old.zarr")
    loaded = AttentionMaps.load(tmp_path / "old.zarr")
    assert {name: loaded.tree.attrs[name] for name in CONTENT} == CONTENT


def test_the_share_of_words_does_not_depend_on_padding(maps):
    """A longer padding, which is not masked, takes attention from every word alike."""
    share = attention_share(maps, "dog").iloc[0]
    total = sum(attention_share(maps, word)["of_words"].iloc[0] for word in ("a", "dog", "barks"))
    assert total == pytest.approx(1.0)
    layers = {
        name: LayerAttention(maps[name].to_numpy() * 0.5, DIMS, 4) for name in maps.layers
    }  # as much padding again
    padded = AttentionMaps.from_layers(layers, tokens=maps.tokens, positions=range(16), timesteps=[1.0], grid=GRID)
    again = attention_share(padded, "dog").iloc[0]
    assert again["share"] == pytest.approx(share["share"] / 2)
    assert again["of_words"] == pytest.approx(share["of_words"])
