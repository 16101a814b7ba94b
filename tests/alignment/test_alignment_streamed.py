"""Pools of streams: the same numbers as `Alignment.pool` on the same phrases."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest

from attnviz.alignment import Alignment
from attnviz.alignment.phrases import AlignedPhrase, PhraseEvents
from attnviz.alignment.streamed import block_of, pool_stream
from attnviz.errors import ArgumentError, MapsError

STEP = 0.5


def phrases_of(rng, *, clips, sources, lengths=(19,), odd=True):
    """Phrases of clips of one to three sounds; some silent, constant, without energy, or over the whole clip."""
    found = []
    for clip in range(clips):
        columns = lengths[clip % len(lengths)]
        energy = None if odd and clip == 3 else rng.normal(size=columns).astype(np.float32)
        for place in range(1 + clip % 3):
            onset = rng.uniform(0, 0.6) * columns * STEP
            times = np.array([[onset, onset + rng.uniform(0.1, 0.3) * columns * STEP]])
            if clip % 4 == 0:  # a second event
                times = np.concatenate([times, times[:, 1:] + [[0.7, 1.3]]])
            if odd and (clip, place) == (5, 1):
                times = np.empty((0, 2))
            if odd and (clip, place) == (4, 0):
                times = np.array([[0.0, columns * STEP]])
            edges = np.arange(columns + 1) * STEP
            inside = np.minimum(edges[1:], times[:, 1:]) - np.maximum(edges[:-1], times[:, :1])
            share = np.clip(inside / STEP, 0, 1).sum(axis=0) if len(times) else np.zeros(columns)
            curve = (0.4 * share + rng.normal(size=columns)).astype(np.float32).astype(np.float64)
            if odd and (clip, place) == (2, 0):
                curve[:] = 0.25
            if odd and (clip, place) == (7, 0) and len(lengths) == 1:  # ties, which resampling breaks by rounding
                curve = curve.round(0)
            source = None if sources is None else f"s{(5 * clip + place) % sources}"
            events = PhraseEvents(
                f"clip {17 * clip % 100:03d}", "x", (3 * place, 3 * place + 2), source, times, None, 0, 0
            )
            level = None if energy is None else energy.astype(np.float64)
            found.append(AlignedPhrase(events, 0, columns * STEP, STEP, share, {"map": (curve,)}, level))
    return found


def streamed(phrases, size=7, **settings):
    """Pool phrases as a stream of blocks of whole clips."""
    names = [one.events.clip for one in phrases]
    groups = [[*rows] for _, rows in pd.Series(phrases, dtype=object).groupby(names, sort=False)]
    parts = (groups[start : start + size] for start in range(0, len(groups), size))
    return pool_stream((block_of([*itertools.chain(*part)]) for part in parts), **settings)


@pytest.mark.parametrize(
    ("clips", "sources", "lengths"),
    [(23, 9, (19,)), (14, None, (19, 24)), (30, 1000, (16, 33, 19)), (3, 4, (19,))],
    ids=["two ways", "clips only", "three lengths", "too few clips to exchange"],
)
def test_streams_vs_alignment(clips, sources, lengths):
    phrases = phrases_of(np.random.default_rng(clips), clips=clips, sources=sources, lengths=lengths)
    settings = {"n_resamples": 60, "n_permutations": 40}
    whole = Alignment(tuple(phrases), "mean", 3)
    expected = whole.pool(**settings)
    found = streamed(phrases, seed=3, **settings)
    assert (found.phrases, found.column_ms, found.unit) == (len(phrases), whole.column_ms, whole.unit)
    assert {name: number for name, number in whole.counts.items() if name in found.reasons} == found.reasons
    for name in ("scores", "differences"):
        pd.testing.assert_frame_equal(getattr(found.pooled, name), getattr(expected, name), rtol=1e-6, atol=1e-6)


def test_the_order_of_blocks_and_their_size_do_not_matter():
    phrases = phrases_of(np.random.default_rng(0), clips=12, sources=5)
    first, second = (streamed(phrases, size, n_resamples=20, n_permutations=20) for size in (1, 50))
    pd.testing.assert_frame_equal(first.pooled.scores, second.pooled.scores, rtol=1e-12)


def test_maps_that_know_nothing_are_at_chance_and_maps_that_know_are_better(tmp_path):
    rng = np.random.default_rng(1)
    phrases = phrases_of(rng, clips=40, sources=200, odd=False)
    knowing = [
        dataclasses.replace(one, curves={"map": (one.share + 0.3 * rng.normal(size=len(one.share)),)})
        for one in phrases
    ]
    scores = streamed(knowing, n_resamples=100, n_permutations=100).pooled
    row = scores.scores.set_index(["method", "score"]).loc[("map", "roc_auc")]
    assert row["value"] > 0.9
    assert not row["at_chance"]
    assert (scores.differences.query("score == 'roc_auc'")["verdict"] == "better").all()
    blind = [dataclasses.replace(one, curves={"map": (rng.normal(size=len(one.share)),)}) for one in phrases]
    row = streamed(blind, n_resamples=50, n_permutations=100).pooled.scores.set_index(["method", "score"])
    assert row.loc[("map", "roc_auc"), "at_chance"]


def test_what_cannot_be_pooled():
    with pytest.raises(MapsError, match="no phrase"):
        pool_stream([])
    with pytest.raises(ArgumentError, match="n_resamples is 0"):
        pool_stream([], n_resamples=0)
