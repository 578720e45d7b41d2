"""Stored facts that were changed by whatever means: refused with file, line and key, never a crash,
never another number.
"""

import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vwsd_companion import cli
from vwsd_companion.facts import reported
from vwsd_companion.facts.audits import read_audit, write_audit
from vwsd_companion.facts.collect import Collection
from vwsd_companion.facts.measurements import read_measurement, write_measurement
from vwsd_companion.facts.predictions import read_predictions, write_predictions
from vwsd_companion.views.tables import Column, Table, set_title, write_table
from vwsdlib import paths
from vwsdlib.analysis.metrics import hits
from vwsdlib.data.sets import VwsdSet, load_set, user_set
from vwsdlib.encoders.control import RandomEncoder
from vwsdlib.errors import VwsdError

ODD = [None, True, False, 0, -1, 1.5, 10**400, "", "x", "../../x", [], {}, [1], {"a": 1}]
QUIET = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def run(official, tmp_path):
    """A stored run of six items, as its path; half of the items are right."""
    data = user_set(*official)
    scores = np.random.default_rng(0).random((6, 10)).astype(np.float32)
    for item, row in list(zip(data.items, scores))[:3]:
        row[item.gold_index] = 2
    write_predictions(
        tmp_path / "results",
        "toy.phrase.en.user",
        data,
        [i.phrase for i in data.items],
        scores,
        profile="demo",
        variant="phrase",
        identity=RandomEncoder().identity(),
    )
    return tmp_path / "results" / "predictions" / "toy.phrase.en.user.jsonl"


def meta_of(path):
    return path.with_name(path.name.replace(".jsonl", ".meta.json"))


def unhashed(path):
    """Take the hashes out of the meta, as in results of an earlier version, so that the other
    checks are seen at work.
    """
    made = json.loads(meta_of(path).read_text())
    for key in ("lines_sha256", "maps_sha256"):
        made.pop(key, None)
    meta_of(path).write_text(json.dumps(made))


def change(path, line, **changed):
    """Set keys of one line (from 1)."""
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    lines[line - 1] |= changed
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))


def test_a_run_without_hashes_is_still_read(run):
    before = read_predictions(run)
    unhashed(run)
    assert np.array_equal(read_predictions(run).scores, before.scores) and hits(before.ranks) >= 3


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("id", 3, "id: input should be a valid string"),
        ("id", "../../x", "id: the name '../../x' holds a path's separator"),
        ("id", "", "id: the name '' is empty"),
        ("language", "it", "language is 'it', and 'en' in the meta"),
        ("target", None, "target"),
        ("phrase", "a\tb", "phrase: string should match"),
        ("text", ["x"], "text: input should be a valid string"),
        ("candidates", ["a"] * 10, "a candidate stands twice"),
        ("candidates", ["a", "b"], "candidates: list should have at least 10 items"),
        ("candidates", [f"a{i}" for i in range(11)], "candidates: list should have at most 10"),
        ("gold", "nowhere.png", "the gold 'nowhere.png' is not among the candidates"),
        ("scores", [0.1] * 9, "scores: list should have at least 10"),
        ("scores", [True] + [0.1] * 9, "scores.0: input should be a valid number"),
        ("scores", ["1"] + [0.1] * 9, "scores.0: input should be a valid number"),
        ("scores", [1e300] + [0.1] * 9, "not finite in single precision"),
        ("scores", [0.5] * 10, "the rank is not the one that the scores give"),
        ("rank", 0, "rank: input should be greater than or equal to 1"),
        ("rank", 11, "rank: input should be less than or equal to 10"),
        ("rank", 1.0, "rank: input should be a valid integer"),
        ("rank", True, "rank: input should be a valid integer"),
        ("rank", "1", "rank: input should be a valid integer"),
    ],
)
def test_a_line_that_is_not_as_it_must_be_is_named(run, key, value, words):
    unhashed(run)
    change(run, 4, **{key: value})
    with pytest.raises(VwsdError) as e:
        read_predictions(run)
    assert words in str(e.value) and f"{run}:4" in str(e.value) and "--force" in str(e.value)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"id": NaN}',
        b"[]",
        b"3",
        b"null",
        b'"x"',
        b"{",
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": ' * 50_000,
        b"{}",
        b"\0",
    ],
)
def test_a_line_of_another_shape_is_named(run, raw):
    unhashed(run)
    lines = run.read_bytes().split(b"\n")
    lines[2] = raw
    run.write_bytes(b"\n".join(lines))
    with pytest.raises(VwsdError, match=r"toy.phrase.en.user.jsonl:3\].*--force"):
        read_predictions(run)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_score_or_a_kept_key_that_is_no_number_is_refused(run, word):
    unhashed(run)
    text = run.read_text()
    score = text.split('"scores": [')[1].split(",")[0]
    for changed in (
        text.replace(f'"scores": [{score}', f'"scores": [{word}', 1),
        text.replace('"rank"', f'"more": {word}, "rank"', 1),
    ):
        run.write_text(changed)
        with pytest.raises(VwsdError, match=r"user.jsonl:1\]"):
            read_predictions(run)


def test_a_line_replaced_by_a_copy_of_another_or_moved_is_refused(run):
    unhashed(run)
    first, second, *rest = run.read_text().splitlines(keepends=True)
    run.write_text("".join([first, first, *rest]))
    with pytest.raises(
        VwsdError,
        match=r"the id 'en.toy.0' stands in line 1 already.*user.jsonl:2|stands in line 1 already",
    ):
        read_predictions(run)
    run.write_text("".join([second, first, *rest]))
    with pytest.raises(VwsdError, match="the items are not those that their meta names"):
        read_predictions(run)
    copied = json.loads(first) | {"id": json.loads(second)["id"]}
    run.write_text("".join([first, json.dumps(copied) + "\n", *rest]))
    with pytest.raises(VwsdError, match="the items are not those that their meta names"):
        read_predictions(run)


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("n", 5, "6 lines, and 5 were written"),
        ("n", 0, "n: input should be greater"),
        ("n", True, "n: input should be a valid integer"),
        ("limit", -5, "limit: input should be greater"),
        ("limit", 10**30, "limit"),
        ("seed", 2**70, "seed"),
        ("limit", 5, "limit says the first 5 items only, and there are 6"),
        ("run", "../x", "run: the name '../x'"),
        ("dataset", "a/b", "dataset: the name"),
        ("split", None, "split"),
        ("language", "it", "language is 'en', and 'it' in the meta"),
        ("data_sha256", "0", "the items are not those"),
        ("versions", {"python": 3}, "versions.python"),
        ("versions", [], "versions"),
        ("model", 3, "model"),
        ("seed", "0", "seed"),
        ("profile", "..", "profile: the name '..'"),
        ("lines_sha256", "0" * 64, "the lines are not those"),
    ],
)
def test_a_meta_that_is_not_as_it_must_be_is_named(run, key, value, words):
    made = json.loads(meta_of(run).read_text()) | {key: value}
    meta_of(run).write_text(json.dumps(made))
    with pytest.raises(VwsdError) as e:
        read_predictions(run)
    assert words in str(e.value) and "toy.phrase.en.user" in str(e.value)


@QUIET
@given(st.data())
def test_a_changed_byte_of_predictions_is_refused_or_changes_nothing(run, data):
    for path in (run, meta_of(run)):
        before, was = path.read_bytes(), read_predictions(run)
        place = data.draw(st.integers(0, len(before) - 1))
        byte = data.draw(st.integers(0, 255))
        path.write_bytes(before[:place] + bytes([byte]) + before[place + 1 :])
        try:
            found = read_predictions(run)
        except VwsdError:
            pass
        else:
            assert (
                hits(found.ranks) == hits(was.ranks)
                and np.array_equal(found.scores, was.scores)
                and found.texts == was.texts
                and found.items == was.items
            )
        path.write_bytes(before)


@QUIET
@given(st.data())
def test_an_odd_value_anywhere_in_a_line_or_a_meta_without_hashes_gives_the_same_ranks_or_an_error(
    run, data
):
    texts = {path: path.read_text() for path in (run, meta_of(run))}
    was = read_predictions(run)
    unhashed(run)
    if data.draw(st.booleans()):
        keys = ("id", "language", "target", "phrase", "candidates", "gold", "scores", "rank")
        change(
            run,
            data.draw(st.integers(1, 6)),
            **{data.draw(st.sampled_from(keys)): data.draw(st.sampled_from(ODD))},
        )
    else:
        made = json.loads(meta_of(run).read_text())
        made[data.draw(st.sampled_from(sorted(made)))] = data.draw(st.sampled_from(ODD))
        meta_of(run).write_text(json.dumps(made))
    try:
        assert np.array_equal(read_predictions(run).ranks, was.ranks)
    except VwsdError:
        pass
    finally:
        for path, text in texts.items():
            path.write_text(text)


# ---------------------------------------------------------------- measurements, audits

TRUTH = {
    "scene": "s",
    "phrase": "p",
    "model": "m",
    "method": "occlusion",
    "area": 0.1,
    "pointing": 1.0,
    "rival": 0.0,
    "energy": 0.2,
    "iou": 0.1,
    "deletion": None,
    "insertion": None,
}
ANSWER = {
    "id": "a",
    "lemma": "bat",
    "pos": "n",
    "set": "",
    "golds": ["x"],
    "candidates": ["x", "y"],
    "system": "s",
    "scores": {"": [0.1, 0.2]},
}
MADE = {
    "profile": "demo",
    "dataset": "toy",
    "language": "en",
    "split": "test",
    "limit": 0,
    "seed": 0,
    "data_sha256": "0",
    "identities": {},
}


@pytest.mark.parametrize(
    "name, record, changed, words",
    [
        ("saliency_truth", TRUTH, {"pointing": 2.0}, "pointing"),
        ("saliency_truth", TRUTH, {"energy": True}, "energy"),
        ("saliency_truth", TRUTH, {"method": 3}, "method"),
        ("wsd_answers", ANSWER, {"scores": {"": [0.1]}}, "1 scores '' for 2 candidates"),
        ("wsd_answers", ANSWER, {"golds": []}, "golds"),
        ("wsd_answers", ANSWER, {"scores": [0.1, 0.2]}, "scores"),
        ("wsd_answers", ANSWER, {"candidates": "xy"}, "candidates"),
    ],
)
def test_a_record_that_is_not_as_it_must_be_is_named(tmp_path, name, record, changed, words):
    write_measurement(tmp_path, name, [record, record], **MADE)
    path = tmp_path / "measured" / f"{name}.jsonl"
    read_measurement(path)
    unhashed(path)
    change(path, 2, **changed)
    with pytest.raises(VwsdError) as e:
        read_measurement(path)
    assert words in str(e.value) and f"{name}.jsonl:2" in str(e.value)


def test_answers_of_nan_are_refused_when_they_are_written_and_when_they_are_read(tmp_path):
    with pytest.raises(VwsdError, match="not finite"):
        write_measurement(
            tmp_path, "wsd_answers", [ANSWER | {"scores": {"": [float("nan"), 0.2]}}], **MADE
        )
    assert not list(tmp_path.rglob("*.jsonl"))
    write_measurement(tmp_path, "wsd_answers", [ANSWER], **MADE)
    path = tmp_path / "measured" / "wsd_answers.jsonl"
    unhashed(path)
    path.write_text(path.read_text().replace("0.1", "NaN"))
    with pytest.raises(VwsdError, match=r"wsd_answers.jsonl:1\]"):
        read_measurement(path)


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", ""])
def test_a_measurement_or_a_run_of_no_plain_name_is_not_written(tmp_path, official, name):
    with pytest.raises(VwsdError, match="no file is named after it"):
        write_measurement(tmp_path, name, [])
    data = user_set(*official)
    with pytest.raises(VwsdError, match="no file is named after it"):
        write_predictions(
            tmp_path / "out",
            name,
            data,
            [""] * 6,
            np.eye(10)[:6],
            profile="demo",
            variant="x",
            identity={},
        )
    assert not (tmp_path / "out").exists() and not (tmp_path / "measured").exists()


@QUIET
@given(st.data())
def test_a_changed_byte_of_a_measurement_or_an_audit_is_refused_or_changes_nothing(
    emojiwsd, tmp_path, data
):
    folder = tmp_path / "facts"
    if not folder.exists():
        write_measurement(
            folder, "wsd_answers", [ANSWER, ANSWER | {"id": "b"}], {"map": np.eye(3)}, **MADE
        )
        write_audit(folder, load_set("emojiwsd", "en", "dev"), profile="demo")
    stem = folder / "measured" / "wsd_answers"
    for path, read in (
        (stem.with_suffix(".jsonl"), lambda: read_measurement(stem.with_suffix(".jsonl")).records),
        (
            stem.with_suffix(".safetensors"),
            lambda: {
                k: v.tolist() for k, v in read_measurement(stem.with_suffix(".jsonl")).maps.items()
            },
        ),
        (folder / "audit" / "en.dev.json", lambda: read_audit(folder / "audit" / "en.dev.json")),
    ):
        before, was = path.read_bytes(), read()
        place = data.draw(st.integers(0, len(before) - 1))
        path.write_bytes(
            before[:place] + bytes([data.draw(st.integers(0, 255))]) + before[place + 1 :]
        )
        try:
            assert read() == was
        except VwsdError as e:
            assert "facts" in str(e)
        path.write_bytes(before)


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("n", 0, "n:"),
        ("chance", 101.0, "chance"),
        ("chance", "10", "chance"),
        ("intervals", {}, "intervals has no chance"),
        ("position_counts", [1] * 10, "position_counts sum to 10"),
        ("limit", 5, "the first 5 items only"),
        ("limit", -5, "limit"),
        ("split", "test", "the audit is of en test"),
        ("versions", None, "versions"),
        ("mean_words", float("nan"), "no number|finite|json"),
    ],
)
def test_an_audit_that_is_not_as_it_must_be_is_named(emojiwsd, tmp_path, key, value, words):
    made = write_audit(tmp_path, load_set("emojiwsd", "en", "dev"), profile="demo")
    path = tmp_path / "audit" / "en.dev.json"
    assert read_audit(path) == json.loads(json.dumps(made))
    made.pop("facts_sha256")
    path.write_text(json.dumps(made | {key: value}))
    with pytest.raises(VwsdError, match=f"({words}).*en.dev.json"):
        read_audit(path)


# ---------------------------------------------------------------- through the command


@pytest.fixture
def demo(tiny_results, tmp_path, monkeypatch):
    shutil.copytree(tiny_results, tmp_path / "r")
    monkeypatch.setenv("VWSD_RESULTS", str(tmp_path / "r"))
    return tmp_path / "r" / "demo"


@pytest.mark.parametrize(
    "part",
    [
        "predictions/lite.word.en.test.jsonl",
        "predictions/lite.word.en.test.meta.json",
        "audit/en.test.json",
    ],
)
@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b"\xff", b"[" * 10_000, b"null\n", b'{"records": 1}']
)
def test_the_report_refuses_damaged_facts_in_one_sentence(demo, capsys, part, raw):
    (demo / part).write_bytes(raw)
    before = {p: p.read_bytes() for p in demo.rglob("*") if p.is_file()}
    for how in (["--check"], [], ["--html"]):
        assert (
            cli.main(["report", *how]) in (0, 2)
            if how == ["--html"]
            else cli.main(["report", *how]) == 2
        )
        error = capsys.readouterr().err
        assert part.split("/")[1].split(".test")[0] in error and "Traceback" not in error
    assert {
        p: p.read_bytes() for p in demo.rglob("*") if p.is_file() and "site" not in p.parts
    } == before


def test_two_files_of_one_run_are_refused(demo, capsys):
    for suffix in (".jsonl", ".meta.json"):
        shutil.copy(
            demo / "predictions" / f"lite.word.en.test{suffix}",
            demo / "predictions" / f"copy{suffix}",
        )
    assert (
        cli.main(["report"]) == 2
        and "the file holds 'lite.word.en.test', not what its name says" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "change",
    [
        {"figures": ["../../x"]},
        {"figures": ["nothing"]},
        {"claims": [{}]},
        {"tables": 3},
        {"verdicts": []},
        {"provenance": {"x": 1}},
        {"rows": -1},
    ],
)
def test_a_damaged_report_makes_no_site(demo, capsys, monkeypatch, change):
    def unable(profile):
        raise VwsdError("not now")

    monkeypatch.setattr("vwsd_companion.report.refresh_report", unable)
    path = demo / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert (
        cli.main(["report", "--html"]) == 2
        and "report.json" in capsys.readouterr().err
        and not (demo / "site").exists()
    )


def test_results_that_are_no_folder_are_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    for name, words in (
        ("file", "a file stands where the folder of results is needed"),
        ("loop", "a link that leads nowhere"),
    ):
        monkeypatch.setenv("VWSD_RESULTS", str(tmp_path / name))
        for how in ([], ["--check"], ["--html"]):
            assert cli.main(["report", *how]) == 2 and words in capsys.readouterr().err


# ---------------------------------------------------------------- what is made from facts, and what
# papers report


def test_no_table_holds_a_number_that_is_none(tmp_path):
    made = Table("t", "T", (Column("v", "V", ".2f"),), [{"v": float("nan")}])
    with pytest.raises(VwsdError, match="a number of the table 't' is not finite"):
        write_table(made, tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_a_caption_says_a_part_only_of_what_is_a_part(emojiwsd, tmp_path):
    data: VwsdSet = load_set("emojiwsd", "en", "test")
    write_audit(tmp_path, data.head(5), profile="demo", limit=5)
    assert "first 5 items only" in set_title(
        Collection("demo", tmp_path)
    ) and "some rows" not in set_title(Collection("demo", tmp_path))
    write_predictions(
        tmp_path,
        "toy.word.en.test",
        data,
        [""] * 502,
        np.random.default_rng(0).random((502, 10)),
        profile="demo",
        variant="word",
        identity=RandomEncoder().identity(),
    )
    assert "some rows of the first 5 items only (see n)" in set_title(Collection("demo", tmp_path))


GOOD = {
    "id": "x",
    "paper": "clipseg",
    "about": "a",
    "value": "50",
    "unit": "percent",
    "decimals": 2,
    "n": 2,
    "count": 1,
    "run": "r",
    "metric": "hit@1",
    "notebook": "n",
    "source": "s",
}


@pytest.mark.parametrize(
    "text, words",
    [
        ("- {id: 2024-01-01}", "0.id"),
        (None, "x"),
        ("3", "valid list"),
        ("[1]", "0"),
        ("{", "no YAML"),
        ("\0", "no YAML"),
        ("- [" * 5000, "no YAML|form"),
        ("- !!python/object:os.system {}", "no YAML"),
        ({"value": 50}, "0.value"),
        ({"n": True}, "0.n"),
        ({"count": 3}, "count 3 is more than n 2"),
        ({"n": None}, "needs count and n"),
        ({"paper": "other"}, "0.paper"),
        ({"paper": "context", "sets": ["A"], "n": [1, 2]}, "as many values and n as sets"),
        ({"paper": "context", "sets": ["A"], "n": [1], "value": "nan"}, "not finite"),
        ({"run": "../x"}, "0.run: the name"),
        ({"paper": "task", "value": "many"}, "whole number"),
    ],
)
def test_reported_values_of_another_form_are_named(tmp_path, monkeypatch, text, words):
    monkeypatch.setenv("VWSD_HOME", str(tmp_path))
    (tmp_path / "results").mkdir()
    written = (
        text
        if isinstance(text, str)
        else json.dumps([GOOD | text if text else GOOD, *([] if text else [GOOD])])
    )
    (tmp_path / "results" / "reported.yml").write_text(written)
    reported.entries.cache_clear()
    try:
        with pytest.raises(VwsdError, match=f"({words}).*reported.yml|reported.yml.*({words})"):
            reported.entries()
    finally:
        monkeypatch.undo()
        reported.entries.cache_clear()
    assert len(reported.entries()) > 20 and paths.root() == paths.PACKAGE.parent
