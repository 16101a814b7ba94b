"""What people and disks do to corpora: lists, files of others, copied tables, lost arrays, tasks that fail."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from attnviz.audio import write_wav
from attnviz.corpus import Corpus, Plan, run_corpus
from attnviz.corpus.clips import PlannedClip, planned_clips
from attnviz.corpus.folder import open_folder, prepare
from attnviz.corpus.plan import ClipSource, ExplainSettings, KeepSettings, ModelSettings, ScoreSettings
from attnviz.corpus.results import check_result
from attnviz.corpus.shards import ShardWorker
from attnviz.corpus.stand_in import make
from attnviz.corpus.tasks import make_task
from attnviz.errors import AudioError, CorpusError, OutputError


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished corpus, which may be damaged."""
    shutil.copytree(finished[1], tmp_path / "copy")
    return tmp_path / "copy"


# ---- lists and events --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "l.csv",
            "clip,caption\nx.wav,a dog barks, then rain\n",
            "line 2 has 3 fields, and the header 2.*in quotes",
        ),
        ("l.csv", "caption\na dog barks, then rain\n", "line 2 has 2 fields, and the header 1"),
        ("l.csv", "clip,caption\nx,a dog\n\ny,a dog, rain\n", "line 4 has 3 fields"),
        ("l.csv", "clip,caption\nx\n", "line 2 has 1 field, and the header 2"),
        ("l.tsv", "clip\tcaption\nx\ta dog\t rain\n", "line 2 has 3 fields.*a tab"),
        ("l.csv", "caption,caption\na dog,rain\n", "names a column twice"),
        ("l.csv", "clip,caption\nx,a dog\n\n,rain\n", "line 4: the name of the clip is empty"),
        ("l.csv", "clip,caption\nx,a dog\n\n\ny,!\n", "first in line 5"),
        ("l.csv", "caption,seed\na dog,1\n\nrain,-1\n", "line 4: seed is '-1'"),
        ("l.csv", 'caption\n"a dog\n', "cannot be read"),
        ("l.csv.zip", "no archive", "unknown columns"),
    ],
)
def test_lists_that_would_be_read_otherwise_than_meant_are_refused(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    plan = Plan("attnviz.corpus.stand_in:make", ClipSource(name), folder=str(tmp_path))
    with pytest.raises(CorpusError, match=message):
        planned_clips(plan, {})


def test_quoted_captions_are_whole(tmp_path):
    (tmp_path / "l.csv").write_text(
        '\ufeffclip,caption\nx,"a dog barks, then\nrain"\n\ny,"a ""loud"" bell"\n', "utf-8"
    )
    plan = Plan("attnviz.corpus.stand_in:make", ClipSource("l.csv"), folder=str(tmp_path))
    found = planned_clips(plan, {})
    assert [one.caption for one in found] == ["a dog barks, then\nrain", 'a "loud" bell']


@pytest.mark.parametrize(
    ("events", "clips", "expected"),
    [
        (["a/x.wav"], ["a/x.wav", "b/x.wav"], "no events of 1 clip of 2: 'b/x.wav'"),
        (["a/x.flac", "zzz/x.wav"], ["a/x.wav", "b/x.wav"], "no events of 1 clip of 2: 'b/x.wav'"),
        (["x.wav"], ["a/x.wav", "b/x.wav"], "no events of 2 clips of 2"),
        (["x", "a/x.mp3"], ["a/x.wav"], {"a/x.wav": "a/x.mp3"}),
        (["x", "y.flac"], ["a/x.wav", "b/y.wav"], {"a/x.wav": "x", "b/y.wav": "y.flac"}),
        (["v1.5 b", "v1.5 c"], ["v1.5 b.wav", "v1.5 c.wav"], {"v1.5 b.wav": "v1.5 b", "v1.5 c.wav": "v1.5 c"}),
    ],
)
def test_events_of_another_recording_are_never_taken(events, clips, expected, tmp_path):
    rows = "".join(f"{clip}\t{number}\t{number + 0.5}\tdog\n" for number, clip in enumerate(events))
    (tmp_path / "events.tsv").write_text("filename\tonset\toffset\tevent_label\n" + rows)
    (tmp_path / "l.csv").write_text("clip,caption\n" + "".join(f"{clip},a dog\n" for clip in clips))
    for clip in clips:
        (tmp_path / "audio" / clip).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "audio" / clip).write_bytes(b"x")
    source = ClipSource("l.csv", "audio", "events.tsv")
    plan = Plan("explain", source, score=ScoreSettings("file"), folder=str(tmp_path))
    if isinstance(expected, str):
        with pytest.raises(CorpusError, match=expected):
            planned_clips(plan, {})
        return
    found = {one.clip: one.event_table["onset"].tolist() for one in planned_clips(plan, {})}
    assert found == {clip: [float(events.index(name))] for clip, name in expected.items()}


# ---- files of others ---------------------------------------------------------------------------------------


def test_files_of_others_are_never_touched(tmp_path, write_plan):
    """Names that a corpus has, too, are no reason to take a folder for one."""
    plan = write_plan(tmp_path, clips=3)
    user = tmp_path / "user"
    (user / "activations.zarr").mkdir(parents=True)
    (user / "activations.zarr" / "precious.bin").write_bytes(b"mine")
    (user / "clips.parquet").write_bytes(b"MY OWN DATA")
    (user / "run.json").write_text('{"prompt": "a dog barks"}')
    before = {path: path.read_bytes() for path in user.rglob("*") if path.is_file()}
    with pytest.raises(CorpusError, match="exists and is no corpus"):
        run_corpus(plan, user)
    assert {path: path.read_bytes() for path in user.rglob("*") if path.is_file()} == before


def test_a_run_that_ended_before_its_first_shard_goes_on(tmp_path, write_plan):
    plan = write_plan(tmp_path, clips=3)
    expected = run_corpus(plan, tmp_path / "whole").digest
    shutil.copytree(tmp_path / "whole", tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun" / "shards")
    (tmp_path / "begun" / "corpus.json").unlink()
    status = run_corpus(plan, tmp_path / "begun")
    assert (status.digest, status.complete) == (expected, True)
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "run.lock").touch()
    assert run_corpus(plan, tmp_path / "locked").complete


def test_a_folder_that_cannot_be_locked(tmp_path, write_plan):
    (tmp_path / "out" / "run.lock").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"Cannot write .*run\.lock"):
        run_corpus(write_plan(tmp_path, clips=3), tmp_path / "out")


def test_only_a_collected_table_is_replaced(copy, tmp_path):
    corpus = Corpus(copy)
    (tmp_path / "mine.csv").write_text("a,b\n")
    for path in (copy / "shards" / "000003.parquet", copy / "clips.parquet", tmp_path / "mine.csv"):
        before = path.read_bytes()
        with pytest.raises(OutputError):
            corpus.collect(path, overwrite=True)
        assert path.read_bytes() == before
    first = corpus.collect(tmp_path / "all.parquet")
    assert corpus.collect(tmp_path / "all.parquet", overwrite=True) == first


# ---- copied, changed and lost tables -----------------------------------------------------------------------


def changed(path, change):
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda shards: shutil.copy(shards / "000000.parquet", shards / "000001.parquet"),
            "is the table of shard 0",
        ),
        (
            lambda shards: changed(shards / "000001.parquet", lambda table: table.slice(1)),
            "has 9 rows .*; 10 rows of",
        ),
        (
            lambda shards: changed(shards / "000001.parquet", lambda table: pa.concat_tables([table, table])),
            r"has 20 rows \(10 of them twice\)",
        ),
        (
            lambda shards: changed(
                shards / "000001.parquet",
                lambda table: table.set_column(0, "index", pa.array([n - 1 for n in table["index"].to_pylist()])),
            ),
            "of clips 5 to 9 were written",
        ),
    ],
    ids=["copied", "rows lost", "rows twice", "of other clips"],
)
def test_tables_with_lost_or_doubled_clips_are_named(damage, message, copy, tmp_path):
    damage(copy / "shards")
    corpus = Corpus(copy)
    for look in (
        corpus.status,
        corpus.table,
        lambda: corpus.align(n_resamples=2, n_permutations=2),
        lambda: corpus.collect(tmp_path / "all.parquet"),
    ):
        with pytest.raises(CorpusError, match=message):
            look()


def test_pooling_notices_lost_and_altered_activations(copy):
    corpus = Corpus(copy)
    corpus.align(n_resamples=2, n_permutations=2)
    zarr.open_group(copy / "activations.zarr")["activation"][7, 0, 0] = 9.0
    with pytest.raises(CorpusError, match="activation of shard 1 .* differs from its checksum"):
        Corpus(copy).align(n_resamples=2, n_permutations=2)


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree,
        lambda store: (store / "zarr.json").write_text('{"zarr_format"'),
        lambda store: (store / "share" / "c" / "1" / "0" / "0").write_bytes(b"abc"),
    ],
    ids=["all", "metadata", "a chunk"],
)
def test_damaged_arrays_are_an_error_of_the_family(damage, copy, tmp_path):
    damage(copy / "activations.zarr")
    with pytest.raises(CorpusError, match="missing or damaged|differs from its checksum"):
        Corpus(copy).collect(tmp_path / "all.parquet")
    with pytest.raises(CorpusError, match="missing or damaged|differs from its checksum"):
        Corpus(copy).align(n_resamples=2, n_permutations=2)


@pytest.mark.parametrize("content", [None, b"PAR1", b""])
def test_a_damaged_list_of_clips_is_named(content, copy):
    path = copy / "clips.parquet"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"clips\.parquet is missing or damaged"):
        _ = Corpus(copy).clips


@pytest.mark.parametrize("content", ["{}", "[]", '{"seconds": "x", "clips": 1}', '{"seconds": 1.0}'])
def test_costs_are_no_results(content, copy):
    for path in (copy / "log").iterdir():
        path.write_text(content)
    assert np.isnan(Corpus(copy).status().seconds_per_clip)


@pytest.mark.parametrize(("name", "value"), [("clips", -1), ("slots", 0), ("clips", "many"), ("clips", 2.5)])
def test_impossible_sizes_are_damage(name, value, copy):
    path = copy / "corpus.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(CorpusError, match=r"corpus\.json is damaged"):
        open_folder(copy)


# ---- clips and tasks ---------------------------------------------------------------------------------------


def test_audio_that_changed_since_is_no_clip_of_the_plan(tmp_path, small_checkpoint):
    """Of the same size and time, so that only its content tells."""
    wave = np.random.default_rng(0).normal(size=16_000).astype(np.float32) / 10
    write_wav(tmp_path / "x.wav", wave)
    (tmp_path / "l.csv").write_text("clip,caption\nx.wav,a dog\n")
    plan = Plan(
        "explain", ClipSource("l.csv", "."), model=ModelSettings(str(small_checkpoint)),
        explain=ExplainSettings(timesteps=(200,), draws=1), folder=str(tmp_path),
    )  # fmt: skip
    (clip,) = planned_clips(plan, {})
    task = make_task(plan)
    task(clip)
    write_wav(tmp_path / "x.wav", -wave)
    with pytest.raises(AudioError, match="has changed since the corpus was begun"):
        task(clip)


def result(**changes):
    plan = Plan("attnviz.corpus.stand_in:make", ClipSource("l.csv"), settings={"columns": 12})
    good = make(plan)(PlannedClip(0, "a", "dog rain", 3))
    (first, second) = good.phrases
    phrase = {key: changes.pop(key) for key in ("curves", "energy", "share") if key in changes}
    return replace(good, phrases=(replace(first, **phrase), second), **changes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: None, "returned NoneType; a ClipResult"),
        (lambda: result(facts={"quality": "good"}), r"facts\['quality'\] is a str; a number"),
        (lambda: result(facts={"seconds": 3.0}), "'seconds', which is a column of every table"),
        (lambda: result(facts={"roc_auc": 3.0}), "'roc_auc', which is a column of every table"),
        (lambda: result(files={"a.txt": "text"}), r"files\['a.txt'\] is a str; bytes"),
        (lambda: result(files={"a\0b": b""}), "is no name of a file"),
        (lambda: result(files={"../a": b""}), "is no name of a file"),
        (lambda: result(curves={}), "phrase 0 has 0 curves of 'map'"),
        (lambda: result(curves={"map": (np.zeros(11),)}), r"curves of \[11, 12\] columns, and its share has 12"),
        (lambda: result(energy=np.zeros(13)), r"curves of \[12, 13\] columns, and its share has 12"),
    ],
)
def test_results_that_make_no_row(wrong, message):
    check_result(result())
    with pytest.raises(CorpusError, match=message):
        check_result(wrong())


TASK = """
from attnviz.corpus import ClipResult
from attnviz.corpus.stand_in import make as stand_in

def make(plan):
    good = stand_in(plan)
    def task(clip):
        if clip.index == 1:
            raise AttributeError("of a task")
        if clip.index == 2:
            assert not clip.caption
        if clip.index == 3:
            return None
        if clip.index == 4:
            raise RuntimeError("a lone surrogate " + chr(0xD800))
        if clip.index == 5:
            return ClipResult((), False, {"seconds": 1.0})
        return good(clip)
    return task

def fails(plan):
    return plan.nothing
"""


def test_a_clip_that_a_task_cannot_do_ends_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "my_task_of_faults.py").write_text(TASK)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "l.csv").write_text("caption\n" + "a dog\n" * 8)
    source = ClipSource("l.csv")
    plan = Plan("my_task_of_faults:make", source, clips_per_shard=4, folder=str(tmp_path))
    with prepare(plan, tmp_path / "out").held() as place:
        worker = ShardWorker(place.path)
        for shard in range(2):
            worker.run(shard)
    status = Corpus(tmp_path / "out").status()
    assert (status.clips_done, status.clips_failed, status.complete) == (8, 5, True)
    assert any("surrogate \\ud800" in reason for reason in status.reasons)
    Corpus(tmp_path / "out").collect(tmp_path / "all.parquet")
    fails = Plan("my_task_of_faults:fails", source, folder=str(tmp_path))
    with pytest.raises(CorpusError, match=r"my_task_of_faults:fails' cannot be made: AttributeError"):
        make_task(fails)
    with pytest.raises(CorpusError, match="there is no module 'sys' in a file"):
        prepare(Plan("sys:exit", source, folder=str(tmp_path)), None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"clips_per_shard": 1.5}, "clips_per_shard is 1.5 .*a whole number"),
        ({"seed": 1.5}, "seed is 1.5 .*a whole number"),
        ({"threads": True}, "threads is True .*a whole number"),
        ({"keep": None}, "keep is None; a KeepSettings"),
        ({"folder": None}, "folder is None; a text"),
        ({"settings": {"a": {1, 2}}}, "settings has what a plan cannot hold"),
        ({"settings": {"a": np.int64(3)}}, "settings has what a plan cannot hold"),
        ({"settings": [1]}, r"settings is \[1\]; a Mapping"),
    ],
)
def test_plans_made_in_python_are_checked_as_those_of_files(wrong, message):
    with pytest.raises(CorpusError, match=message):
        Plan("attnviz.corpus.stand_in:make", ClipSource("l.csv"), **wrong)


def test_what_is_kept_is_counted_in_whole_numbers():
    with pytest.raises(CorpusError, match="keep.columns is 1.5 .*a whole number"):
        KeepSettings(columns=1.5)
