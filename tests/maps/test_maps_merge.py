"""Merging runs of the same settings."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from maps.maps_synthetic import GRID, PROMPT, SMALL, captured, make, table

from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps

MADE = {"model": "tiny", "call": {"steps": 3, "guidance": 7.5, "seed": 0}, "created": "today"}


def run(seed: int, images: int = 1, **changes: object) -> AttentionMaps:
    made = {**MADE, "call": {**MADE["call"], "seed": seed}, "created": f"day {seed}"}  # type: ignore[dict-item]
    layers = captured(SMALL, seed=seed, images=images)
    return make(layers, **{"provenance": made, "spectrogram": np.full((1, 1, 40, 72), seed), **changes})


def test_images_follow_one_another():
    a, b = run(0), run(1, images=2, spectrogram=np.ones((1, 2, 40, 72)))
    merged = AttentionMaps.merge([a, b])
    assert merged.images == 3
    assert merged["mid.0"]["image"].to_numpy().tolist() == [0, 1, 2]
    assert merged["mid.0"].dtype == np.float32
    for image, (maps, of) in enumerate([(a, 0), (b, 0), (b, 1)]):
        np.testing.assert_array_equal(merged.heatmap("dog", sample=image), maps.heatmap("dog", sample=of))
        assert maps.spectrogram is not None
        assert merged.spectrogram is not None
        np.testing.assert_array_equal(merged.spectrogram[0, image], maps.spectrogram[0, of])
    assert merged["mid.0"].coords.identical(a["mid.0"].coords) is False
    for name in ("freq", "time", "padding", "token", "token_text", "token_kind"):
        assert merged["mid.0"][name].identical(a["mid.0"][name]), name


def test_provenance_lists_what_each_run_had_of_its_own():
    merged = AttentionMaps.merge([run(0), run(1), run(7)])
    assert merged.provenance["model"] == "tiny"
    assert merged.provenance["call"] == {"steps": 3, "guidance": 7.5}
    assert [own["call"]["seed"] for own in merged.provenance["merged"]] == [0, 1, 7]
    assert [own["images"] for own in merged.provenance["merged"]] == [1, 1, 1]


def test_merging_is_associative():
    a, b, c = run(0), run(1), run(2)
    left = AttentionMaps.merge([AttentionMaps.merge([a, b]), c])
    right = AttentionMaps.merge([a, AttentionMaps.merge([b, c])])
    assert left.tree.identical(right.tree)
    assert left.tree.identical(AttentionMaps.merge([a, b, c]).tree)


def test_merging_changes_none_of_its_inputs():
    a, b = run(0), run(1)
    before = a.tree.copy(deep=True)
    AttentionMaps.merge([a, b])
    assert a.tree.identical(before)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: run(1, provenance={**MADE, "model": "large"}), "model: 'tiny' and 'large'"),
        (lambda: run(1, provenance={**MADE, "call": {**MADE["call"], "steps": 4}}), r"call\.steps: 3 and 4"),
        (lambda: run(1, provenance={**MADE, "lora": "x"}), r"lora: '\(absent\)' and 'x'"),
        (lambda: run(1, tokens=[table("a cat barks, then rain falls")]), "prompt: .*dog.*cat"),
        (lambda: run(1, tokens=[table(PROMPT, room=6)]), "token table"),
        (lambda: run(1, timesteps=[981.0, 501.0, 2.0]), "timesteps"),
        (lambda: run(1, grid=dataclasses.replace(GRID, audio_seconds=0.5)), "audio length"),
        (lambda: run(1, complete=False), "interrupted"),
        (lambda: run(1, spectrogram=None), "spectrogram: 'kept' and 'not kept'"),
        (lambda: run(1).select(layers="mid.0"), "layers"),
        (lambda: make(captured(SMALL, steps=3), provenance=MADE), "captured axes"),
        (lambda: make(captured(SMALL, both=True), provenance=MADE), "branch"),
        (lambda: make(captured(SMALL, tokens=15), positions=range(15), provenance=MADE), "captured axes"),
        (lambda: make(captured(SMALL, tokens=16), positions=[*range(15), 16], provenance=MADE,
                      tokens=[table(PROMPT, keys=17)]), "token"),
    ],
)  # fmt: skip
def test_the_first_difference_is_named(other, words):
    with pytest.raises(MapsError, match=words):
        AttentionMaps.merge([run(0), run(2), other()])


def test_other_heads_or_steps_selected_are_a_difference():
    kept = [make(captured(SMALL, steps=3, heads=4, seed=seed)) for seed in range(2)]
    with pytest.raises(MapsError, match="heads of"):
        AttentionMaps.merge([kept[0].select(heads=[0]), kept[1].select(heads=[1])])
    with pytest.raises(MapsError, match="steps"):
        AttentionMaps.merge([kept[0].select(steps=[0]), kept[1].select(steps=[1])])


def test_nothing_to_merge_is_refused():
    with pytest.raises(MapsError, match="nothing to merge"):
        AttentionMaps.merge([])
