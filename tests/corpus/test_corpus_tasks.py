"""The tasks `generate` and `explain`: what a shard holds equals what the library gives for one clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import attnviz
from attnviz.audio import write_wav
from attnviz.corpus import (
    ClipSource,
    Corpus,
    ExplainSettings,
    GenerateSettings,
    KeepSettings,
    ModelSettings,
    Plan,
    ScoreSettings,
)  # fmt: skip
from attnviz.corpus.folder import open_folder, prepare
from attnviz.corpus.shards import ShardWorker
from attnviz.errors import CorpusError

CAPTION = "a dog barks, then rain falls"


def computed(plan, out):
    """Compute all shards of a plan in this process."""
    with prepare(plan, out).held() as folder:
        worker = ShardWorker(folder.path)
        for shard in folder.missing():
            worker.run(shard)
    return Corpus(out)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two clips of two seconds with a caption and events, one that is damaged, and their list."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for name in ("a.wav", "b.wav"):
        write_wav(folder / name, (0.1 * rng.normal(size=32_000)).astype(np.float32))
    (folder / "c.wav").write_bytes((folder / "a.wav").read_bytes()[:30])
    (folder / "list.csv").write_text("clip,caption\n" + "".join(f'{name}.wav,"{CAPTION}"\n' for name in "abc"))
    rows = "".join(f"{name}.wav\t0.2\t0.7\tdog barks\n{name}.wav\t1.0\t1.9\train falls\n" for name in "abc")
    (folder / "events.tsv").write_text("filename\tonset\toffset\tevent_label\n" + rows)
    return folder


def test_explained_clips_vs_one_at_a_time(clips, tmp_path, small_checkpoint):
    plan = Plan(
        "explain", ClipSource("list.csv", ".", "events.tsv"), clips_per_shard=2, seed=5, folder=str(clips),
        model=ModelSettings(str(small_checkpoint)), explain=ExplainSettings(timesteps=(50,), draws=1),
        score=ScoreSettings("file"), keep=KeepSettings(sample_every=2),
    )  # fmt: skip
    corpus = computed(plan, tmp_path / "out")
    table = corpus.table()
    assert table["clip"].tolist() == ["a.wav", "a.wav", "b.wav", "b.wav", "c.wav"]
    assert table["status"].tolist() == ["done"] * 4 + ["failed"]
    assert table["reason"].iloc[-1].startswith("AudioError: ")
    pipe = attnviz.load(small_checkpoint)
    maps = attnviz.explain(pipe, clips / "b.wav", CAPTION, timesteps=(50,), draws=1, seed=6)
    alone = attnviz.align(maps, attnviz.read_events(clips / "events.tsv", clip="b.wav"))
    expected = alone.table[alone.table["method"] == "map"]
    got = table[table["clip"] == "b.wav"]
    np.testing.assert_array_equal(
        got[["roc_auc", "pearson", "partial"]], expected[["roc_auc", "pearson", "partial"]]
    )
    assert got["label"].tolist() == ["dog barks", "rain falls"]
    curve = corpus.activations["activation"].sel(clip="b.wav", phrase=1).to_numpy()
    np.testing.assert_allclose(curve[: int(got["columns"].iloc[1])], alone.phrases[1].curves["map"][0], rtol=1e-6)
    assert corpus.maps("a.wav").words == ["a", "dog", "barks", "then", "rain", "falls"]
    with pytest.raises(attnviz.AttnVizError, match="were not kept: 1 of 2 clips has them"):
        corpus.maps("b.wav")


def test_generated_clips_without_scores_keep_every_word(tmp_path, small_checkpoint):
    (tmp_path / "list.csv").write_text(f'caption,seed\n"{CAPTION}",3\nrain falls,4\n')
    plan = Plan(
        "generate", ClipSource("list.csv"), folder=str(tmp_path), model=ModelSettings(str(small_checkpoint)),
        generate=GenerateSettings(num_inference_steps=1, guidance_scale=1.0, duration=2.0),
        keep=KeepSettings(sample_every=1),
    )  # fmt: skip
    corpus = computed(plan, tmp_path / "out")
    table = corpus.table()
    assert table["label"].tolist() == ["a", "dog", "barks", "then", "rain", "falls", "rain", "falls"]
    assert not table["scored"].any()
    assert table["roc_auc"].isna().all()
    pipe = attnviz.load(small_checkpoint)
    with attnviz.trace(pipe) as trace:
        pipe("rain falls", num_inference_steps=1, guidance_scale=1.0, duration=2.0,
             generator=torch.Generator().manual_seed(4))  # fmt: skip
    alone = trace.maps.activation("falls")
    curve = corpus.activations["activation"].sel(clip="00000001", phrase=1).to_numpy()
    heard = ~alone["padding"].to_numpy()
    np.testing.assert_allclose(curve[: heard.sum()], alone.to_numpy()[heard], rtol=1e-6)
    assert (tmp_path / "out" / "samples" / "00000000" / "audio.wav").exists()


def test_clips_with_more_columns_than_kept_fail_with_what_to_set(clips, tmp_path, small_checkpoint):
    plan = Plan(
        "explain", ClipSource("list.csv", "."), folder=str(clips), model=ModelSettings(str(small_checkpoint)),
        explain=ExplainSettings(timesteps=(50,), draws=1), keep=KeepSettings(columns=3),
    )  # fmt: skip
    reasons = computed(plan, tmp_path / "out").table()["reason"]
    assert reasons.str.contains("more than keep.columns = 3").sum() == 2
    tables = computed(Plan(**{**vars(plan), "keep": KeepSettings(activations=False)}), tmp_path / "tables")
    assert tables.status().clips_failed == 1
    with pytest.raises(attnviz.AttnVizError, match="keeps no activations"):
        _ = tables.activations


KEEPING = """from attnviz.corpus import ClipResult
from attnviz.errors import AudioError


def make(plan):
    def task(clip):
        if clip.caption == "rain":
            raise AudioError("too quiet")
        name = "../note.txt" if clip.caption == "bell" else "note.txt"
        return ClipResult((), False, files={name: clip.caption.encode()})

    return task
"""


@pytest.fixture
def keeping(tmp_path, monkeypatch):
    """A plan of a task of one's own, which keeps a file of each clip."""
    (tmp_path / "keeping_task.py").write_text(KEEPING)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "list.csv").write_text("caption\ndog\nrain\nbell\n")
    kept = KeepSettings(activations=False)
    return Plan("keeping_task:make", ClipSource("list.csv"), clips_per_shard=2, keep=kept, folder=str(tmp_path))


def test_a_task_keeps_files_of_its_own(keeping, tmp_path):
    with prepare(keeping, tmp_path / "out").held() as place:
        stale = place.files_path(1)  # of a shard that was not finished
        stale.mkdir(parents=True)
        for shard in range(place.n_shards):
            ShardWorker(place.path).run(shard)
    corpus = Corpus(tmp_path / "out")
    note = corpus.clip_files("00000000") / "note.txt"
    assert note.read_text() == "dog"
    reasons = corpus.table(["status", "reason"])["reason"].tolist()
    assert reasons == ["", "AudioError: too quiet", "CorpusError: '../note.txt' is no name of a file; files of a "
                       "clip are in one folder."]  # fmt: skip
    assert [path.name for path in (tmp_path / "out" / "files").iterdir()] == ["00000000"]
    for clip in ("00000001", "00000002"):
        with pytest.raises(CorpusError, match=f"no files of '{clip}'"):
            corpus.clip_files(clip)
    with pytest.raises(CorpusError, match="has no clip 'x'"):
        corpus.clip_files("x")


def test_workers_find_files_that_were_moved(keeping, tmp_path):
    with prepare(keeping, tmp_path / "out").held():
        pass
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "list.csv").rename(moved / "clips.csv")
    again = replace(keeping, folder=str(moved), clips=ClipSource("clips.csv"))
    with prepare(again, tmp_path / "out").held() as place:
        assert place.plan.path(place.plan.clips.list) == moved / "clips.csv"
    assert open_folder(tmp_path / "out") == place
