from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attnviz.alignment import segment_f1
from attnviz.errors import EventsError, MapsError

CASES = json.loads((Path(__file__).parent / "fixtures" / "sed_cases.json").read_text(encoding="utf-8"))


def table(rows):
    return pd.DataFrame(rows, columns=["clip", "label", "onset", "offset"])


def score(frames, rows, classes=("dog",), *, seconds=None, **settings):
    """Score one clip of frames of a second."""
    frames = np.asarray(frames)
    frames = frames[:, None] if frames.ndim == 1 else frames
    return segment_f1(
        scores={"x": frames},
        ground_truth=table([["x", *row] for row in rows]),
        durations={"x": float(len(frames)) if seconds is None else seconds},
        edges=np.arange(len(frames) + 1.0),
        classes=classes,
        **settings,
    )


def counts(result, label="dog"):
    return result.table.loc[label, ["tp", "fp", "fn"]].tolist()


def literal_segments(data, length, threshold):
    """Return {label: [tp, fp, fn]}, one segment, frame and event at a time."""
    truth, edges = data["ground_truth"], [round(edge, 6) for edge in data["edges"]]
    found = {label: [0, 0, 0] for label in data["classes"]}
    for clip, seconds in data["durations"].items():
        for k in range(math.ceil(seconds / length)):
            start, end = round(k * length, 6), round((k + 1) * length, 6)
            for c, label in enumerate(data["classes"]):
                events = truth[(truth["clip"] == clip) & (truth["label"] == label)]
                present = any(
                    a < end and b > start for a, b in zip(events["onset"], events["offset"], strict=True)
                )
                frames = zip(edges[:-1], edges[1:], data["scores"][clip][:, c], strict=True)
                detected = any(a < end and b > start and value > threshold for a, b, value in frames)
                for place, true in enumerate([present and detected, detected and not present, present > detected]):
                    found[label][place] += true
    return found


def random_inputs(seed, *, clips=4, frames=19, classes=3):
    rng = np.random.default_rng(seed)
    labels = [f"c{c}" for c in range(classes)]
    rows, scores, durations = [], {}, {}
    for i in range(clips):
        name = f"clip{i}"
        durations[name] = float(rng.uniform(6, 12))
        scores[name] = np.round(rng.random((frames, classes)), 2)
        for label in labels:
            times = np.sort(rng.uniform(0, 6, 2 * int(rng.integers(0, 3))))
            rows += [[name, label, *pair] for pair in times.reshape(-1, 2).tolist()]
        rows.append([name, labels[0], 5.5, 6.0])
    return {
        "scores": scores,
        "ground_truth": table(rows),
        "durations": durations,
        "edges": np.sort(rng.uniform(0, 11, frames + 1)),
        "classes": labels,
    }


def test_perfect_decisions_score_one():
    result = score([False, True, True, False], [("dog", 1, 3)])
    assert (result.value, result.micro, result.per_class) == (1.0, 1.0, {"dog": 1.0})
    assert counts(result) == [2, 0, 0]
    assert (result.n_valid, result.events.scored, result.direction) == (1, 1, "higher")


def test_nothing_detected_has_precision_one_and_f1_zero():
    result = score([0.5] * 4, [("dog", 1, 3)])  # at the threshold is not above it
    assert result.table.loc["dog", ["precision", "recall", "f1"]].tolist() == [1.0, 0.0, 0.0]
    assert (result.value, result.micro, counts(result)) == (0.0, 0.0, [0, 0, 2])


def test_everything_detected_has_the_share_of_events_as_precision():
    result = score([1.0] * 10, [("dog", 2, 4)])
    assert result.table.loc["dog", ["precision", "recall"]].tolist() == [0.2, 1.0]
    assert result.value == pytest.approx(2 * 0.2 / 1.2)


def test_macro_is_the_mean_and_micro_pools_the_counts():
    frames = np.array([[1, 0], [1, 0], [0, 0], [0, 1]])
    result = score(frames, [("dog", 0, 2), ("cat", 1, 4)], ("dog", "cat"))
    assert result.per_class == {"dog": 1.0, "cat": 0.5}
    assert result.value == 0.75
    assert result.micro == pytest.approx(2 * 3 / (2 * 3 + 0 + 2))


def test_a_frame_counts_in_every_segment_it_reaches_into():
    frames = np.array([[0.0], [1.0], [0.0]])
    truth = table([["x", "dog", 0.9, 2.1]])
    result = segment_f1(
        scores={"x": frames}, ground_truth=truth, durations={"x": 3.0}, edges=[0, 0.9, 2.1, 3.0], classes=["dog"]
    )
    assert counts(result) == [3, 0, 0]
    exact = score([0.0, 1.0, 0.0], [("dog", 1, 2)])  # and in none that it only touches
    assert counts(exact) == [1, 0, 0]


def test_the_last_segment_is_whole_and_what_lies_past_it_is_not_seen():
    assert counts(score([0, 0, 1, 1, 1], [("dog", 2, 2.5)], seconds=2.5)) == [1, 0, 0]
    assert counts(score([0, 0], [("dog", 2.2, 2.5)], seconds=3.5)) == [0, 0, 1]


def test_a_class_without_events_is_left_out_and_its_false_positives_shown():
    frames = np.array([[1, 1], [0, 1], [0, 0]])
    result = score(frames, [("dog", 0, 1)], ("dog", "ghost"))
    assert (result.value, result.micro, result.n_valid) == (1.0, 1.0, 1)
    assert math.isnan(result.per_class["ghost"])
    assert counts(result, "ghost") == [0, 2, 0]
    assert result.table.loc["ghost", ["precision", "recall", "f1"]].isna().all()


def test_no_event_at_all_is_undefined():
    result = score([1.0, 0.0], [])
    assert math.isnan(result.value)
    assert math.isnan(result.micro)
    assert result.n_valid == 0


def test_zero_length_events_are_not_scored():
    result = score([1.0, 0.0, 0.0], [("dog", 0, 1), ("dog", 2.5, 2.5)])
    assert (counts(result), result.events.zero_length) == ([1, 0, 0], 1)


def test_clips_without_events_count():
    truth = table([["x", "dog", 0, 1], ["y", "", math.nan, math.nan]])
    scores = {"x": np.array([[1.0], [0.0]]), "y": np.array([[0.0], [1.0]])}
    result = segment_f1(
        scores=scores, ground_truth=truth, durations={"x": 2.0, "y": 2.0}, edges=[0, 1, 2], classes=["dog"]
    )
    assert counts(result) == [1, 1, 0]


@pytest.mark.parametrize("seed", range(3))
def test_order_of_clips_and_overlapping_parts_of_events_change_nothing(seed):
    data = random_inputs(seed)
    expected = segment_f1(**data)
    truth = data["ground_truth"]
    middle = (truth["onset"] + truth["offset"]) / 2
    parts = pd.concat([truth.assign(onset=middle), truth.assign(offset=middle), truth])
    other = segment_f1(
        scores=dict(reversed(data["scores"].items())),
        ground_truth=parts,
        durations=data["durations"],
        edges=dict.fromkeys(data["scores"], data["edges"]),
        classes=data["classes"],
    )
    pd.testing.assert_frame_equal(other.table, expected.table)
    assert (other.value, other.micro) == (expected.value, expected.micro)


def test_scores_and_threshold_may_be_transformed_together():
    data = random_inputs(5)
    cubed = {clip: values**3 for clip, values in data["scores"].items()}
    expected = segment_f1(**data, threshold=0.605)
    pd.testing.assert_frame_equal(segment_f1(**data | {"scores": cubed}, threshold=0.605**3).table, expected.table)
    decisions = {clip: values > 0.605 for clip, values in data["scores"].items()}
    pd.testing.assert_frame_equal(segment_f1(**data | {"scores": decisions}).table, expected.table)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("length", "threshold"), [(1.0, 0.5), (0.1, 0.9), (0.37, 0.0), (2.5, 0.8), (20.0, 0.97)])
def test_segment_f1_vs_literal(seed, length, threshold):
    data = random_inputs(seed)
    result = segment_f1(**data, segment_length=length, threshold=threshold)
    expected = literal_segments(data, length, threshold)
    assert {label: counts(result, label) for label in data["classes"]} == expected
    tp, fp, fn = np.sum(list(expected.values()), axis=0)
    if result.n_valid == len(data["classes"]):
        assert result.micro == pytest.approx(2 * tp / (2 * tp + fp + fn))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_segment_f1_vs_sed_scores_eval(case):
    for reference in case["segment_f1"]:
        result = segment_f1(
            scores={clip: np.array(values) for clip, values in case["scores"].items()},
            ground_truth=table(case["ground_truth"]),
            durations=case["durations"],
            edges=case["edges"],
            classes=case["classes"],
            **reference["settings"],
        )
        f1 = dict(reference["f1"])
        assert result.value == pytest.approx(f1.pop("macro_average"), abs=1e-12)
        assert result.micro == pytest.approx(f1.pop("micro_average"), abs=1e-12)
        assert result.per_class == pytest.approx(f1, abs=1e-12)
        for ratio in ("precision", "recall"):
            theirs = [reference[ratio][label] for label in case["classes"]]
            assert result.table[ratio].tolist() == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"segment_length": 0}, EventsError, "segment_length is 0"),
        ({"segment_length": math.inf}, EventsError, "segment_length is inf"),
        ({"segment_length": "1 s"}, EventsError, "a number"),
        ({"threshold": -0.1}, EventsError, "threshold is -0.1"),
        ({"threshold": math.nan}, EventsError, "threshold is nan"),
        ({"classes": ["cat"]}, EventsError, "not among the classes"),
        ({"scores": {"x": np.zeros((3, 2))}}, MapsError, r"\(3, 2\)"),
        ({"edges": [0, 1, 2]}, MapsError, r"need \(4,\)"),
    ],
)
def test_what_cannot_be_scored_is_refused(change, error, message):
    valid = {
        "scores": {"x": np.array([[0.0], [1.0], [0.0]])},
        "ground_truth": table([["x", "dog", 1, 2]]),
        "durations": {"x": 3.0},
        "edges": [0, 1, 2, 3],
        "classes": ["dog"],
    }
    assert segment_f1(**valid).value == 1.0
    with pytest.raises(error, match=message):
        segment_f1(**valid | change)
