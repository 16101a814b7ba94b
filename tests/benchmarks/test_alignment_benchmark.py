"""benchmarks/alignment.py: it runs, goes on where it was killed, keeps what it scored, and judges as it should."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from alignment_synthetic import COLUMNS, DOG, GRID, RAIN, event_rows, planted_maps, study
from scenes.synthetic_scenes import write_layout

from attnviz.alignment import Alignment, align, profile
from attnviz.corpus import Corpus
from attnviz.io.settings import read_settings
from attnviz.maps import FittedReadout
from attnviz.maps.fitted import ReadoutPart

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from alignment_parts.bars import judge
from alignment_parts.calibration import chosen_by
from alignment_parts.known import known_answers
from alignment_parts.looking import explain_piece
from alignment_parts.material import class_of, scene_item
from alignment_parts.pieces import Piece, load_piece, picture_of, piece_files
from alignment_parts.settings import Settings
from alignment_parts.study import OUTPUTS, AlignmentStudy, Source
from alignment_parts.tables import gains, look_tables, mean_rows, phrase_scores
from harness import Model, Study
from harness.material import Prompt, heard_events

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NO_MODEL = SimpleNamespace(pipe=None)
TINY = Settings(audio="planted", model="planted", resamples=60)
TABLES = {"readouts", "gains", "controls", "differences", "phrases", "undefined", "profile", "reliability"}


def command():
    """The script, under a name of its own: `alignment` is too plain a name to share."""
    spec = importlib.util.spec_from_file_location("alignment_study_command", BENCHMARKS / "alignment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


# ---- pieces ----------------------------------------------------------------------------------------------


def test_a_piece_comes_back_as_it_was(tmp_path):
    rng = np.random.default_rng(0)
    maps, other = (
        planted_maps(
            {DOG: rng.random(COLUMNS), RAIN: rng.random(COLUMNS)},
            log_mel=rng.normal(size=(GRID.height, GRID.width)),
        )
        for _ in range(2)
    )
    rows = [("dog barks", 0.1, 0.3), ("dog barks", 0.4, 0.5), ("rain falls", np.nan, np.nan)]
    events = event_rows(*rows, source=["7", "7", ""], low=100.0, high=900.0)
    result = align(maps, events, controls={"random weights": [other, maps]})
    piece = Piece(
        {"mean": result.phrases, "down.0.0": result.phrases[:1]}, profile(maps, events), np.zeros((64, 256))
    )
    for name, content in piece_files(piece).items():
        (tmp_path / name).write_bytes(content)
    again = load_piece(tmp_path)
    pd.testing.assert_frame_equal(
        Alignment(again.phrases["mean"], "mean").table, result.table, check_exact=False, atol=1e-5
    )
    assert result.table["iou"].notna().any()
    assert [phrase.events.source for phrase in again.phrases["mean"]] == ["7", None]
    assert len(again.phrases["down.0.0"]) == 1
    pd.testing.assert_frame_equal(again.profile, piece.profile, atol=1e-4, check_dtype=False)


def test_a_picture_is_the_means_of_its_cells():
    log_mel = np.add.outer(np.arange(256.0), np.arange(512.0))
    picture = picture_of(log_mel)
    assert picture.shape == (64, 256)
    assert picture[3, 5] == pytest.approx(log_mel[12:16, 10:12].mean())


# ---- tables ----------------------------------------------------------------------------------------------


def pieces(kinds, clips=8):
    """Pieces of planted clips: each readout is of a kind that is known."""
    results = {readout: study(kind, clips=clips) for readout, kind in kinds.items()}
    made = []
    for clip in range(clips):
        phrases = {
            readout: tuple(one for one in result.phrases if one.events.clip == f"{clip}.wav")
            for readout, result in results.items()
        }
        maps = planted_maps({DOG: np.arange(COLUMNS), RAIN: np.arange(COLUMNS)})
        events = event_rows(("dog barks", 0.1, 0.3), clip=f"{clip}.wav")
        made.append(Piece(phrases, profile(maps, events), np.zeros((64, 256))))
    return made


def test_tables_give_the_planted_answers():
    tables = look_tables(
        pieces({"mean": "noise", "fitted": "perfect", "best layer": "noisy energy"}, clips=24), TINY, exact=True
    )
    readouts = tables["readouts"].set_index("readout")
    assert readouts.loc["fitted", "value"] == 1.0
    assert readouts.loc["mean", "low"] < 0.5 < readouts.loc["mean", "high"]
    assert readouts.loc["fitted", ["phrases", "sources"]].tolist() == [48, 34]  # recordings recur after 17 clips
    gained = tables["gains"].set_index("over")
    assert set(gained["readout"]) == {"fitted"}
    assert gained.loc["mean", "verdict"] == "better"
    assert gained.loc["mean", "value"] == pytest.approx(1 - readouts.loc["mean", "value"])
    differences = tables["differences"].set_index(["readout", "control", "score"])
    assert differences.loc[("fitted", "energy", "roc_auc"), "verdict"] == "better"
    assert tables["lags"].set_index("readout").loc["fitted", "lag_ms"] == pytest.approx(0.0, abs=0.5)
    assert "lags" not in look_tables(pieces({"mean": "perfect"}), TINY, exact=False)


def test_reliability_is_by_length_and_by_overlap():
    rows = [
        event_rows(("dog barks", 0.1, 0.3), ("rain falls", 0.1, 0.3), clip="both", source=["1", "2"]),
        event_rows(("dog barks", 0.1, 0.3), ("rain falls", 0.5, 0.6), clip="apart", source=["3", "4"]),
    ]
    made = []
    for events in rows:
        maps = planted_maps({DOG: np.arange(COLUMNS), RAIN: np.arange(COLUMNS)})
        made.append(Piece({"mean": align(maps, events).phrases}, profile(maps, events), np.zeros((64, 256))))
    tables = look_tables(made, TINY, exact=False)
    phrases = tables["phrases"].query("method == 'map'").set_index(["clip", "label"])
    assert phrases["overlap"].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert phrases.loc[("apart", "rain falls"), "seconds"] == pytest.approx(0.1)
    found = tables["reliability"].set_index(["by", "name"])
    assert found.loc[("overlap", "none"), "phrases"] == found.loc[("overlap", "over half"), "phrases"] == 2
    assert found.loc[("length", "up to 1 s"), "phrases"] == 4


def test_means_and_gains_leave_out_what_is_undefined():
    values = pd.DataFrame(
        {"clip": list("abcdefg"), "source": "", "one": [0.9] * 6 + [np.nan], "two": [0.5] * 6 + [0.0]}
    )
    rows = mean_rows("readout", values, 50).set_index("readout")
    assert rows.loc["one", "value"] == pytest.approx(0.9)
    assert rows.loc["one", ["phrases", "sources"]].tolist() == [6, 6]
    gain = gains(values, "one", 50).iloc[0]
    assert gain["value"] == pytest.approx(0.4)
    assert gain["verdict"] == "better"
    assert gains(values[:5], "one", 50).iloc[0]["verdict"] == "too few sources to tell"


def test_readouts_are_compared_phrase_by_phrase():
    noise, perfect = study("noise", clips=5), study("perfect", clips=5)
    scores = phrase_scores({"noise": noise, "perfect": perfect})
    own = noise.table.query("method == 'map'")
    assert scores["noise"].tolist() == own["roc_auc"].tolist()
    assert scores["clip"].tolist() == own["clip"].tolist()


def test_known_answers_are_given():
    found = known_answers(study("noise"), 200)
    assert found["given"].all(), found
    assert found.set_index("kind").loc["perfect", "value"] == 1.0


# ---- material and bars -----------------------------------------------------------------------------------


class _Hearing:
    events = pd.DataFrame(
        {"label": ["Rain", "Rain", "Rooster"], "onset": [1.0, 4.0, 2.0], "offset": [2.0, 5.0, 3.0]}
    )


def test_what_was_heard_of_each_phrase_is_its_events_and_silence_is_said():
    prompt = Prompt("rain falls, then a dog barks", ("Rain", "Dog bark"), ((0, 10), (17, 28)), True)
    events = heard_events(_Hearing(), prompt, "prompt 0")
    assert events["label"].tolist() == ["rain falls", "rain falls", "a dog barks"]
    assert events["onset"].tolist()[:2] == [1.0, 4.0]
    assert np.isnan(events["onset"].iloc[2])
    assert events["span"].tolist() == [(0, 10), (0, 10), (17, 28)]


def test_phrases_tell_their_class():
    assert class_of("The dog barks") == "Dog bark"
    assert class_of("a violin plays") == ""


def test_ranges_of_timesteps_hold_one_each():
    assert Settings("", "", timesteps=(400, 100, 200)).ranges == ((0, 150), (150, 300), (300, 1000))


def test_bars_say_reached_missed_and_not_measured():
    empty = {bar.what: bar.state for bar in judge({})}
    assert set(empty.values()) == {"not measured"}
    readouts = pd.DataFrame(
        {"readout": ["fitted"], "value": [0.93], "low": [0.9], "high": [0.95], "phrases": [9], "sources": [9]}
    )
    calibration = pd.DataFrame({"method": ["fitted"], "value": [0.8], "chosen": [True]})
    gained = pd.DataFrame(
        {"readout": ["fitted"], "over": ["best layer"], "value": [0.01], "low": [-0.1], "high": [0.2],
         "verdict": ["no difference shown"]}
    )  # fmt: skip
    differences = gained.rename(columns={"over": "control"}).assign(
        control="energy", score="roc_auc", verdict="better"
    )
    controls = pd.DataFrame(
        {"readout": "fitted", "score": "roc_auc", "method": ["constant", "other_clip"], "value": [0.5, 0.6],
         "permutation_low": [0.5, 0.55], "permutation_high": [0.5, 0.65], "permuted": "clips",
         "at_chance": [True, False]}
    )  # fmt: skip
    looks = {
        "inversion": {"readouts": readouts, "gains": gained, "differences": differences, "controls": controls},
        "calibration/inversion": {"readouts": calibration},
        "calibration/noising": {"readouts": calibration.assign(value=0.7)},
        "generation": {"readouts": readouts.assign(value=0.8)},
    }
    states = {bar.what: bar.state for bar in judge(looks)}
    assert list(states.values())[:6] == ["reached", "reached", "missed", "missed", "reached", "missed"]
    assert all("inversion" in what for what in list(states)[:3])


# ---- the command -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(small_checkpoint, tmp_path_factory):
    """The whole study, tiny, one way to look."""
    esc10 = write_layout(tmp_path_factory.mktemp("esc10") / "all", range(1, 11), folds=(3, 4), per_fold=3)
    out = tmp_path_factory.mktemp("study") / "out"
    arguments = ["--data", esc10, "--model", small_checkpoint, "--tiny", "--ways", "noising", "--prompts", "1",
                 "--scenes", "5", "--choosing-scenes", "5", "--weight-scenes", "1", "--out", out]  # fmt: skip
    assert command()([str(one) for one in arguments]) == 0
    return out, [str(one) for one in arguments]


def test_everything_is_written(whole):
    out, _ = whole
    for look in ("noising", "weights", "generation"):
        written = {path.stem for path in (out / look).glob("*.csv")}
        assert written - {"lags"} == TABLES, look
    assert (out / "noising" / "lags.csv").exists()
    assert {path.name for path in out.glob("*.png")} >= {"timesteps.png", "controls.png", "reliability.png"}
    text = (out / "README.md").read_text()
    assert "| explain (noising, chosen on the other fold): frame ROC-AUC of the fitted readout | >= 0.92 |" in text
    assert "The truth is what the listener hears" in text  # and how well it hears
    controls = pd.read_csv(out / "weights" / "controls.csv")
    cascade = [f"{count} of 9 blocks random" for count in range(1, 9)]
    assert set(controls["method"]) >= {"random weights", "another caption", *cascade}
    steps = pd.read_csv(out / "generation" / "profile.csv")
    assert sorted(set(steps["step"])) == [-1, 0, 1, 2]  # PNDM makes one call more than its steps
    readouts = pd.read_csv(out / "noising" / "readouts.csv")["readout"].tolist()
    assert readouts[:4] == ["mean", "auffusion", "best layer", "fitted"]
    assert len(readouts) == 4 + 7
    assert "best layer" in set(pd.read_csv(out / "noising" / "lags.csv")["readout"])


def test_a_piece_of_the_engine_is_that_of_a_direct_call(whole):
    """The last scene, composed and explained here, without the scenes before it."""
    out, arguments = whole
    esc10, checkpoint = Path(arguments[1]), arguments[3]
    given = json.loads((out / "study.json").read_text())["settings"]
    settings = read_settings(Settings, {name: one for name, one in given.items() if one is not None}, "")
    item = scene_item(esc10, settings.fold, settings)(4)
    chosen = chosen_by(out / "calibration" / "noising")
    direct = explain_piece(Model(checkpoint).pipe, item, "noising", settings, chosen)
    corpus = Corpus(out / "pieces" / "noising")
    piece = load_piece(corpus.clip_files(corpus.clips["clip"].iloc[4]))
    assert list(piece.phrases) == list(direct.phrases)
    for readout, phrases in direct.phrases.items():
        for own, other in zip(piece.phrases[readout], phrases, strict=True):
            assert own.events.label == other.events.label
            np.testing.assert_array_equal(own.share, other.share)
            np.testing.assert_allclose(own.curves["map"][0], other.curves["map"][0], rtol=1e-4)
    own = pd.read_csv(out / "noising" / "phrases.csv", dtype={"clip": str}).query("method == 'map'")
    scores = own[own["clip"] == str(item.events["clip"].iloc[0])]["roc_auc"].to_numpy()
    fitted = Alignment(direct.phrases["fitted"], "fitted").table.query("method == 'map'")["roc_auc"].to_numpy()
    np.testing.assert_allclose(scores, fitted, atol=0.02)
    table = corpus.table(["index", "label", "roc_auc"]).query("index == 4")
    assert table["label"].tolist() == [one.events.label for one in direct.phrases["mean"]]


def test_a_killed_run_makes_what_is_missing_and_no_more_with_any_number_of_processes(whole):
    out, arguments = whole
    corpus = out / "pieces" / "noising"
    pieces = sorted((corpus / "files").iterdir())
    before = {path: (path / "curves.npz").stat().st_mtime_ns for path in pieces}
    content = (pieces[2] / "curves.npz").read_bytes()
    tables = {path: pd.read_csv(path) for path in (out / "noising").glob("*.csv")}
    (corpus / "shards" / "000002.parquet").unlink()
    shutil.rmtree(pieces[2])
    shutil.rmtree(out / "noising")
    assert command()([*arguments, "--processes", "2"]) == 0
    after = {path: (path / "curves.npz").stat().st_mtime_ns for path in pieces}
    assert [path for path in pieces if after[path] != before[path]] == [pieces[2]]
    assert (pieces[2] / "curves.npz").read_bytes() == content
    for path, table in tables.items():
        pd.testing.assert_frame_equal(pd.read_csv(path), table)


def test_another_study_is_not_added_to(whole):
    out, arguments = whole
    with pytest.raises(SystemExit, match="other settings"):
        command()([*arguments, "--seeds", "3"])
    assert json.loads((out / "study.json").read_text())["settings"]["seeds"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give --data"),
        (["--events", "x.json"], "must be given together"),
        (["--data", "x", "--events", "x.json", "--audio", "y"], "Give --data"),
        (["--data", "x", "--fold", "3"], "choose and report on different folds"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        command()([*arguments, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_refused_clips_are_listed_once_with_the_newest_reason(tmp_path):
    def corpus(*refused):
        rows = [
            (f"{number:05d} {clip}", "a dog barks", "failed", why) for number, (clip, why) in enumerate(refused)
        ]
        rows.append(("00009 good.wav", "rain", "done", ""))
        table = pd.DataFrame(rows, columns=["clip", "caption", "status", "reason"])
        return SimpleNamespace(table=lambda columns: table[columns])

    real = Source(events=tmp_path / "events.json", audio=tmp_path)
    running = AlignmentStudy(Study(tmp_path, TINY, OUTPUTS), TINY, real, NO_MODEL)
    running._list_refused("noising", corpus(("a 1.wav", "too short"), ("b.wav", "silent")))
    running._list_refused("weights", corpus(("b.wav", "silent")))
    running._list_refused("noising", corpus(("b.wav", "still silent")))
    listed = pd.read_csv(tmp_path / "refused.csv")
    assert listed.to_numpy().tolist() == [
        ["weights", "b.wav", "a dog barks", "silent"], ["noising", "b.wav", "a dog barks", "still silent"]
    ]  # fmt: skip


def test_a_plan_does_not_depend_on_where_its_data_are(tmp_path):
    """The same recordings in two folders give the same plan; another recording gives another one."""
    write_layout(tmp_path / "here", range(1, 11), folds=(4,), per_fold=2)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    FittedReadout((ReadoutPart("mid_block.attentions.0", 1.0),)).save(tmp_path / "readout.json")
    model = SimpleNamespace(name=None, device="cpu")
    running = []
    for name in ("here", "there"):
        study = Study(tmp_path / f"out {name}", TINY, OUTPUTS)
        running.append(AlignmentStudy(study, TINY, Source(tmp_path / name), model, tmp_path / "readout.json"))
    first, second = (one.plan("noising", "noising", 3) for one in running)
    assert first.record == second.record
    assert first.folder != second.folder
    assert len(pd.read_csv(first.path(first.clips.list))) == 3
    one, other = sorted((tmp_path / "there").rglob("4-*"))[:3:2]  # of two classes
    one.write_bytes(other.read_bytes())
    assert running[1].plan("noising", "noising", 3).record != first.record


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::attnviz.errors.AttnVizWarning")
def test_random_weights_are_at_chance_on_a_real_clip(adapter_checkpoint, data_dir, tmp_path):
    """AudioGrounding's phrases of a real clip, a full-layout model: over ten seeds of weights, chance is held."""
    (tmp_path / "audio").mkdir()
    name = "_GI7meqlYZk_30.wav"
    (tmp_path / "audio" / name).write_bytes((data_dir / "audiocaps" / name).read_bytes())
    arguments = ["--model", adapter_checkpoint, "--events", data_dir / "audiogrounding" / "test.json",
                 "--audio", tmp_path / "audio", "--tiny", "--ways", "noising", "--scenes", "1",
                 "--weight-scenes", "1", "--weight-seeds", "10", "--out", tmp_path / "out"]  # fmt: skip
    assert command()([str(one) for one in arguments]) == 0
    assert not (tmp_path / "out" / "refused.csv").exists()
    controls = pd.read_csv(tmp_path / "out" / "weights" / "controls.csv")
    row = controls.set_index(["readout", "method", "score"]).loc[("mean", "random weights", "roc_auc")]
    assert row["permuted"] == "seeds"
    assert row["permutation_low"] <= 0.5 <= row["permutation_high"]
    assert row["at_chance"]
    draws = pd.read_csv(tmp_path / "out" / "weights" / "phrases.csv").query("method == 'random weights'")
    assert sorted(set(draws["draw"])) == list(range(10))
    assert draws.groupby("draw")["roc_auc"].mean().std() > 0.01  # seeds differ: it is no constant
