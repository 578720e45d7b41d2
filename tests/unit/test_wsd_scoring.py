"""The scorer of textual WSD: hand-computed cases, a naive twin, the authors' Scorer.java itself,
published first-sense figures, the command line.
"""

import json
import random
import re
import shutil
import subprocess
import warnings

import numpy as np
import pytest

from vwsd_companion import cli
from vwsdlib.analysis.metrics import mcnemar
from vwsdlib.analysis.wsd_scoring import (
    compare_answers,
    credits,
    f1_interval,
    groups,
    score_answers,
    score_groups,
)
from vwsdlib.data.wsd import WsdItem, read_key, read_uef, write_key
from vwsdlib.errors import VwsdError
from vwsdlib.language.wsd_baselines import choose, first_sense_scores

GOLD = {"a": ["x"], "b": ["x", "y"], "c": ["z"], "d": ["z"]}
CASES = [  # answers; precision, recall, F1, attempted
    ({"a": ["x"], "b": ["y"], "c": ["z"], "d": ["z"]}, 100, 100, 100, 4),
    (
        {"a": ["x"], "b": ["y"], "c": ["w"]},
        200 / 3,
        50,
        400 / 7,
        3,
    ),  # d unanswered: recall alone falls
    (
        {"a": ["x", "q"], "b": ["x", "y"], "c": ["q", "r", "z"], "d": ["q"]},
        100 * 11 / 24,
        100 * 11 / 24,
        100 * 11 / 24,
        4,
    ),
    ({"b": ["y", "x", "q", "r"], "elsewhere": ["x"]}, 50, 12.5, 20, 1),
    ({"a": [], "c": ["Z"]}, 0, 0, 0, 1),  # an empty answer is none; case counts
    ({}, 0, 0, 0, 0),
    ({"a": ["x", "x"], "b": ["q"]}, 50, 25, 100 / 3, 2),  # one answer written twice is one
]


@pytest.mark.parametrize("answers, precision, recall, f1, attempted", CASES)
def test_cases_computed_by_hand(answers, precision, recall, f1, attempted):
    found = score_answers(GOLD, answers)
    assert (found.precision, found.recall, found.f1) == pytest.approx((precision, recall, f1)) and (
        found.attempted,
        found.total,
    ) == (attempted, 4)


def naive(gold, answers):
    """Scorer.java, line by line."""
    ok = notok = 0.0
    for item_id in answers:
        if item_id not in gold or not answers[item_id]:
            continue
        local_ok = sum(answer in gold[item_id] for answer in set(answers[item_id]))
        ok += local_ok / len(set(answers[item_id]))
        notok += (len(set(answers[item_id])) - local_ok) / len(set(answers[item_id]))
    p, r = ok / (ok + notok) if ok + notok else 0.0, ok / len(gold)
    return 100 * p, 100 * r, 100 * (2 * p * r / (p + r) if p + r else 0.0)


def some_keys(seed, n=200):
    """Gold and answers with several senses, gaps and strange ids."""
    dice = random.Random(seed)
    pick = lambda most: dice.sample([f"s%{k}" for k in range(5)], dice.randint(1, most))  # noqa: E731
    gold = {f"d{i}": pick(3) for i in range(n)}
    answers = {f"d{i}": pick(4) for i in dice.sample(range(-20, n), dice.randint(1, n))}
    return gold, answers


@pytest.mark.parametrize("seed", range(20))
def test_against_a_naive_twin(seed):
    gold, answers = some_keys(seed)
    found = score_answers(gold, answers)
    assert (found.precision, found.recall, found.f1) == pytest.approx(
        naive(gold, answers), abs=1e-9
    )
    worse = {item_id: [*given, "wrong"] for item_id, given in answers.items()}  # the twin can tell
    assert score_answers(gold, worse).f1 < found.f1 and naive(gold, worse)[2] < found.f1


JAVA = """public class Exact { public static void main(String[] a) throws java.io.IOException {
  for (int i = 0; i < a.length; i += 2) {
    Double[] m = Scorer.score(new java.io.File(a[i]), new java.io.File(a[i + 1]));
    System.out.println("EXACT " + m[0] + " " + m[1] + " " + m[2]); } } }"""


def test_against_the_authors_scorer(shared, tmp_path):
    """Scorer.java compiled and run: full precision on keys with several answers, gaps, double
    spaces, repeated and lone ids.
    """
    if not (shutil.which("javac") and shutil.which("java")):
        pytest.skip("no Java here: Scorer.java cannot be compiled")
    shutil.copyfile(shared / "wsd" / "raganato" / "Scorer.java", tmp_path / "Scorer.java")
    (tmp_path / "Exact.java").write_text(JAVA)
    subprocess.run(
        ["javac", "Scorer.java", "Exact.java"], cwd=tmp_path, check=True, capture_output=True
    )
    pairs = []
    for seed in range(12):
        gold, answers = some_keys(seed)
        pairs += [
            write_key(tmp_path / f"gold{seed}", gold),
            write_key(tmp_path / f"pred{seed}", answers),
        ]
        with open(pairs[-1], "a") as f:
            f.write("d1 s%0 s%1 \nd2  s%2\nd3\n\nd4 s%0 s%0\r\nd1 s%9\n")
    out = subprocess.run(
        ["java", "Exact", *map(str, pairs)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    exact = [
        tuple(100 * float(x) for x in line) for line in re.findall(r"EXACT (\S+) (\S+) (\S+)", out)
    ]
    assert len(exact) == 12
    for expected, gold, pred in zip(exact, pairs[::2], pairs[1::2]):
        found = score_answers(read_key(gold), read_key(pred))
        assert (found.precision, found.recall, found.f1) == pytest.approx(expected, abs=1e-9)


@pytest.fixture(scope="session")
def everything(shared, wordnet):
    folder = shared / "wsd" / "raganato" / "ALL"
    return list(read_uef(folder / "ALL.data.xml", folder / "ALL.gold.key.txt", wordnet))


PUBLISHED = {
    "SE2": 66.8,
    "SE3": 66.2,
    "SE07": 55.2,
    "SE13": 63.0,
    "SE15": 67.8,
    "ALL": 65.2,
    "NOUN": 67.6,
    "VERB": 50.3,
    "ADJ": 74.3,
    "ADV": 80.9,
}


def test_first_sense_gives_the_published_figures(everything):
    """Raganato et al. 2017, tables 2 and 3, "WN 1st sense"; to the second decimal as counted from
    the files.
    """
    found = {
        line["group"]: line
        for line in score_groups(everything, choose(everything, first_sense_scores(everything)))
    }
    assert list(found) == [*PUBLISHED, "items"]
    assert {name: line["f1"] for name, line in found.items() if name != "items"} == pytest.approx(
        PUBLISHED, abs=0.0501
    )
    assert [round(found[name]["f1"], 2) for name in list(PUBLISHED)[:6]] == [
        66.78,
        66.22,
        55.16,
        62.96,
        67.81,
        65.19,
    ]
    assert all(
        line["ci_low"] < line["f1"] < line["ci_high"] and line["attempted"] == line["total"]
        for line in found.values()
    )
    second = choose(
        everything,
        [
            scores * (np.arange(len(scores)) > 0) - (np.arange(len(scores)) == 0) * len(scores)
            for scores in first_sense_scores(everything)
        ],
    )
    assert (
        score_answers({i.id: i.golds for i in everything}, second).f1 < 50
    )  # not just any sense does it


def item(item_id, pos="NOUN", golds=("x",)):
    return WsdItem(item_id, "en", "w", pos, ("w",), (0, 0), ("x", "y"), (), golds)


def test_all_is_five_sets_and_all6_six():
    names = ["senseval2", "senseval3", "semeval2007", "semeval2013", "semeval2015"]
    five = [
        item(f"{name}.d0.t{i}", pos) for name in names for i, pos in enumerate(("NOUN", "VERB"))
    ]
    six, other = [*five, item("semeval2010.d0.t0", "ADJ")], item("d0.t0", "ADV")
    assert (
        len(groups(five)["ALL"]) == 10
        and "ALL6" not in groups(five)
        and "ALL" not in groups(five[2:])
    )
    assert list(groups(six)) == [
        "SE2",
        "SE3",
        "SE07",
        "SE10",
        "SE13",
        "SE15",
        "ALL",
        "ALL6",
        "NOUN",
        "VERB",
        "ADJ",
        "items",
    ]
    found = groups([*six, other])
    assert [len(found[name]) for name in ("ALL", "ALL6", "ADV", "items")] == [10, 11, 1, 12]
    lines = {
        line["group"]: line["f1"]
        for line in score_groups(six, {i.id: ("x" if i.set != "SE10" else "y",) for i in six})
    }
    assert (
        lines["ALL"] == 100 and lines["ALL6"] == pytest.approx(100 * 10 / 11) and lines["SE10"] == 0
    )


def test_items_that_cannot_be_scored_are_named():
    with pytest.raises(VwsdError, match="1 items have no gold .*d0.t1"):
        score_groups([item("d0.t0"), item("d0.t1", golds=())], {})
    with pytest.raises(VwsdError, match="an id stands twice"):
        score_groups([item("d0.t0"), item("d0.t0")], {})
    with pytest.raises(VwsdError, match="gold key is empty"):
        score_answers({}, {"a": ["x"]})


def test_the_interval_is_that_of_a_plain_bootstrap():
    gold, answers = some_keys(3)
    rows, dice = credits(gold, answers), np.random.default_rng(1)
    drawn = [rows[dice.integers(0, len(rows), len(rows))].sum(0) for _ in range(4000)]
    low, high = np.percentile(
        [200 * right / (attempted + len(rows)) for right, attempted in drawn], [2.5, 97.5]
    )
    assert f1_interval(gold, answers) == pytest.approx((low, high), abs=0.8) and f1_interval(
        gold, answers
    ) == f1_interval(gold, answers)
    assert abs(f1_interval(gold, {}, 0)[1]) == 0


def test_a_paired_test_of_single_answers_is_mcnemars():
    dice = random.Random(0)
    gold = {str(i): ["x"] for i in range(300)}
    a, b = (
        {i: ["x" if dice.random() < rate else "y"] for i in gold if dice.random() < 0.95}
        for rate in (0.5, 0.65)
    )
    found = compare_answers(gold, a, b)
    right = [[key.get(i) == ["x"] for i in gold] for key in (a, b)]
    assert found["test"] == "McNemar" and found["p"] == mcnemar(*right)[2] < 0.05
    assert (
        found["difference"] == pytest.approx(score_answers(gold, b).f1 - score_answers(gold, a).f1)
        and found["ci_low"] < found["difference"] < found["ci_high"]
    )
    assert found["ci_low"] > 0 and compare_answers(gold, b, a)["difference"] == -found["difference"]
    assert compare_answers(gold, a, a) == {
        "difference": 0,
        "ci_low": 0,
        "ci_high": 0,
        "p": 1,
        "test": "McNemar",
    }


def test_a_paired_test_of_several_answers_swaps_them():
    gold, a = some_keys(5)
    b = {i: [*golds] if n % 3 else a.get(i, []) for n, (i, golds) in enumerate(gold.items())}
    near = {
        i: (
            [*given, "q"]
            if int(i[1:]) % 4 == 1
            else gold.get(i, given)
            if int(i[1:]) % 4 == 2 and int(i[1:]) < 40
            else given
        )
        for i, given in a.items()
    }
    found, little = compare_answers(gold, a, b), compare_answers(gold, a, a | {"d1": ["q", "r"]})
    assert found["test"] == "randomisation" and found["p"] < 0.001 and found["ci_low"] > 0
    assert little["p"] > 0.2 and compare_answers(gold, a, a)["p"] == 1
    rows_a, rows_b, dice = (
        credits(gold, a),
        credits(gold, near),
        np.random.default_rng(2),
    )  # against swapping item by item
    f1 = lambda rows: 200 * rows[:, 0].sum() / (rows[:, 1].sum() + len(rows))  # noqa: E731
    swaps = [dice.random(len(rows_a)) < 0.5 for _ in range(2000)]
    drawn = [
        abs(f1(np.where(s[:, None], rows_a, rows_b)) - f1(np.where(s[:, None], rows_b, rows_a)))
        for s in swaps
    ]
    expected = np.mean(np.array(drawn) >= abs(f1(rows_b) - f1(rows_a)) - 1e-9)
    assert 0.1 < expected < 0.9 and compare_answers(gold, a, near)["p"] == pytest.approx(
        expected, abs=0.04
    )


def run(capsys, *arguments):
    code = cli.main([str(a) for a in arguments])
    return code, *capsys.readouterr()


def test_the_command_keeps_its_contract(tmp_path, capsys):
    gold, pred = (
        write_key(tmp_path / "gold", GOLD),
        write_key(tmp_path / "pred", CASES[1][0] | {"elsewhere": ["x"]}),
    )
    code, out, err = run(capsys, "wsd-score", "--gold", gold, "--pred", pred, "--json")
    found = json.loads(out)
    assert (
        code == 0
        and list(found) == ["precision", "recall", "f1", "attempted", "total"]
        and "1 answered ids are not in the gold" in err
    )
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx(
        (200 / 3, 50, 400 / 7)
    ) and (found["attempted"], found["total"]) == (3, 4)
    code, out, _ = run(capsys, "wsd-score", "--gold", gold, "--pred", pred)
    assert code == 0 and out.split() == [
        "precision",
        "66.67",
        "recall",
        "50.00",
        "f1",
        "57.14",
        "attempted",
        "3",
        "total",
        "4",
    ]


LIVING, BANK = "living%{}:00:00:extant:00", "bank%1:17:01::"


@pytest.mark.parametrize(
    "gold, pred, f1, notes",
    [
        (
            f"a {LIVING.format(5)}\nb {BANK}\n",
            f"a {LIVING.format(3)}\nb {BANK}\n",
            50,
            ["1 of 2 answers differ from the gold in %3/%5", "F1 would be 100.00"],
        ),
        (
            f"a {LIVING.format(3)}\nb {BANK}\n",
            f"a {LIVING.format(5)}\nb x\n",
            0,
            ["1 of 2 answers differ from the gold in %3/%5", "F1 would be 50.00"],
        ),
        (
            f"a {LIVING.format(5)}\nb {BANK}\n",
            f"a {LIVING.format(5)} {LIVING.format(3)}\nb {BANK}\n",
            75,
            ["1 of 3 answers differ", "F1 would be 100.00"],
        ),
        (
            f"a {BANK}\n",
            f"a {BANK.title()}\n",
            0,
            ["1 of 1 answers differ from the gold in capital letters only", "F1 would be 100.00"],
        ),
        (
            f"a {BANK}\nb x\n",
            f"a  {BANK}\nb  x\n",
            50,
            [
                "2 lines (the first is 1) of pred have two spaces",
                "without the empty answers F1 would be 100.00",
            ],
        ),
        (f"a  {BANK}\nb x\n", f"a {BANK}\nb x\n", 100, ["line 1 of gold has two spaces"]),
        (
            f"a {BANK}\nb x\n",
            f" a {BANK}\nb x\n",
            100 * 2 / 3,
            ["line 1 of pred begins with a space", "1 answered ids are not in the gold"],
        ),
        (
            f"a {BANK}\nb x\n",
            f"a {BANK}\nb x\na y\n",
            75,
            ["1 of 2 ids stand on several lines of pred, 'a' the first (line 3)"],
        ),
        ("a x\n", "c x\n", 0, ["not one of the answered ids is in the gold"]),
        (f"a {BANK}\nb x\n", f"a {BANK}\nb y\n", 50, []),
    ],
)
def test_what_is_read_otherwise_than_meant_is_said(gold, pred, f1, notes, tmp_path, capsys):
    """The figures are those of Scorer.java; `naive` is that scorer, line by line."""
    (tmp_path / "gold").write_text(gold)
    (tmp_path / "pred").write_text(pred)
    code, out, err = run(
        capsys, "wsd-score", "--gold", tmp_path / "gold", "--pred", tmp_path / "pred", "--json"
    )
    assert code == 0 and json.loads(out)["f1"] == pytest.approx(f1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert naive(read_key(tmp_path / "gold"), read_key(tmp_path / "pred"))[2] == pytest.approx(
            f1
        )
    assert all(note in err for note in notes) and bool(err) == bool(notes)


@pytest.mark.parametrize(
    "hidden, name",
    [
        ("\u00a0", "U+00A0 (NO-BREAK SPACE)"),
        ("\u2003", "U+2003"),
        ("\u200b", "U+200B"),
        ("\u2028", "U+2028"),
        ("\x0b", "U+000B"),
        ("\x00", "U+0000"),
        ("\r", "U+000D"),
        ("\u3000", "U+3000"),
        ("\ufeff", "U+FEFF"),
    ],
)
def test_white_space_that_is_no_space_is_named(hidden, name, tmp_path, capsys):
    (tmp_path / "gold").write_text("a x\nb y\n")
    (tmp_path / "pred").write_bytes(f"a x\nb{hidden}y\n".encode())
    code, out, err = run(
        capsys, "wsd-score", "--gold", tmp_path / "gold", "--pred", tmp_path / "pred"
    )
    assert code == 2 and out == "" and name in err and "pred:2" in err
    assert "Single spaces" in err or hidden == "\x00"  # a zero byte is in no text at all


def test_an_id_alone_is_no_answer_and_is_said(tmp_path, capsys):
    (tmp_path / "gold").write_text("a x\nb y\n")
    (tmp_path / "pred").write_text("a \nb y\n")
    code, out, err = run(
        capsys, "wsd-score", "--gold", tmp_path / "gold", "--pred", tmp_path / "pred", "--json"
    )
    assert code == 0 and json.loads(out)["attempted"] == 1
    assert "note: line 1 of pred has an id and nothing behind it" in err


def test_joiners_belong_to_words(tmp_path):
    (tmp_path / "k").write_text("a \u0645\u06cc\u200c\u062e\n")
    assert read_key(tmp_path / "k") == {"a": ("\u0645\u06cc\u200c\u062e",)}


@pytest.mark.parametrize(
    "answers",
    [{"a b": ["x"]}, {"a": ["x y"]}, {"a": [""]}, {"": ["x"]}, {"a": ["x\n"]}, {"a\u00a0": ["x"]}],
)
def test_what_could_not_be_read_back_is_not_written(answers, tmp_path):
    with pytest.raises(VwsdError, match="cannot stand in a key file"):
        write_key(tmp_path / "k", answers)
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize(
    "gold, pred, words",
    [
        ("", "a x\n", "the gold key is empty"),
        ("a x\n", "a\tx\n", "a tab in a key file"),
        ("a x\n", None, "no such file"),
    ],
)
def test_the_command_answers_faults_in_one_sentence(gold, pred, words, tmp_path, capsys):
    (tmp_path / "gold").write_text(gold)
    if pred is not None:
        (tmp_path / "pred").write_text(pred)
    code, out, err = run(
        capsys, "wsd-score", "--gold", tmp_path / "gold", "--pred", tmp_path / "pred", "--json"
    )
    assert code == 2 and out == "" and words in err and err.count("\n") == 1


def test_the_command_on_first_sense_answers_of_the_real_sets(shared, wordnet, tmp_path, capsys):
    found = {}
    for name in ("senseval2", "senseval3", "semeval2007", "semeval2013", "semeval2015", "ALL"):
        folder = shared / "wsd" / "raganato" / name
        items = list(read_uef(folder / f"{name}.data.xml", wordnet=wordnet))
        pred = write_key(tmp_path / name, choose(items, first_sense_scores(items)))
        found[name] = round(
            json.loads(
                run(
                    capsys,
                    "wsd-score",
                    "--gold",
                    folder / f"{name}.gold.key.txt",
                    "--pred",
                    pred,
                    "--json",
                )[1]
            )["f1"],
            2,
        )
    assert list(found.values()) == [66.78, 66.22, 55.16, 62.96, 67.81, 65.19]
