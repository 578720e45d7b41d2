"""Metrics against slow twins, textbook values and figures that others published."""

import math
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vwsdlib.analysis import metrics
from vwsdlib.analysis.audit import audit
from vwsdlib.analysis.reading import read_submission
from vwsdlib.analysis.scoring import (
    against_baseline,
    compare,
    mean_over_sets,
    ranking,
    score_line,
    write_scores,
)
from vwsdlib.data.items import Item, read_items
from vwsdlib.errors import VwsdError


def slow_rank(scores, gold):
    if scores[gold] == -math.inf:  # its picture is missing: last, whatever else is missing
        return len(scores)
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return order.index(gold) + 1


@pytest.mark.parametrize("seed", range(5))
def test_ranks_against_a_slow_twin_with_ties_and_missing(seed):
    rng = random.Random(seed)
    scores = [[rng.choice([-math.inf, 0.1, 0.2, 0.3]) for _ in range(10)] for _ in range(200)]
    gold = [rng.randrange(10) for _ in range(200)]
    assert metrics.gold_ranks(scores, gold).tolist() == [
        slow_rank(s, g) for s, g in zip(scores, gold)
    ]


def test_ties_go_to_the_earlier_candidate():
    assert metrics.gold_ranks([[1.0, 1.0, 0.0]] * 2, [0, 1]).tolist() == [1, 2]


@given(
    st.lists(
        st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 0.25]), min_size=4, max_size=4),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 3),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_tie_range_holds_what_any_rule_for_ties_can_give(rows, gold):
    """The twin breaks every tie by hand: once against the gold, once for it; a gold without a score
    is never first.
    """
    low = sum(
        row[gold] > -math.inf and all(s < row[gold] for i, s in enumerate(row) if i != gold)
        for row in rows
    )
    high = sum(row[gold] > -math.inf and all(s <= row[gold] for s in row) for row in rows)
    assert metrics.tie_range(rows, [gold] * len(rows)) == (low, high)
    assert low <= metrics.hits(metrics.gold_ranks(rows, [gold] * len(rows))) <= high


def test_a_missing_gold_is_last_and_infinite_scores_are_refused():
    missing = -math.inf
    assert metrics.gold_ranks(
        [[missing] * 3, [missing, 0.0, missing], [missing, 1.0, 0.0]], [0, 0, 0]
    ).tolist() == [3, 3, 3]
    with pytest.raises(ValueError, match="infinite at row 1"):
        metrics.gold_ranks([[0.0, 1.0], [0.0, math.inf]], [0, 0])


def test_margins_of_ties_and_missing_pictures():
    assert metrics.margins(
        [[1.0, 1.0, 0.0], [-math.inf] * 3, [2.0, 0.5, -math.inf], [1.0, -math.inf, -math.inf]]
    ).tolist() == [0, 0, 1.5, math.inf]


def test_nan_is_refused():
    with pytest.raises(ValueError, match="row 1"):
        metrics.gold_ranks([[0.0, 1.0], [math.nan, 1.0]], [0, 0])


def test_mrr():
    assert metrics.mrr(np.array([1, 2, 4])) == pytest.approx(100 * (1 + 0.5 + 0.25) / 3)


@pytest.mark.parametrize(
    "k, n, low, high",
    [
        (270, 463, 53.77, 62.72),
        (293, 463, 58.80, 67.55),
        (55, 305, 14.12, 22.74),
        (19, 200, 6.17, 14.36),
        (0, 10, 0, 27.75),
    ],
)
def test_wilson(k, n, low, high):
    assert metrics.wilson(k, n) == pytest.approx((low, high), abs=0.005)


def test_mcnemar_against_a_slow_twin_and_by_hand():
    a, b = [True] * 10 + [False] * 5, [True] * 7 + [False] * 3 + [True] + [False] * 4
    only_a, only_b, p = metrics.mcnemar(a, b)
    assert (only_a, only_b) == (3, 1) and p == pytest.approx(2 * (1 + 4) / 16)
    assert metrics.mcnemar([True, False], [True, False]) == (0, 0, 1.0)
    assert metrics.mcnemar([True] * 2000, [False] * 2000)[2] == pytest.approx(0, abs=1e-300)


def exact_sign_test(a, b):
    """Twin: the whole sum in integers."""
    term = tail = 1
    for i in range(1, min(a, b) + 1):
        term = term * (a + b - i + 1) // i
        tail += term
    return min(1.0, 2 * tail / 2 ** (a + b)) if a + b else 1.0


def test_sign_test_is_the_integers_to_the_last_bit():
    for n in [*range(130), 463, 1100, 1101, 5000]:
        for low in {0, n // 10, n // 3, max(0, n // 2 - 30), max(0, n // 2 - 1), n // 2}:
            assert (
                metrics.sign_test(low, n - low)
                == metrics.sign_test(n - low, low)
                == exact_sign_test(low, n - low)
            ), (n, low)
    assert metrics.sign_test(9900, 10100) == exact_sign_test(9900, 10100)


def test_sign_test_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for n in (10, 463, 5000, 100_000):
        for low in {0, n // 3, n // 2 - 3 * int(n**0.5), n // 2 - int(n**0.5), n // 2} - {-4}:
            if low >= 0:
                assert metrics.sign_test(low, n - low) == pytest.approx(
                    stats.binomtest(low, n).pvalue, rel=1e-11, abs=1e-300
                )


def test_fisher_test_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for n, other_n in ((1, 1), (17, 234), (40, 40), (463, 200), (1, 300)):
        for k in {0, n // 3, n}:
            for other_k in {0, other_n // 2, other_n}:
                table = [[k, n - k], [other_k, other_n - other_k]]
                p = metrics.fisher_test(k, n, other_k, other_n)
                assert p == pytest.approx(stats.fisher_exact(table)[1], rel=1e-9), table
    assert metrics.fisher_test(3, 4, 1, 4) == 34 / 70  # the lady who tastes tea


def test_mcnemar_of_a_hundred_thousand_differing_items_takes_less_than_a_second():
    started = time.perf_counter()
    only_a, only_b, p = metrics.mcnemar(
        [True] * 49_700 + [False] * 50_300, [False] * 49_700 + [True] * 50_300
    )
    assert (
        (only_a, only_b) == (49_700, 50_300)
        and 0.05 < p < 0.06
        and time.perf_counter() - started < 1
    )
    assert metrics.sign_test(0, 1_000_000) == 0.0 and metrics.sign_test(1, 300) > 0


@given(st.lists(st.floats(0, 1), max_size=8))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_holm_against_a_slow_twin(p):
    """The twin rejects step by step at a level and looks for the lowest level at which each
    hypothesis falls.
    """
    ordered = sorted(p)
    expected = []
    for value in p:
        steps = [min(1.0, (len(p) - j) * ordered[j]) for j in range(ordered.index(value) + 1)]
        expected.append(max(steps))
    assert metrics.holm(p) == expected and all(
        own <= adjusted <= 1 for own, adjusted in zip(p, metrics.holm(p))
    )


def test_holm_by_hand():
    assert (
        metrics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
        and metrics.holm([0.04]) == [0.04]
        and metrics.holm([]) == []
    )


def test_mcnemar_is_symmetrical():
    rng = np.random.default_rng(0)
    a, b = rng.random(50) < 0.6, rng.random(50) < 0.4
    assert metrics.mcnemar(a, b)[2] == metrics.mcnemar(b, a)[2] < 1


@pytest.mark.parametrize("n", [1, 2, 10, 463])
def test_paired_interval_holds_the_difference_and_turns_with_the_sides(n):
    for only_a, only_b in {
        (a, b) for a in range(0, n + 1, max(1, n // 7)) for b in range(0, n + 1 - a, max(1, n // 7))
    }:
        low, high = metrics.paired_interval(only_a, only_b, n)
        assert -100 <= low < high <= 100 and low <= 100 * (only_b - only_a) / n <= high
        assert metrics.paired_interval(only_b, only_a, n) == pytest.approx((-high, -low))


def test_paired_interval_by_hand_and_narrower_with_n():
    half = (
        1.96 * math.sqrt((6 + 11 - 25 / 102) / 102) / math.sqrt(102)
    )  # (b - a)^2 in proportions is 25 / 102^2
    assert metrics.paired_interval(5, 10, 100) == pytest.approx(
        (100 * (5 / 102 - half), 100 * (5 / 102 + half)), abs=1e-3
    )
    widths = [
        high - low
        for low, high in (metrics.paired_interval(5 * k, 10 * k, 100 * k) for k in (1, 4, 16, 64))
    ]
    assert widths == sorted(widths, reverse=True) and widths[2] / widths[3] == pytest.approx(
        2, rel=0.02
    )
    few, many = (
        np.diff(metrics.paired_interval(k, k, 100))[0] for k in (2, 20)
    )  # what agrees says nothing of the difference
    assert few < 0.5 * many


@pytest.mark.parametrize(
    "a, b, n", [(0.10, 0.15, 100), (0.2, 0.2, 60), (0.02, 0.05, 463), (0.3, 0.05, 40)]
)
def test_paired_interval_covers_95_percent(a, b, n):
    draws = np.random.default_rng(0).multinomial(n, [a, b, 1 - a - b], 4000)
    covered = np.mean(
        [
            low <= 100 * (b - a) <= high
            for low, high in (metrics.paired_interval(x, y, n) for x, y, _ in draws)
        ]
    )
    assert 0.935 < covered < 0.975
    apart = np.mean(
        [low <= 0 <= high for low, high in (metrics.paired_interval(x, y, n) for x, y, _ in draws)]
    )
    assert apart < covered or a == b  # the twin: another truth is covered less


def test_the_papers_gain_needs_few_items_on_which_the_systems_differ():
    def p(differing):
        right = np.arange(differing) < (differing + 23) // 2  # 23 items net
        return metrics.mcnemar(~right, right)[2]

    assert p(125) < 0.05 <= p(127)


def test_bootstrap_agrees_with_resampling_items():
    ranks = np.array([1] * 60 + [2] * 25 + [5] * 15)
    draws = np.random.default_rng(1).choice(1 / ranks, (4000, 100)).mean(1) * 100
    assert metrics.bootstrap_mrr(ranks) == pytest.approx(
        tuple(np.percentile(draws, [2.5, 97.5])), abs=0.6
    )
    assert metrics.bootstrap_mrr(ranks) == metrics.bootstrap_mrr(ranks)


def test_chance_interval_covers_95_percent():
    low, high = metrics.chance_interval(200)
    draws = np.random.default_rng(0).binomial(200, 0.1, 20000) / 2
    assert 0.94 < ((draws >= low) & (draws <= high)).mean() < 0.98 and (low, high) == (6.0, 14.5)


def items(golds, candidates=None):
    names = candidates or [[f"i{j}" for j in range(10)]] * len(golds)
    return [
        Item(f"x.{n}", "en", f"t{n}", f"t{n} p", tuple(c), g)
        for n, (g, c) in enumerate(zip(golds, names))
    ]


def test_audit_on_a_set_whose_answer_is_known():
    shared = [f"s{j}" for j in range(9)]
    found = audit(items(["a", "b"], [["a", *shared], [*shared, "b"]]))
    assert (
        found["rarest"] == 100
        and found["most_frequent"] == 0
        and found["position_counts"] == [1] + [0] * 8 + [1]
    )
    assert found["gold_as_distractor"] == 0 and found["chance"] == 10
    tied = audit(items(["i3", "i4"]))
    assert tied["rarest"] == pytest.approx(10) and tied["gold_as_distractor"] == 2


def paths(shared, language, name):
    test, version = shared / "vwsd" / "test", "" if language == "fa" else ".v1.1"
    return (
        test / f"{language}.test.data{version}.txt",
        test / f"{language}.test.gold{version}.txt",
        shared / "vwsd" / "scores" / f"{language}.{name}.tsv",
    )


PUBLISHED = [
    ("en", "clip_vitb32.context", 267, 463, 57.667, 72.575),
    ("it", "clip_vitb32_multilingual.context", 69, 305, 22.623, 42.6063),
    ("fa", "clip_vitb32_multilingual.context", 57, 200, 28.5, 46.6974),
]


@pytest.mark.parametrize(
    "language, name, k, n, hit1, mrr", PUBLISHED, ids=[p[0] for p in PUBLISHED]
)
def test_published_scores_give_published_figures(shared, language, name, k, n, hit1, mrr):
    data, gold, scores = paths(shared, language, name)
    found = compare([("x", read_submission(scores, its := read_items(data, gold)))], its)[
        "systems"
    ][0]
    assert (found["k"], found["n"]) == (k, n)
    assert found["hit1"] == pytest.approx(hit1, abs=5e-4) and found["mrr"] == pytest.approx(
        mrr, abs=1e-3 if language == "en" else 5e-5
    )


def test_ties_to_the_later_candidate_would_miss_the_published_farsi_mrr(shared):
    data, gold, scores = paths(shared, "fa", "clip_vitb32_multilingual.context")
    its = read_items(data, gold)
    backwards = metrics.gold_ranks(
        read_submission(scores, its)[:, ::-1], [9 - i.gold_index for i in its]
    )
    assert metrics.mrr(backwards) != pytest.approx(46.6974, abs=5e-5)


AUDITS = [("en", 13.01, 4.49), ("it", 12.63, 3.14), ("fa", 10.61, 5.98)]


@pytest.mark.parametrize("language, rarest, most_frequent", AUDITS)
def test_audit_of_the_official_test_files(shared, language, rarest, most_frequent):
    found = audit(read_items(*paths(shared, language, "")[:2]))
    assert (
        round(found["rarest"], 2) == rarest
        and round(found["most_frequent"], 2) == most_frequent
        and found["gold_as_distractor"] == 0
    )


def test_audit_of_the_official_train_file(shared):
    folder = shared / "vwsd" / "train"
    assert (
        round(
            audit(read_items(folder / "train.data.v1.txt", folder / "train.gold.v1.txt"))["rarest"],
            2,
        )
        == 68.28
    )


def test_submission_format_and_score_table_agree(official, tmp_path):
    its = read_items(*official[:2])
    scores = np.random.default_rng(0).random((6, 10))
    write_scores(tmp_path / "s.tsv", its, scores)
    order = np.argsort(-scores, axis=1)
    (tmp_path / "s.txt").write_text(
        "".join("\t".join(i.candidates[c] for c in row) + "\r\n" for i, row in zip(its, order))
    )
    assert np.array_equal(read_submission(tmp_path / "s.tsv", its), scores)
    table, ranking = (
        compare([("x", read_submission(tmp_path / f, its))], its)["systems"][0]
        for f in ("s.tsv", "s.txt")
    )
    assert table == ranking


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.replace("image.", "picture."), "not a ranking"),
        (lambda t: "\n".join(t.split("\n")[1:]), "5 predictions for 6 items"),
        (lambda t: "", "empty"),
    ],
)
def test_bad_submissions_are_refused(official, tmp_path, change, words):
    its = read_items(*official[:2])
    (tmp_path / "s.txt").write_text(change("".join("\t".join(i.candidates) + "\n" for i in its)))
    with pytest.raises(VwsdError, match=words):
        read_submission(tmp_path / "s.txt", its)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.replace("word3 thing", "word9 thing"), "s.tsv:5"),
        (lambda t: t.replace("0.5\t", "nan\t", 1), "not a number"),
        (lambda t: t.replace("0.5\t", "half\t", 1), "could not convert"),
        (lambda t: t.replace("score_7", "points"), "score_7 is missing"),
        (lambda t: t.replace("\t0.5\n", "\n", 1), "13 fields"),
    ],
)
def test_bad_score_tables_are_refused_with_their_line(official, tmp_path, change, words):
    its = read_items(*official[:2])
    write_scores(tmp_path / "s.tsv", its, np.full((6, 10), 0.5))
    (tmp_path / "s.tsv").write_text(change((tmp_path / "s.tsv").read_text()))
    with pytest.raises(VwsdError, match=words):
        read_submission(tmp_path / "s.tsv", its)


def test_wilson_holds_its_own_value_at_both_ends():
    """Without care the last bits put 0/n below its own lower bound, and figures refuse a negative
    arm.
    """
    for n in range(1, 600):
        for k in (0, 1, n - 1, n):
            low, high = metrics.wilson(k, n)
            assert (
                0 <= low <= 100 * k / n + 1e-12
                and 100 * k / n - 1e-12 <= high <= 100
                and (k or low == 0)
                and (k < n or high == 100)
            )


def test_no_item_is_a_clear_error_and_no_number_has_no_place():
    for work in (
        lambda: score_line("x", [], np.zeros((0, 10))),
        lambda: compare([("x", np.zeros((0, 10)))], []),
        lambda: audit([]),
    ):
        with pytest.raises(VwsdError, match="no items to"):
            work()
    with pytest.raises(ValueError, match="not a number"):
        ranking(["a", "b"], [0.0, math.nan])
    assert ranking(["a", "b", "c"], [-math.inf, 0.0, -math.inf]) == ["b", "a", "c"]


def test_against_a_baseline_by_hand():
    its = items(["i0"] * 8)

    def right(*which):
        return np.array([[1.0 if i in which else 0.0] + [0.5] * 9 for i in range(8)])

    found = against_baseline(
        ("base", right(0, 1, 2)),
        [("more", right(0, 1, 3, 4, 5, 6, 7)), ("same", right(0, 1, 2))],
        its,
    )
    assert [f["file"] for f in found] == ["more", "same"] and [f["difference"] for f in found] == [
        50.0,
        0.0,
    ]
    assert (found[0]["only_baseline"], found[0]["only_system"]) == (1, 5) and found[0][
        "p"
    ] == metrics.sign_test(1, 5)
    assert (found[0]["ci_low"], found[0]["ci_high"]) == metrics.paired_interval(1, 5, 8)
    assert (
        [f["p_holm"] for f in found]
        == metrics.holm([f["p"] for f in found])
        == pytest.approx([2 * found[0]["p"], 1.0])
    )


def test_the_mean_over_sets_is_unweighted():
    lines = [
        {"file": "a", "n": 1, "hit1": 100.0, "mrr": 100.0},
        {"file": "b", "n": 1, "hit1": 0.0, "mrr": 20.0},
        {"file": "a", "n": 99, "hit1": 0.0, "mrr": 10.0},
    ]
    assert mean_over_sets(lines) == [
        {"file": "a", "sets": 2, "hit1": 50.0, "mrr": 55.0},
        {"file": "b", "sets": 1, "hit1": 0.0, "mrr": 20.0},
    ]


def test_ties_are_counted_beside_k():
    line = score_line(
        "x",
        items(["i0", "i1", "i2"]),
        np.array([[1.0, 1.0] + [0.0] * 8, [1.0, 1.0] + [0.0] * 8, [0.0] * 2 + [1.0] + [0.0] * 7]),
    )
    assert (line["k"], line["ties"], line["k_low"], line["k_high"]) == (2, 2, 1, 3)
