from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attnviz.alignment import psds
from attnviz.errors import EventsError, MapsError

CASES = json.loads((Path(__file__).parent / "fixtures" / "sed_cases.json").read_text(encoding="utf-8"))
HOUR = np.arange(61) * 60.0  # an hour in frames of a minute


def table(rows):
    return pd.DataFrame(rows, columns=["clip", "label", "onset", "offset"])


def inputs(case):
    return {
        "scores": {clip: np.array(values) for clip, values in case["scores"].items()},
        "ground_truth": table(case["ground_truth"]),
        "durations": case["durations"],
        "edges": case["edges"],
        "classes": case["classes"],
    }


def hour(columns, rows, classes=("dog",), **settings):
    """Score one clip of an hour: one array of 60 values a class, rows (label, first minute, last minute)."""
    events = table([["x", label, 60.0 * first, 60.0 * last] for label, first, last in rows])
    scores = {"x": np.stack(columns, axis=1)}
    return psds(
        scores=scores, ground_truth=events, durations={"x": 3600.0}, edges=HOUR, classes=classes, **settings
    )


def peaks(heights):
    """Return 60 frame scores, 0 but for some minutes."""
    column = np.zeros(60)
    column[list(heights)] = list(heights.values())
    return column


def random_inputs(seed, *, clips=6, frames=17, classes=3, levels=8):
    rng = np.random.default_rng(seed)
    labels = [f"c{c}" for c in range(classes)]
    rows, scores, durations = [], {}, {}
    for i in range(clips):
        name = f"clip{i}"
        durations[name] = float(rng.uniform(20, 200))
        scores[name] = rng.integers(0, levels, (frames, classes)) / levels
        for label in labels:
            times = np.sort(rng.uniform(0, 15, 2 * int(rng.integers(0, 4))))
            rows += [[name, label, *pair] for pair in times.reshape(-1, 2).tolist()]
    edges = np.linspace(0, 17, frames + 1)
    return {
        "scores": scores,
        "ground_truth": table(rows),
        "durations": durations,
        "edges": edges,
        "classes": labels,
    }


# --- a slow oracle: one threshold at a time, one detection at a time


def literal_runs(values, threshold, edges):
    runs, start = [], None
    for i, value in enumerate([*values, -math.inf]):
        if value >= threshold and start is None:
            start = edges[i]
        elif value < threshold and start is not None:
            runs.append((start, edges[i]))
            start = None
    return runs


def literal_share(one, others):
    return sum(max(0.0, min(one[1], other[1]) - max(one[0], other[0])) for other in others)


def literal_counts(values, threshold, edges, own, others, dtc, gtc, cttc):
    runs = literal_runs(values, threshold, edges)
    relevant = [run for run in runs if literal_share(run, own) >= dtc * (run[1] - run[0]) - 1e-9]
    wrong = [run for run in runs if run not in relevant]
    found = sum(literal_share(event, relevant) >= gtc * (event[1] - event[0]) - 1e-9 for event in own)
    crossing = []
    for events in others:
        hits = [run for run in wrong if cttc and literal_share(run, events) >= cttc * (run[1] - run[0]) - 1e-9]
        crossing.append(len(hits))
    return found, len(wrong), crossing


def literal_psds(data, *, dtc, gtc, cttc=None, alpha_ct=0.0, alpha_st=1.0, max_efpr=100.0):
    """Return PSDS of disjoint events by its definition; every class needs one."""
    truth = data["ground_truth"]
    hours = sum(data["durations"].values()) / 3600
    curves = []
    for c, label in enumerate(data["classes"]):
        rest = [other for other in data["classes"] if other != label]
        points = [(0.0, 0.0)]
        for threshold in sorted({float(v) for values in data["scores"].values() for v in values[:, c]}):
            totals = np.zeros(2 + len(rest))
            for clip, values in data["scores"].items():
                mine = truth[truth["clip"] == clip]
                own, *others = (
                    list(
                        zip(mine["onset"][mine["label"] == one], mine["offset"][mine["label"] == one], strict=True)
                    )
                    for one in [label, *rest]
                )
                found, wrong, crossing = literal_counts(
                    values[:, c], threshold, data["edges"], own, others, dtc, gtc, cttc
                )
                totals += [found, wrong, *crossing]
            lengths = [(truth["offset"] - truth["onset"])[truth["label"] == other].sum() / 3600 for other in rest]
            rate = totals[1] / hours
            if alpha_ct:
                rate += alpha_ct * np.mean([n / length for n, length in zip(totals[2:], lengths, strict=True)])
            points.append((rate, totals[0] / (truth["label"] == label).sum()))
        curves.append(points)
    rates = sorted({rate for points in curves for rate, _ in points if rate <= max_efpr})
    area = 0.0
    for left, right in zip(rates, [*rates[1:], max_efpr], strict=True):
        best = [max(ratio for rate, ratio in points if rate <= left) for points in curves]
        area += max(0.0, np.mean(best) - alpha_st * np.std(best)) * (right - left)
    return area / max_efpr


# --- cases with a known answer


def test_a_perfect_detector_scores_one():
    column = peaks({10: 1, 11: 1, 40: 1})
    result = hour([column], [("dog", 10, 12), ("dog", 40, 41)])
    assert result.value == 1.0
    assert result.per_class == {"dog": 1.0}
    assert (result.n_valid, result.events.scored, result.direction) == (1, 2, "higher")


def test_scores_of_everything_but_the_event_find_nothing():
    assert hour([1 - peaks({10: 1})], [("dog", 10, 11)]).value == 0.0


def test_constant_scores_find_only_what_fills_the_clip():
    constant = np.full(60, 0.3)
    assert hour([constant], [("dog", 0, 30)]).value == 0.0
    assert hour([constant], [("dog", 0, 42)]).value == 1.0  # 0.7 of the hour


@pytest.mark.parametrize("false_alarms", [0, 1, 7, 20])
def test_false_alarms_above_the_event_cost_their_share_of_the_axis(false_alarms):
    column = peaks({1: 0.5} | {10 + 2 * i: 0.9 for i in range(false_alarms)})
    assert hour([column], [("dog", 1, 2)]).value == pytest.approx(1 - false_alarms / 100)
    assert hour([column], [("dog", 1, 2)], max_efpr=20).value == pytest.approx(1 - false_alarms / 20)


def test_the_spread_over_classes_is_taken_off():
    found, missed = peaks({1: 1, 5: 1}), peaks({1: 1})
    rows = [("dog", 1, 2), ("dog", 5, 6), ("cat", 1, 2), ("cat", 5, 6)]
    result = hour([found, missed], rows, ("dog", "cat"))
    assert result.per_class == {"dog": 1.0, "cat": 0.5}
    assert result.value == pytest.approx(0.75 - 0.25)
    assert hour([found, missed], rows, ("dog", "cat"), alpha_st=0).value == pytest.approx(0.75)
    assert hour([found, missed], rows, ("dog", "cat"), alpha_st=10).value == 0.0


def test_the_curve_is_a_staircase_up_to_the_end():
    column = peaks({1: 0.9, 5: 0.8, 20: 0.7})
    result = hour([column], [("dog", 1, 2), ("dog", 20, 21)])
    np.testing.assert_allclose(result.efpr, [0, 1, 100])
    np.testing.assert_allclose(result.etpr, [0.5, 1, 1])
    assert result.value == pytest.approx((0.5 + 99) / 100)


@pytest.mark.parametrize(("false_alarms", "reached"), [(19, 1.0), (20, 1.0), (21, 0.0)])
def test_what_is_found_at_exactly_the_end_of_the_axis_is_on_the_curve(false_alarms, reached):
    """It adds no area, but the curve says what is reached at the limit, as of 100 false positives an hour."""
    column = peaks({1: 0.5} | {10 + 2 * i: 0.9 for i in range(false_alarms)})
    result = hour([column], [("dog", 1, 2)], max_efpr=20)
    assert (result.efpr[0], result.etpr[0]) == (0.0, 0.0)
    assert (result.efpr[-1], result.etpr[-1]) == (20.0, reached)
    hundred = psds(
        scores={"x": np.array([[0.9], [0.5], [0.0]])}, ground_truth=table([["x", "dog", 12.0, 24.0]]),
        durations={"x": 36.0}, edges=[0, 12, 24, 36], classes=["dog"],
    )  # fmt: skip
    assert (hundred.efpr[-1], hundred.value) == (100.0, 0.0)


def test_cross_triggers_count_by_the_time_of_the_other_class():
    columns = [peaks({1: 0.5, 30: 0.9}), peaks({30: 1, 31: 1})]
    rows = [("dog", 1, 2), ("cat", 30, 32)]
    settings = {"cttc_threshold": 0.3, "alpha_ct": 0.5, "alpha_st": 0}
    result = hour(columns, rows, ("dog", "cat"), **settings)
    assert result.per_class["dog"] == pytest.approx(1 - (1 + 0.5 * 60 / 2) / 100)  # 1 trigger in 2 minutes of cat
    assert result.per_class["cat"] == 1.0
    assert hour(columns[:1], rows[:1], **settings).value == pytest.approx(0.99)  # no other class to trigger


@pytest.mark.parametrize(("first", "value"), [(0.3, 1.0), (0.3000001, 1.0), (0.300001, 0.0)])
def test_criteria_are_met_to_the_microsecond(first, value):
    truth = table([["x", "dog", first, 1.0]])
    scores = {"x": np.full((10, 1), 0.5)}
    edges = np.arange(11) * 0.1  # 0.30000000000000004: not exact
    result = psds(scores=scores, ground_truth=truth, durations={"x": 1.0}, edges=edges, classes=["dog"])
    assert result.value == value


# --- what real annotations hold


def test_a_class_without_events_is_left_out_and_counted():
    column, noise = peaks({1: 0.9, 5: 0.95}), np.linspace(1, 0, 60) ** 2 % 0.1
    alone = hour([column], [("dog", 1, 2)])
    result = hour([column, noise], [("dog", 1, 2)], ("dog", "ghost"))
    assert result.value == alone.value == pytest.approx(0.99)
    assert math.isnan(result.per_class["ghost"])
    assert result.n_valid == 1
    crossing = {"cttc_threshold": 0.3, "alpha_ct": 1.0}
    rows, classes = [("dog", 1, 2), ("cat", 5, 6)], ("dog", "cat", "ghost")
    expected = hour([column, column], rows, classes[:2], **crossing).value
    assert hour([column, column, noise], rows, classes, **crossing).value == expected


def test_no_event_at_all_is_undefined():
    result = hour([peaks({1: 1})], [])
    assert math.isnan(result.value)
    assert math.isnan(result.per_class["dog"])
    assert (result.n_valid, len(result.efpr), len(result.etpr)) == (0, 0, 0)


def test_clips_without_events_still_cost_false_alarms_and_lend_their_time():
    frames = np.array([[0.5], [0.0]])
    truth = table([["x", "dog", 0.0, 10.0], ["y", "", math.nan, math.nan]])  # y: a row without times
    common = {"edges": [0, 10, 20], "classes": ["dog"], "ground_truth": truth}
    seconds = {"x": 100.0, "y": 1700.0}
    quiet = psds(scores={"x": frames, "y": 0 * frames}, durations=seconds, **common)
    loud = psds(scores={"x": frames, "y": 2 * frames}, durations=seconds, **common)
    assert quiet.value == 1.0
    assert loud.value == pytest.approx(1 - 2 / 100)  # one in half an hour


def test_zero_length_events_are_not_scored():
    column = peaks({1: 1})
    result = hour([column], [("dog", 1, 2), ("dog", 30, 30), ("dog", 1, 1)])
    assert result.value == hour([column], [("dog", 1, 2)]).value == 1.0
    assert (result.events.zero_length, result.events.scored, result.events.merged) == (2, 1, 0)
    assert math.isnan(hour([column], [("dog", 30, 30)]).value)


def test_events_that_touch_or_overlap_are_one():
    column = np.arange(60) / 60
    whole = hour([column], [("dog", 10, 20), ("dog", 40, 60)])
    parts = hour([column], [("dog", 50, 60), ("dog", 10, 20), ("dog", 11, 12), ("dog", 40, 50), ("dog", 15, 20)])
    assert parts.value == whole.value
    assert (parts.events.scored, parts.events.merged) == (2, 3)


def test_a_class_of_another_clip_is_not_joined():
    one = random_inputs(0)
    rows = [[clip, label, 0.0, 10.0] for clip in one["scores"] for label in one["classes"]]
    result = psds(**one | {"ground_truth": table(rows)})
    assert (result.events.scored, result.events.merged) == (18, 0)


def test_ends_up_to_50_ms_past_the_clip_are_clipped():
    def score(end, onset=8.0):
        truth = table([["x", "dog", 0.0, 1.0], ["x", "dog", onset, end]])
        frames = np.array([[0.9], [0.0], [0.0], [0.0], [0.9]])
        return psds(
            scores={"x": frames},
            ground_truth=truth,
            durations={"x": 10.0},
            edges=[0, 1, 2, 5, 8, 10],
            classes=["dog"],
        )

    assert score(10.05).value == score(10.0).value == 1.0
    assert (score(10.05).events.clipped, score(10.0).events.clipped) == (1, 0)
    past = score(10.05, onset=10.02).events
    assert (past.scored, past.zero_length) == (1, 1)
    with pytest.raises(EventsError, match=r"ends at 10\.06 s, but the clip ends at 10 s.*seconds"):
        score(10.06)


# --- what may not change the score


@pytest.mark.parametrize("seed", range(4))
def test_a_rising_function_of_the_scores_changes_nothing(seed):
    data = random_inputs(seed)
    expected = psds(**data, max_efpr=3000)
    assert 0 < expected.value < 1
    for function in (np.exp, lambda x: x**3 - 7, lambda x: 1e-6 * x, lambda x: x.astype(np.float32)):
        other = psds(**data | {"scores": {k: function(v) for k, v in data["scores"].items()}}, max_efpr=3000)
        assert other.value == expected.value
        assert other.per_class == expected.per_class


def test_each_class_may_have_its_own_scale():
    data = random_inputs(1)
    scaled = {k: v * [1, 1e3, 1e-3] + [0, 5, -2] for k, v in data["scores"].items()}
    assert psds(**data | {"scores": scaled}, max_efpr=3000).value == psds(**data, max_efpr=3000).value


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_clips_rows_and_classes_is_irrelevant(seed):
    data = random_inputs(seed)
    turned = {
        "scores": {k: v[:, ::-1] for k, v in reversed(data["scores"].items())},
        "ground_truth": data["ground_truth"][::-1],
        "durations": dict(reversed(data["durations"].items())),
        "edges": dict.fromkeys(data["scores"], data["edges"]),
        "classes": data["classes"][::-1],
    }
    assert psds(**turned, max_efpr=3000).value == pytest.approx(psds(**data, max_efpr=3000).value, rel=1e-12)


def test_finer_frames_of_the_same_scores_change_nothing():
    data = random_inputs(2)
    finer = {k: np.repeat(v, 3, axis=0) for k, v in data["scores"].items()}
    edges = np.linspace(0, 17, 17 * 3 + 1)
    assert psds(**data | {"scores": finer, "edges": edges}).value == pytest.approx(psds(**data).value)


def test_the_callers_data_are_untouched():
    data = random_inputs(3)
    scores = {k: v.copy() for k, v in data["scores"].items()}
    truth = data["ground_truth"].copy()
    for values in data["scores"].values():
        values.flags.writeable = False
    psds(**data)
    pd.testing.assert_frame_equal(data["ground_truth"], truth)
    assert all((data["scores"][k] == scores[k]).all() for k in scores)


# --- against others


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "settings",
    [
        {"dtc": 0.7, "gtc": 0.7},
        {"dtc": 0.1, "gtc": 0.1, "cttc": 0.3, "alpha_ct": 0.5},
        {"dtc": 0.5, "gtc": 0.2, "alpha_st": 0.0, "max_efpr": 1500.0},
        {"dtc": 0.3, "gtc": 0.4, "cttc": 0.2, "alpha_ct": 2.0, "alpha_st": 0.4, "max_efpr": 3000.0},
    ],
)
def test_psds_vs_literal(seed, settings):
    data = random_inputs(seed, clips=4, levels=(2, 5, 200)[seed % 3], frames=(9, 17)[seed % 2])
    names = {"dtc": "dtc_threshold", "gtc": "gtc_threshold", "cttc": "cttc_threshold"}
    ours = psds(**data, **{names.get(name, name): value for name, value in settings.items()})
    assert ours.value == pytest.approx(literal_psds(data, **settings), abs=1e-12)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_psds_vs_sed_scores_eval(case):
    for reference in case["psds"]:
        ours = psds(**inputs(case), **reference["settings"])
        assert ours.value == pytest.approx(reference["value"], abs=1e-12)
        assert ours.per_class == pytest.approx(reference["per_class"], abs=1e-12)
        assert ours.n_valid == len(case["classes"])


def test_the_reference_cases_are_not_all_trivial():
    values = [reference["value"] for case in CASES for reference in case["psds"]]
    assert sum(0 < value < 1 for value in values) >= 20


# --- refusals


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scores": {}}, MapsError, "0 clips"),
        ({"scores": {"x": np.zeros((1, 60))}}, MapsError, r"\(1, 60\).*transposed"),
        ({"scores": {"x": np.zeros((0, 1))}}, MapsError, r"\(0, 1\)"),
        ({"scores": {"x": np.zeros(60)}}, MapsError, r"\(60,\)"),
        ({"scores": {"x": [["loud"]] * 60}}, MapsError, "not an array of numbers"),
        ({"scores": {"x": np.full((60, 1), np.nan)}}, MapsError, "60 values that are not finite.*padding"),
        ({"edges": HOUR[:-1]}, MapsError, r"\(60,\); 60 frames need \(61,\).*centres"),
        ({"edges": HOUR[::-1]}, MapsError, "ascend"),
        ({"edges": HOUR - 1}, MapsError, "ascending and non-negative"),
        ({"edges": np.full(61, np.inf)}, MapsError, "finite"),
        ({"edges": "edges"}, MapsError, "not an array of numbers"),
        ({"edges": {"y": HOUR}}, MapsError, "no edges"),
        ({"durations": {}}, EventsError, r"without a duration: 1 \['x'\]"),
        ({"durations": {"x": 3600.0, "x.wav": 3.0}}, EventsError, r"without scores: 1 \['x\.wav'\].*extension"),
        ({"durations": {"x": 0.0}}, EventsError, "is 0; .*above 0"),
        ({"durations": {"x": math.nan}}, EventsError, "is nan"),
        ({"durations": {"x": "long"}}, EventsError, "must be a number"),
        ({"classes": []}, EventsError, "one or more"),
        ({"classes": "d"}, EventsError, "For a single class"),
        ({"classes": ["dog", "dog"]}, EventsError, "unique strings"),
        ({"classes": ["cat"]}, EventsError, r"not among the classes \['cat'\]: \['dog'\]"),
        ({"ground_truth": table([["z", "dog", 1, 2]])}, EventsError, r"1 clips without scores: \['z'\]"),
        ({"ground_truth": table([["x", "dog", 2, 1]])}, EventsError, "swapped"),
        ({"ground_truth": pd.DataFrame({"clip": ["x"]})}, EventsError, "missing"),
        ({"ground_truth": table([["x", "dog", 1, 5000]])}, EventsError, "ends at 5000 s"),
        ({"dtc_threshold": 70}, EventsError, "dtc_threshold is 70.*at most 1.*percentage"),
        ({"dtc_threshold": 0}, EventsError, "above 0"),
        ({"gtc_threshold": 1.01}, EventsError, "gtc_threshold is 1.01"),
        ({"gtc_threshold": True}, EventsError, "a number"),
        ({"cttc_threshold": 0.3}, EventsError, "cttc_threshold is 0.3 and alpha_ct is 0;"),
        ({"alpha_ct": 0.3}, EventsError, "cttc_threshold is None and alpha_ct is 0.3"),
        ({"cttc_threshold": 3, "alpha_ct": 0.3}, EventsError, "cttc_threshold is 3"),
        ({"alpha_ct": -1}, EventsError, "alpha_ct is -1"),
        ({"alpha_st": math.nan}, EventsError, "alpha_st is nan"),
        ({"max_efpr": 0}, EventsError, "max_efpr is 0"),
        ({"max_efpr": math.inf}, EventsError, "max_efpr is inf"),
    ],
)
def test_what_cannot_be_scored_is_refused(change, error, message):
    valid = {
        "scores": {"x": peaks({1: 1})[:, None]},
        "ground_truth": table([["x", "dog", 60, 120]]),
        "durations": {"x": 3600.0},
        "edges": HOUR,
        "classes": ["dog"],
    }
    assert psds(**valid).value == 1.0
    with pytest.raises(error, match=message):
        psds(**valid | change)
