"""`Corpus.align`: the same numbers as an `Alignment` of the same phrases."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from attnviz.alignment import Alignment
from attnviz.corpus import Corpus, KeepSettings, Plan, read_plan
from attnviz.corpus.clips import read_clips
from attnviz.corpus.folder import prepare
from attnviz.corpus.shards import ShardWorker
from attnviz.corpus.stand_in import make
from attnviz.errors import AttnVizError, CorpusError


def in_double(phrase):
    """Return a phrase with curves in double precision, as `align` makes them."""
    curves = {"map": (phrase.curves["map"][0].astype(np.float64),)}
    return dataclasses.replace(phrase, curves=curves, energy=phrase.energy.astype(np.float64))


def test_a_corpus_vs_one_alignment(finished):
    plan, folder = finished
    task = make(read_plan(plan))
    phrases = []
    for clip in read_clips(folder / "clips.parquet"):
        try:
            phrases += [in_double(one) for one in task(clip).phrases]
        except AttnVizError:
            continue
    alone = Alignment(tuple(phrases), "mean", 2)
    expected = alone.pool(n_resamples=50, n_permutations=30)
    said = []
    got = Corpus(folder).align(n_resamples=50, n_permutations=30, seed=2, progress=lambda *part: said.append(part))
    for name in ("scores", "differences"):
        pd.testing.assert_frame_equal(getattr(got.pooled, name), getattr(expected, name), rtol=1e-5, atol=1e-6)
    assert got.phrases == len(phrases)
    assert said[-1] == ("Scoring", 1.0)
    assert "37 phrases of 19 clips" in got.summary()
    assert np.isfinite(got.pooled.scores.query("method == 'map' and score == 'psds1'")["value"]).all()


def test_nothing_to_align(tmp_path, write_plan):
    plan = read_plan(write_plan(tmp_path, clips=4, fail_every=1))
    with prepare(plan, tmp_path / "out").held() as folder:
        ShardWorker(folder.path).run(0)
    with pytest.raises(CorpusError, match="no phrase with scores"):
        Corpus(tmp_path / "out").align()
    bare = Plan(**{**vars(plan), "keep": KeepSettings(activations=False)})
    with prepare(bare, tmp_path / "bare").held() as folder:
        ShardWorker(folder.path).run(0)
    with pytest.raises(CorpusError, match="keeps no activations"):
        Corpus(tmp_path / "bare").align()
