"""`vwsd wsd` on a toy WordNet, an inventory file and the real sets; `wsd-score` agrees with what it
prints.
"""

import json

import pytest

from vwsd_companion import cli
from vwsdlib.language.wsd_baselines import BASELINES

XML = """<corpus lang="en" source="senseval2"><text id="d0"><sentence id="d0.s0">
<wf>He</wf><instance id="d0.s0.t0" lemma="bat" pos="VERB">batted</instance><wf>the</wf><wf>ball</wf>
<wf>with</wf><wf>a</wf>
<instance id="d0.s0.t1" lemma="bat" pos="NOUN">bat</instance><wf>, a</wf><wf>club</wf><wf>or</wf>
<instance id="d0.s0.t2" lemma="zorb" pos="NOUN">zorb</instance>
</sentence></text></corpus>
"""
KEY = "d0.s0.t0 bat%2:35:00::\nd0.s0.t1 bat%1:06:00::\nd0.s0.t2 zorb%1:06:00::\n"
FIRST = "d0.s0.t0 bat%2:35:00::\nd0.s0.t1 bat%1:05:00::\n"


def run(capsys, *arguments):
    code = cli.main(["wsd", *map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.fixture
def toy(own_folders, toy_dict, monkeypatch):
    """Folder with x.xml and x.key; WordNet is the toy."""
    monkeypatch.setenv("VWSD_WORDNET", str(toy_dict(own_folders / "dict")))
    (own_folders / "x.xml").write_text(XML)
    (own_folders / "x.key").write_text(KEY)
    return own_folders


def test_the_table_the_answers_and_the_unanswered(toy, capsys):
    code, out, err = run(
        capsys,
        "--data",
        toy / "x.xml",
        "--gold",
        toy / "x.key",
        "--method",
        "first-sense",
        "--out",
        toy / "out.key",
    )
    lines = [line.split() for line in out.splitlines()]
    assert code == 0 and [line[0] for line in lines[1:]] == ["SE2", "NOUN", "VERB", "items"]
    assert (lines[1][1], lines[1][-1]) == ("40.00", "2/3") and (lines[3][1], lines[3][-1]) == (
        "100.00",
        "1/1",
    )  # 1 right, 2 answered, 3 items
    assert (
        err == "note: 1 of 3 items have no candidates and stay unanswered, 'd0.s0.t2' the first\n"
    )
    assert (toy / "out.key").read_text() == FIRST


def test_json_is_a_list_of_groups_and_wsd_score_agrees(toy, capsys):
    code, out, _ = run(
        capsys,
        "--data",
        toy / "x.xml",
        "--gold",
        toy / "x.key",
        "--method",
        "lesk",
        "--out",
        toy / "out.key",
        "--json",
    )
    whole = json.loads(out)[-1]
    assert (
        code == 0 and whole["group"] == "items" and whole["f1"] == pytest.approx(80)
    )  # "club" and "ball" find the third sense
    assert set(whole) == {
        "group",
        "precision",
        "recall",
        "f1",
        "attempted",
        "total",
        "ci_low",
        "ci_high",
    }
    assert (
        cli.main(
            ["wsd-score", "--gold", str(toy / "x.key"), "--pred", str(toy / "out.key"), "--json"]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out).items() <= whole.items()


def test_a_key_of_some_instances_scores_these(toy, capsys):
    (toy / "some.key").write_text(KEY.splitlines(keepends=True)[0])
    code, out, err = run(
        capsys,
        "--data",
        toy / "x.xml",
        "--gold",
        toy / "some.key",
        "--method",
        "first-sense",
        "--out",
        toy / "out.key",
        "--json",
    )
    assert code == 0 and [(g["group"], g["total"], g["f1"]) for g in json.loads(out)] == [
        ("SE2", 1, 100),
        ("VERB", 1, 100),
        ("items", 1, 100),
    ]
    assert (
        "2 of 3 instances of x.xml have no answer in some.key, 'd0.s0.t1' the first" in err
        and (toy / "out.key").read_text() == FIRST
    )
    (toy / "none.key").write_text("d9 bat%1:05:00::\n")
    code, out, err = run(
        capsys, "--data", toy / "x.xml", "--gold", toy / "none.key", "--method", "first-sense"
    )
    assert code == 2 and out == "" and "no answer for any of the 3 instances" in err


@pytest.mark.parametrize(
    "tag, group, said",
    [
        ("AUX", None, "not have and get no candidates: AUX (1)"),
        ("X", None, "X (1)"),
        ("", None, "none at all (1)"),
        ("VBD", "VERB", "VBD read as VERB (1)"),
        ("v", "VERB", ""),
        ("NNS", "NOUN", "NNS read as NOUN (1)"),
        ("ADJ_SAT", "ADJ", "ADJ_SAT read as ADJ (1)"),
        ("n", "NOUN", ""),
    ],
)
def test_a_part_of_speech_stops_nothing(tag, group, said, toy, capsys):
    (toy / "tag.xml").write_text(XML.replace('lemma="bat" pos="VERB"', f'lemma="bat" pos="{tag}"'))
    code, out, err = run(
        capsys,
        "--data",
        toy / "tag.xml",
        "--gold",
        toy / "x.key",
        "--method",
        "first-sense",
        "--json",
    )
    totals = {g["group"]: (g["attempted"], g["total"]) for g in json.loads(out)}
    assert code == 0 and totals["items"] == ((2 if group in ("VERB", "NOUN") else 1), 3)
    if group == "VERB":
        assert totals["VERB"] == (1, 1)
    elif group == "NOUN":
        assert totals["NOUN"] == (2, 3)
    assert (
        ("of tag.xml have parts of speech" in err and said in err and "'d0.s0.t0' the first" in err)
        if said
        else "parts of speech" not in err
    )


def test_italian_sentences_get_no_english_senses(toy, capsys):
    (toy / "it.xml").write_text(XML.replace('lang="en"', 'lang="it-IT"'))
    arguments = ["--data", toy / "it.xml", "--method", "first-sense", "--out", toy / "out.key"]
    code, _, err = run(capsys, *arguments)
    assert (
        code == 0
        and "WordNet has no Italian: 3 of 3 instances of it.xml" in err
        and (toy / "out.key").read_text() == ""
    )
    code, _, err = run(capsys, *arguments, "--language", "en")
    assert code == 0 and "Italian" not in err and (toy / "out.key").read_text() == FIRST


@pytest.mark.parametrize("method", BASELINES)
def test_every_method_answers_without_a_gold_and_is_named_in_the_help(method, toy, capsys):
    code, out, _ = run(
        capsys,
        "--data",
        toy / "x.xml",
        "--method",
        method,
        "--encoder",
        "random",
        "--out",
        toy / "out.key",
    )
    assert (
        code == 0
        and out == ""
        and [line.split()[0] for line in (toy / "out.key").read_text().splitlines()]
        == ["d0.s0.t0", "d0.s0.t1"]
    )
    with pytest.raises(SystemExit):
        run(capsys, "--help")
    assert method in capsys.readouterr().out


def test_an_inventory_gives_other_candidates_and_has_no_glosses(toy, capsys):
    (toy / "inventory").write_text("bat#n\tbn:2n\tbn:1n\nzorb#n\tbn:3n\n")
    arguments = [
        "--data",
        toy / "x.xml",
        "--inventory",
        toy / "inventory",
        "--out",
        toy / "out.key",
        "--method",
    ]
    code, _, err = run(capsys, *arguments, "first-sense")
    assert (
        code == 0
        and (toy / "out.key").read_text() == "d0.s0.t1 bn:2n\nd0.s0.t2 bn:3n\n"
        and "1 of 3 items" in err
    )
    code, _, err = run(capsys, *arguments, "lesk")
    assert code == 2 and "no glosses" in err and "first sense" in err


@pytest.mark.parametrize(
    "change, words",
    [
        ({"--method": "leks"}, "Did you mean 'lesk'?"),
        ({"--out": None}, "neither --gold nor --out"),
        ({"--data": "y.xml"}, "No such file"),
        ({"--gold": "y.key"}, "no such file"),
        ({"--method": "encoder", "--encoder": "lit"}, "'lite'"),
        ({"--inventory": "x.xml"}, "not a line of an inventory"),
        ({"--data": "twice.xml"}, "an id stands twice"),
        ({"--data": "none.xml"}, "no instances"),
        ({"--data": "cut.xml"}, "not whole XML"),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_bad_input_is_named_and_nothing_is_written(change, words, toy, capsys):
    (toy / "twice.xml").write_text(XML.replace("d0.s0.t2", "d0.s0.t1"))
    (toy / "none.xml").write_text(XML.replace("instance", "wf"))
    (toy / "cut.xml").write_text(XML[:-20])
    chosen = {"--data": "x.xml", "--method": "first-sense", "--out": "out.key", **change}
    arguments = [
        part
        for name, value in chosen.items()
        if value
        for part in (name, value if name in ("--method", "--encoder") else toy / value)
    ]
    code, out, err = run(capsys, *arguments)
    assert (
        code == 2
        and out == ""
        and words in err
        and err.count("\n") == 1
        and not (toy / "out.key").exists()
    )


def test_the_first_sense_on_the_real_sets(shared, wordnet, capsys, tmp_path):
    folder = shared / "wsd" / "raganato" / "ALL"
    code, out, err = run(
        capsys,
        "--data",
        folder / "ALL.data.xml",
        "--gold",
        folder / "ALL.gold.key.txt",
        "--method",
        "first-sense",
        "--json",
    )
    f1 = {g["group"]: round(g["f1"], 2) for g in json.loads(out)}
    expected = {
        "SE2": 66.78,
        "SE3": 66.22,
        "SE07": 55.16,
        "SE13": 62.96,
        "SE15": 67.81,
        "ALL": 65.19,
    }
    assert code == 0 and err == "" and {name: f1[name] for name in expected} == expected
