"""What a run reproduced: rows of two folders, the movement of trained ones, and a reference that is
replaced only by what reproduces it.
"""

import json
import re
import shutil

import pytest

from vwsd_companion import cli, compare, runner
from vwsdlib import paths
from vwsdlib.errors import VwsdError

REFERENCE = paths.PACKAGE.parent / "results" / "demo"
TRAINED = "polclip-seed0.sum.en.test/hit@1"
FROZEN = "lite.phrase.en.test/hit@1"
MEAN = "saliency.lite.occlusion.test/energy"


@pytest.fixture
def folders(tmp_path):
    """Two folders with the reference's rows and with what says which of them are trained."""
    made = []
    for name in ("a", "b"):
        folder = tmp_path / name
        (folder / "measured").mkdir(parents=True)
        for part in ("rows.jsonl", "measured/polclip_runs.jsonl"):
            shutil.copy(REFERENCE / part, folder / part)
        meta = "measured/wsd_answers.meta.json"
        shutil.copy(REFERENCE / meta, folder / meta)
        made.append(folder)
    return made


def change(folder, id, **values):
    """Rewrite one row by hand."""
    path = folder / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["id"] == id:
            row.update(values)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def without(folder, id):
    """Take one row out."""
    path = folder / "rows.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if json.loads(line)["id"] != id))


def pairs_of(folders, movement):
    results = [compare.read_results(folder) for folder in folders]
    return {p.id: p for p in compare.paired_rows(*results, movement, check=False)}


def test_trained_rows_are_those_whose_weights_the_run_trained(folders):
    results = compare.read_results(folders[0])
    models = {results.rows[id].model_extra["model"] for id in results.trained}
    assert models == {"PolCLIP on lite"} and len(results.trained) > 100
    others = results.rows.keys() - results.trained.keys()
    assert all("PolCLIP" not in results.rows[id].model_extra["model"] for id in others)
    seeds = {results.trained[f"polclip-seed{n}.sum.en.test/hit@1"] for n in (0, 1, 2)}
    assert len(seeds) == 1 and results.trained["polclip-no-sig.sum.en.test/hit@1"] not in seeds
    (folders[0] / "measured" / "polclip_runs.jsonl").unlink()
    assert compare.read_results(folders[0]).trained == {}


def test_the_same_rows_are_identical_and_the_summary_says_so(folders):
    pairs = pairs_of(folders, {})
    assert {p.state for p in pairs.values()} == {"identical"}
    assert compare.reproduced(list(pairs.values()))
    assert compare.in_words(list(pairs.values())) == (
        f"{len(pairs)} rows identical, 0 trained rows within what seeds and processors move them,"
        " 0 outside"
    )


@pytest.mark.parametrize(
    ("id", "points", "movement", "state"),
    [
        (TRAINED, 0.9, {TRAINED: 1.0}, "within"),
        (TRAINED, -0.9, {TRAINED: 1.0}, "within"),
        (TRAINED, 1.1, {TRAINED: 1.0}, "outside"),
        (TRAINED, 0.2, {}, "outside"),  # never measured
        (FROZEN, 0.2, {FROZEN: 1.0}, "outside"),  # what was not trained may not move
        ("lite.phrase.en.test/mrr", 1e-12, {}, "identical"),  # last bits of a sum
        ("lite.phrase.en.test/mrr", 1e-6, {}, "outside"),
        (MEAN, 0.001, {}, "identical"),  # last bits of a mean of real numbers
        (MEAN, 0.01, {}, "outside"),
    ],
)
def test_a_row_that_differs(folders, id, points, movement, state):
    value = compare.read_results(folders[0]).rows[id].value
    change(folders[1], id, value=value + points)
    pairs = pairs_of(folders, movement)
    assert pairs[id].state == state
    assert {p.state for p in pairs.values() if p.id != id} == {"identical"}
    assert compare.reproduced(list(pairs.values())) == (state != "outside")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"k": 0}, "nothing was trained"),
        ({"ci_low": 1.0}, "nothing was trained"),
        ({"n": 501}, "other items (n: 502 and 501)"),
        ({"limit": 20}, "other items (limit: 0 and 20)"),
        ({"data_sha256": "0" * 64}, "other items (data_sha256)"),
    ],
)
def test_a_count_an_interval_or_other_items_are_seen(folders, values, words):
    change(folders[1], FROZEN, **values)
    pair = pairs_of(folders, {})[FROZEN]
    assert pair.state == "outside" and words in pair.why


def test_rows_that_only_one_has(folders):
    without(folders[1], FROZEN)
    without(folders[0], MEAN)
    pairs = pairs_of(folders, {})
    assert pairs[FROZEN].state == "missing" and pairs[MEAN].state == "extra"
    assert compare.in_words(list(pairs.values())).endswith("0 outside, 1 missing, 1 extra")
    assert not compare.reproduced(list(pairs.values()))


def test_movement_is_the_largest_of_runs_seeds_and_alike(folders):
    first = compare.read_results(folders[0])
    change(folders[1], TRAINED, value=first.rows[TRAINED].value + 3)
    made = compare.measure([first, compare.read_results(folders[1])])
    assert made["rows"].keys() == first.trained.keys() and len(made["runs"]) == 2
    compare.Movement(**made)
    moved = made["rows"][TRAINED]
    seeds = [first.rows[f"polclip-seed{n}.sum.en.test/hit@1"].value for n in (0, 1, 2)]
    assert moved["runs"] == moved["alike"] == pytest.approx(3)
    assert moved["seeds"] >= max(seeds) - min(seeds)
    assert moved["movement"] == max(moved["runs"], moved["seeds"], moved["alike"])
    other = made["rows"]["polclip-no-sig.sum.en.test/hit@1"]  # one seed: its kind's are the study's
    assert other["runs"] == 0 and other["alike"] == moved["alike"]
    assert other["seeds"] == moved["seeds"]
    farsi = made["rows"]["polclip-seed0.sum.fa.test/hit@1"]
    assert farsi["alike"] == 0 and farsi["movement"] == farsi["seeds"] > 0
    assert pairs_of(folders, {TRAINED: moved["movement"]})[TRAINED].state == "within"


def test_runs_that_cannot_be_measured(folders):
    first = compare.read_results(folders[0])
    without(folders[1], TRAINED)
    with pytest.raises(VwsdError, match=f"the row {re.escape(TRAINED)} is in one run alone"):
        compare.measure([first, compare.read_results(folders[1])])
    assert compare.measure([first, first, compare.read_results(folders[1])])["rows"][TRAINED]
    change(folders[1], "polclip-seed1.sum.en.test/hit@1", n=20)
    with pytest.raises(VwsdError, match="this run tested other items"):
        compare.measure([first, compare.read_results(folders[1])])
    (folders[1] / "measured" / "polclip_runs.jsonl").unlink()
    with pytest.raises(VwsdError, match="this run trained nothing of the first"):
        compare.measure([first, compare.read_results(folders[1])])


def test_the_reference_has_a_movement_for_each_of_its_trained_rows():
    trained = compare.read_results(REFERENCE).trained
    assert not compare.read_movement([REFERENCE]).keys() ^ trained.keys()


# ---------------------------------------------------------------- the commands


@pytest.fixture
def project(tiny_results, tmp_path, monkeypatch):
    """A checkout whose reference and run are both the tiny demo's."""
    monkeypatch.setenv("VWSD_HOME", str(tmp_path))
    monkeypatch.delenv("VWSD_RESULTS", raising=False)
    shutil.copytree(tiny_results / "demo", tmp_path / "results" / "demo")
    shutil.copytree(tiny_results / "demo", tmp_path / "runs" / "demo")
    return tmp_path


def test_the_command_compares_reference_and_run(project, capsys):
    assert cli.main(["compare"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("runs/demo against results/demo: ") and out.count("\n") == 1
    assert cli.main(["compare", "run", str(project / "results" / "demo"), "--rows", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["first"] == "runs/demo" and said["second"] == "results/demo"
    assert said["identical"] == len(said["rows"]) > 10 and said["outside"] == 0


def test_a_result_changed_by_hand_is_found(project, capsys):
    change(project / "runs" / "demo", "lite.word.en.test/hit@1", k=1, value=50.0)
    assert cli.main(["compare"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("outside") and "lite.word.en.test/hit@1" in out[0]
    assert "rows.jsonl is not what the facts beside it give" in out[0] and len(out) == 2


def test_a_result_changed_alike_in_both_is_found(project, capsys):
    for place in ("runs", "results"):
        without(project / place / "demo", "lite.word.en.test/mrr")
    assert cli.main(["compare"]) == 1
    assert "outside    lite.word.en.test/mrr" in capsys.readouterr().out


def test_a_prediction_changed_by_hand_is_named(project, capsys):
    path = project / "runs" / "demo" / "predictions" / "lite.word.en.test.jsonl"
    path.write_text(path.read_text().replace('"rank": 1', '"rank": 2', 1))
    assert cli.main(["compare"]) == 2
    assert "lite.word.en.test.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "1 folder to compare"),
        (["reference", "nowhere"], "there are no results to compare [nowhere]"),
        (["reference", "run", "run"], "3 folders to compare"),
        (["--measure"], "--measure and --out go together"),
        (["--out", "x"], "--measure and --out go together"),
        (["--profile", "../x"], "holds a path's separator"),
    ],
)
def test_bad_input_is_one_sentence(project, arguments, words, capsys):
    assert cli.main(["compare", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["", "{}\n", "[1]\n", "{not json\n", '{"id": "a", "value": NaN}\n']
)
def test_damaged_rows_are_one_sentence(project, text, capsys):
    (project / "runs" / "demo" / "rows.jsonl").write_text(text)
    assert cli.main(["compare"]) == 2
    assert "rows.jsonl" in capsys.readouterr().err
    (project / "runs" / "demo" / "rows.jsonl").write_text("")
    assert cli.main(["refresh"]) == 2


def test_a_row_twice_and_a_damaged_movement_are_named(project, capsys):
    rows = project / "runs" / "demo" / "rows.jsonl"
    good = rows.read_text()
    rows.write_text(good + good.splitlines(keepends=True)[0])
    assert cli.main(["compare"]) == 2
    assert "stands twice" in capsys.readouterr().err
    rows.write_text(good)
    (project / "results" / "demo" / "movement.json").write_text('{"rows": 1}')
    assert cli.main(["compare"]) == 2
    assert "movement.json" in capsys.readouterr().err


def test_a_run_ends_with_what_it_reproduced(project, capsys):
    assert compare.after_run("demo")[0].startswith("of results/demo: ")
    assert len(compare.after_run("demo")) == 1
    without(project / "runs" / "demo", "lite.word.en.test/hit@1")
    first, second = compare.after_run("demo")
    assert first.endswith("0 outside, 1 missing") and "vwsd compare" in second
    shutil.rmtree(project / "results")
    assert compare.after_run("demo") == []


# ---------------------------------------------------------------- a new reference


@pytest.fixture
def done(project, monkeypatch):
    """The project, with all notebooks done and a whole run, as far as refresh can tell."""
    monkeypatch.setattr(runner, "status", lambda profile: [("01_data", "done", "")])
    monkeypatch.setattr(compare, "check_report", lambda profile: [])
    for place in ("runs", "results"):
        path = project / place / "demo" / "rows.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({**row, "limit": 0}) + "\n" for row in rows))
    monkeypatch.setattr(compare.Results, "altered", lambda results: set())
    return project


def test_a_whole_run_takes_the_place_of_the_reference(done, capsys):
    run, reference = done / "runs" / "demo", done / "results" / "demo"
    (reference / "movement.json").write_text('{"rule": "", "runs": [], "rows": {}}')
    (reference / "tables" / "old.md").write_text("of former times")
    (run / ".stamps").mkdir(exist_ok=True)
    (run / ".stamps" / "01_data.json").write_text("{}")
    (run / "site").mkdir()
    (run / "report.md").write_text("new")
    assert cli.main(["refresh"]) == 0
    assert (reference / "report.md").read_text() == "new"
    assert (reference / "rows.jsonl").read_bytes() == (run / "rows.jsonl").read_bytes()
    assert (reference / "movement.json").exists()
    for gone in ("tables/old.md", ".stamps", "site"):
        assert not (reference / gone).exists()
    assert (run / ".stamps" / "01_data.json").exists()


def test_a_run_that_is_not_whole_or_reproduces_less_is_refused(done, monkeypatch, capsys):
    run, reference = done / "runs" / "demo", done / "results" / "demo"
    before = (reference / "rows.jsonl").read_bytes()

    def refused(words):
        assert cli.main(["refresh"]) == 2
        assert words in capsys.readouterr().err
        assert (reference / "rows.jsonl").read_bytes() == before

    with monkeypatch.context() as patch:
        patch.setattr(runner, "status", lambda profile: [("02_clip_baseline", "stale", "code")])
        refused("02_clip_baseline is not done (stale)")
    with monkeypatch.context() as patch:
        patch.setattr(compare, "check_report", lambda profile: ["report.md: differs"])
        refused("report.md: differs")
    change(run, "lite.word.en.test/hit@1", value=0.0)
    refused("1 outside")
    change(run, "lite.word.en.test/hit@1", limit=20)
    refused("lite.word.en.test/hit@1 is of the first items only")
    assert cli.main(["refresh", "--force"]) == 0
    assert (reference / "rows.jsonl").read_bytes() == (run / "rows.jsonl").read_bytes()


def test_a_run_in_the_references_own_place_is_refused(project, monkeypatch, capsys):
    monkeypatch.setenv("VWSD_RESULTS", str(project / "results"))
    assert cli.main(["refresh", "--force"]) == 2
    assert "the run stands where the reference is" in capsys.readouterr().err
    assert compare.after_run("demo") == []
