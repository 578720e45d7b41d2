"""Metrics against slow twins, textbook values and figures that others published."""

import math
import random

import numpy as np
import pytest

from vwsdlib.analysis import metrics
from vwsdlib.analysis.audit import audit
from vwsdlib.analysis.scoring import compare, read_predictions, write_scores
from vwsdlib.data.items import Item, read_items
from vwsdlib.errors import VwsdError


def slow_rank(scores, gold):
    if scores[gold] == -math.inf:      # its picture is missing: last, whatever else is missing
        return len(scores)
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return order.index(gold) + 1


@pytest.mark.parametrize("seed", range(5))
def test_ranks_against_a_slow_twin_with_ties_and_missing(seed):
    rng = random.Random(seed)
    scores = [[rng.choice([-math.inf, 0.1, 0.2, 0.3]) for _ in range(10)] for _ in range(200)]
    gold = [rng.randrange(10) for _ in range(200)]
    assert metrics.gold_ranks(scores, gold).tolist() == [slow_rank(s, g) for s, g in zip(scores, gold)]


def test_ties_go_to_the_earlier_candidate():
    assert metrics.gold_ranks([[1.0, 1.0, 0.0]] * 2, [0, 1]).tolist() == [1, 2]


def test_nan_is_refused():
    with pytest.raises(ValueError, match="row 1"):
        metrics.gold_ranks([[0.0, 1.0], [math.nan, 1.0]], [0, 0])


def test_mrr_and_chance():
    assert metrics.mrr(np.array([1, 2, 4])) == pytest.approx(100 * (1 + 0.5 + 0.25) / 3)
    assert metrics.chance_mrr() == pytest.approx(29.2897, abs=1e-4)


@pytest.mark.parametrize("k, n, low, high", [(270, 463, 53.77, 62.72), (293, 463, 58.80, 67.55), (55, 305, 14.12, 22.74), (19, 200, 6.17, 14.36), (0, 10, 0, 27.75)])
def test_wilson(k, n, low, high):
    assert metrics.wilson(k, n) == pytest.approx((low, high), abs=0.005)


def test_mcnemar_against_a_slow_twin_and_by_hand():
    a, b = [True] * 10 + [False] * 5, [True] * 7 + [False] * 3 + [True] + [False] * 4
    only_a, only_b, p = metrics.mcnemar(a, b)
    assert (only_a, only_b) == (3, 1) and p == pytest.approx(2 * (1 + 4) / 16)
    assert metrics.mcnemar([True, False], [True, False]) == (0, 0, 1.0)
    assert metrics.mcnemar([True] * 2000, [False] * 2000)[2] == pytest.approx(0, abs=1e-300)


def test_mcnemar_is_symmetrical():
    rng = np.random.default_rng(0)
    a, b = rng.random(50) < 0.6, rng.random(50) < 0.4
    assert metrics.mcnemar(a, b)[2] == metrics.mcnemar(b, a)[2] < 1


@pytest.mark.parametrize("n", [1, 2, 10, 463])
def test_paired_interval_holds_the_difference_and_turns_with_the_sides(n):
    for only_a, only_b in {(a, b) for a in range(0, n + 1, max(1, n // 7)) for b in range(0, n + 1 - a, max(1, n // 7))}:
        low, high = metrics.paired_interval(only_a, only_b, n)
        assert -100 <= low < high <= 100 and low <= 100 * (only_b - only_a) / n <= high
        assert metrics.paired_interval(only_b, only_a, n) == pytest.approx((-high, -low))


def test_paired_interval_by_hand_and_narrower_with_n():
    half = 1.96 * math.sqrt((6 + 11 - 25 / 102) / 102) / math.sqrt(102)                # (b - a)^2 in proportions is 25 / 102^2
    assert metrics.paired_interval(5, 10, 100) == pytest.approx((100 * (5 / 102 - half), 100 * (5 / 102 + half)), abs=1e-3)
    widths = [high - low for low, high in (metrics.paired_interval(5 * k, 10 * k, 100 * k) for k in (1, 4, 16, 64))]
    assert widths == sorted(widths, reverse=True) and widths[2] / widths[3] == pytest.approx(2, rel=0.02)
    few, many = (np.diff(metrics.paired_interval(k, k, 100))[0] for k in (2, 20))      # what agrees says nothing of the difference
    assert few < 0.5 * many


@pytest.mark.parametrize("a, b, n", [(0.10, 0.15, 100), (0.2, 0.2, 60), (0.02, 0.05, 463), (0.3, 0.05, 40)])
def test_paired_interval_covers_95_percent(a, b, n):
    draws = np.random.default_rng(0).multinomial(n, [a, b, 1 - a - b], 4000)
    covered = np.mean([low <= 100 * (b - a) <= high for low, high in (metrics.paired_interval(x, y, n) for x, y, _ in draws)])
    assert 0.935 < covered < 0.975
    apart = np.mean([low <= 0 <= high for low, high in (metrics.paired_interval(x, y, n) for x, y, _ in draws)])
    assert apart < covered or a == b                                                  # the twin: another truth is covered less


def test_the_papers_gain_needs_few_items_on_which_the_systems_differ():
    def p(differing):
        right = np.arange(differing) < (differing + 23) // 2                           # 23 items net
        return metrics.mcnemar(~right, right)[2]

    assert p(125) < 0.05 <= p(127)


def test_bootstrap_agrees_with_resampling_items():
    ranks = np.array([1] * 60 + [2] * 25 + [5] * 15)
    draws = np.random.default_rng(1).choice(1 / ranks, (4000, 100)).mean(1) * 100
    assert metrics.bootstrap_mrr(ranks) == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=0.6)
    assert metrics.bootstrap_mrr(ranks) == metrics.bootstrap_mrr(ranks)


def test_chance_interval_covers_95_percent():
    low, high = metrics.chance_interval(200)
    draws = np.random.default_rng(0).binomial(200, 0.1, 20000) / 2
    assert 0.94 < ((draws >= low) & (draws <= high)).mean() < 0.98 and (low, high) == (6.0, 14.5)


def items(golds, candidates=None):
    names = candidates or [[f"i{j}" for j in range(10)]] * len(golds)
    return [Item(f"x.{n}", "en", f"t{n}", f"t{n} p", tuple(c), g) for n, (g, c) in enumerate(zip(golds, names))]


def test_audit_on_a_set_whose_answer_is_known():
    shared = [f"s{j}" for j in range(9)]
    found = audit(items(["a", "b"], [["a", *shared], [*shared, "b"]]))
    assert found["rarest"] == 100 and found["most_frequent"] == 0 and found["position_counts"] == [1] + [0] * 8 + [1]
    assert found["gold_as_distractor"] == 0 and found["chance"] == 10
    tied = audit(items(["i3", "i4"]))
    assert tied["rarest"] == pytest.approx(10) and tied["gold_as_distractor"] == 2


def paths(shared, language, name):
    test, version = shared / "vwsd" / "test", "" if language == "fa" else ".v1.1"
    return test / f"{language}.test.data{version}.txt", test / f"{language}.test.gold{version}.txt", shared / "vwsd" / "scores" / f"{language}.{name}.tsv"


PUBLISHED = [("en", "clip_vitb32.context", 267, 463, 57.667, 72.575), ("it", "clip_vitb32_multilingual.context", 69, 305, 22.623, 42.6063),
             ("fa", "clip_vitb32_multilingual.context", 57, 200, 28.5, 46.6974)]


@pytest.mark.parametrize("language, name, k, n, hit1, mrr", PUBLISHED, ids=[p[0] for p in PUBLISHED])
def test_published_scores_give_published_figures(shared, language, name, k, n, hit1, mrr):
    data, gold, scores = paths(shared, language, name)
    found = compare([("x", read_predictions(scores, its := read_items(data, gold)))], its)["systems"][0]
    assert (found["k"], found["n"]) == (k, n)
    assert found["hit1"] == pytest.approx(hit1, abs=5e-4) and found["mrr"] == pytest.approx(mrr, abs=1e-3 if language == "en" else 5e-5)


def test_ties_to_the_later_candidate_would_miss_the_published_farsi_mrr(shared):
    data, gold, scores = paths(shared, "fa", "clip_vitb32_multilingual.context")
    its = read_items(data, gold)
    backwards = metrics.gold_ranks(read_predictions(scores, its)[:, ::-1], [9 - i.gold_index for i in its])
    assert metrics.mrr(backwards) != pytest.approx(46.6974, abs=5e-5)


AUDITS = [("en", 13.01, 4.49), ("it", 12.63, 3.14), ("fa", 10.61, 5.98)]


@pytest.mark.parametrize("language, rarest, most_frequent", AUDITS)
def test_audit_of_the_official_test_files(shared, language, rarest, most_frequent):
    found = audit(read_items(*paths(shared, language, "")[:2]))
    assert round(found["rarest"], 2) == rarest and round(found["most_frequent"], 2) == most_frequent and found["gold_as_distractor"] == 0


def test_audit_of_the_official_train_file(shared):
    folder = shared / "vwsd" / "train"
    assert round(audit(read_items(folder / "train.data.v1.txt", folder / "train.gold.v1.txt"))["rarest"], 2) == 68.28


def test_submission_format_and_score_table_agree(official, tmp_path):
    its = read_items(*official[:2])
    scores = np.random.default_rng(0).random((6, 10))
    write_scores(tmp_path / "s.tsv", its, scores)
    order = np.argsort(-scores, axis=1)
    (tmp_path / "s.txt").write_text("".join("\t".join(i.candidates[c] for c in row) + "\r\n" for i, row in zip(its, order)))
    assert np.array_equal(read_predictions(tmp_path / "s.tsv", its), scores)
    table, ranking = (compare([("x", read_predictions(tmp_path / f, its))], its)["systems"][0] for f in ("s.tsv", "s.txt"))
    assert table == ranking


@pytest.mark.parametrize("change, words", [
    (lambda t: t.replace("image.", "picture."), "not a ranking"),
    (lambda t: "\n".join(t.split("\n")[1:]), "5 predictions for 6 items"),
    (lambda t: "", "empty"),
])
def test_bad_submissions_are_refused(official, tmp_path, change, words):
    its = read_items(*official[:2])
    (tmp_path / "s.txt").write_text(change("".join("\t".join(i.candidates) + "\n" for i in its)))
    with pytest.raises(VwsdError, match=words):
        read_predictions(tmp_path / "s.txt", its)


@pytest.mark.parametrize("change, words", [
    (lambda t: t.replace("word3 thing", "word9 thing"), "s.tsv:5"),
    (lambda t: t.replace("0.5\t", "nan\t", 1), "not a number"),
    (lambda t: t.replace("0.5\t", "half\t", 1), "could not convert"),
    (lambda t: t.replace("score_7", "points"), "score_7 is missing"),
    (lambda t: t.replace("\t0.5\n", "\n", 1), "13 fields"),
])
def test_bad_score_tables_are_refused_with_their_line(official, tmp_path, change, words):
    its = read_items(*official[:2])
    write_scores(tmp_path / "s.tsv", its, np.full((6, 10), 0.5))
    (tmp_path / "s.tsv").write_text(change((tmp_path / "s.tsv").read_text()))
    with pytest.raises(VwsdError, match=words):
        read_predictions(tmp_path / "s.tsv", its)


def test_wilson_holds_its_own_value_at_both_ends():
    """Without care the last bits put 0/n below its own lower bound, and figures refuse a negative arm."""
    for n in range(1, 600):
        for k in (0, 1, n - 1, n):
            low, high = metrics.wilson(k, n)
            assert 0 <= low <= 100 * k / n + 1e-12 and 100 * k / n - 1e-12 <= high <= 100 and (k or low == 0) and (k < n or high == 100)
