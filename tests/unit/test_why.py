"""From a cell to its origin: the table itself says which facts move it."""

import json

import numpy as np
import pytest

from vwsd_companion import cli
from vwsd_companion import why as module
from vwsd_companion.facts import fact
from vwsd_companion.facts.measurements import write_measurement
from vwsd_companion.views.catalogue import TABLES
from vwsd_companion.views.tables import Column, Table
from vwsd_companion.why import find_column, find_row, origin_of, origin_text
from vwsdlib.errors import VwsdError
from vwsdlib.paths import PACKAGE

DEMO = PACKAGE.parent / "results" / "demo"


@pytest.fixture(scope="module")
def committed():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VWSD_RESULTS", str(DEMO.parent))
        yield


@pytest.mark.parametrize(
    "table, row, column, facts, rows",
    [
        ("data_counts", "1", "Targets", {"audit/en.test.json": 0}, []),
        ("audit", "Italian test", "rarest_ci", {"audit/it.test.json": 0}, ["rarest.it.test/hit@1"]),
        (
            "baseline",
            "farsi LITE phrase",
            "MRR",
            {"predictions/lite.phrase.fa.test.jsonl": 251},
            ["lite.phrase.fa.test/mrr"],
        ),
        (
            "baseline_paired",
            "1",
            "p",
            {
                "predictions/lite.phrase.en.test.jsonl": 502,
                "predictions/lite.word.en.test.jsonl": 502,
            },
            ["lite.word.en.test/hit@1", "lite.phrase.en.test/hit@1"],
        ),
        (
            "ladder",
            "3",
            "k",
            {"predictions/lite-352-imagenet.phrase.en.test.jsonl": 502},
            ["lite-352-imagenet.phrase.en.test/hit@1"],
        ),
        ("ladder", "3", "change", {"measured/ladder.jsonl": [3]}, []),
        (
            "decoder",
            "3",
            "value",  # chosen on the development items, scored on the others
            {
                "predictions/lite-352.phrase.en.dev.jsonl": 240,
                "predictions/lite-dense.prob_mean.en.dev.jsonl": 240,
                "predictions/lite-352.phrase.en.test.jsonl": 502,
                "predictions/lite-dense.prob_mean.en.test.jsonl": 502,
            },
            [],
        ),
        (
            "saliency_truth",
            "2",
            "energy",
            {"measured/saliency_truth.jsonl": 32},
            ["saliency.lite.crops_by_visits.test/energy"],
        ),
        ("centre_bias", "2", "corner", {"measured/centre_bias.jsonl": [2]}, []),
        ("masks_shown", "3", "mean probability", {"measured/mask_panels.jsonl": [3]}, []),
        ("translation_examples", "3", "5", {"translations/literal.it.test.jsonl": [6]}, []),
        ("translators_used", "1", "Model", {"translations/literal.it.test.meta.json": 0}, []),
        (
            "visual_polclip",
            "English PolCLIP, plain",
            "MRR",
            {f"predictions/polclip-seed{seed}.plain.en.test.jsonl": 502 for seed in range(3)},
            [f"polclip-seed{seed}.plain.en.test/mrr" for seed in range(3)],
        ),
        ("multimodal_examples", "2", "right", {"measured/multimodal.jsonl": [13]}, []),
    ],
)
def test_origins_in_the_demo(committed, table, row, column, facts, rows):
    answer = origin_of("demo", table, row, column)
    lines = {file: wanted if isinstance(wanted, list) else None for file, wanted in facts.items()}
    assert not answer.whole_row and {fact.file for fact in answer.facts} >= facts.keys()
    for origin in answer.facts:
        wanted = facts.get(origin.file, len(origin.lines))
        assert origin.lines == lines.get(origin.file) or len(origin.lines) == wanted
        assert origin.notebook and origin.cells and origin.line
    assert {row["id"] for row in answer.rows} >= set(rows)


def test_every_fact_behind_a_cell_has_its_model_data_and_notebook(committed):
    [origin] = origin_of("demo", "baseline", "5", "value").facts
    [lite] = origin.models
    assert lite["name"] == lite["model"] == "lite" and len(lite["weights_sha256"]) == 64
    assert origin.data["dataset"] == "emojiwsd" and len(origin.data["data_sha256"]) == 64
    assert origin.notebook == "02_clip_baseline" and "run.predictions(" in origin.line


def test_a_name_has_the_origin_of_its_row_and_says_so(committed):
    answer = origin_of("demo", "baseline", "5", "Encoder")
    assert answer.whole_row and answer.cell == "lite"
    assert [fact.file for fact in answer.facts] == ["predictions/lite.phrase.en.test.jsonl"]
    assert "what its row is made of" in origin_text(answer)
    claim = origin_of("demo", "claims", "1", "Ours")
    assert claim.facts == [] and "no stored fact stands behind it" in origin_text(claim)


# ---------------------------------------------------------------- which cell is meant


COLUMNS = (Column("a", "A"), Column("b", "B"), Column("v", "V", ".1f"), Column("w", "V", ".1f"))
ROWS = [{"a": "x", "b": "y", "v": 1.0}, {"a": "x", "b": "z", "v": 2.0}, {"a": "q", "b": "y"}]
TOY = Table("toy", "Toy", COLUMNS, ROWS)


def test_rows_and_columns_go_by_number_or_by_text():
    assert [find_row(TOY, asked) for asked in ("1", "x z", "X  Y", "q")] == [0, 1, 0, 2]
    assert [find_column(TOY, asked) for asked in ("3", "b", "B", "w")] == [2, 1, 1, 3]


@pytest.mark.parametrize(
    "find, asked, words",
    [
        (find_row, "0", "rows 1 to 3, and no 0"),
        (find_row, "4", "rows 1 to 3, and no 4"),
        (find_row, "x", "2 rows are called 'x'.*give its number: 1, 2"),
        (find_row, "x zz", "unknown row 'x zz'.*Did you mean 'x z'"),
        (find_column, "9", "columns 1 to 4, and no 9"),
        (find_column, "V", "2 columns are called 'V'.*give its number: 3, 4"),
        (find_column, "AB", "unknown column 'AB'.*Did you mean"),
    ],
)
def test_what_is_not_there_or_stands_twice_is_named(find, asked, words):
    with pytest.raises(VwsdError, match=words):
        find(TOY, asked)


# ---------------------------------------------------------------- through the command


@pytest.fixture
def tiny(tiny_results, monkeypatch):
    monkeypatch.setenv("VWSD_RESULTS", str(tiny_results))


def test_the_command_prints_lines_or_json(tiny, capsys):
    asked = ["why", "baseline", "English lite bare word", "k"]
    assert cli.main(asked) == 0
    text = capsys.readouterr().out
    assert "fact   predictions/lite.word.en.test.jsonl, 6 of 6 lines" in text
    assert "made by  02_clip_baseline, code cell 3" in text
    assert cli.main([*asked, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    [origin] = answer["facts"]
    assert origin["lines"] == [1, 2, 3, 4, 5, 6] and origin["code_is_here"] is True
    assert answer["value"] == answer["rows"][0]["k"] and answer["whole_row"] is False


@pytest.mark.parametrize(
    "words, error",
    [
        (["bseline", "1", "1"], "Did you mean 'baseline'?"),
        (["ladder", "1", "1"], "has no facts for the table 'ladder'"),
        (["baseline", "English light", "k"], "Did you mean"),
        (["baseline", "1", "hit"], "unknown column 'hit'"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(tiny, capsys, words, error):
    assert cli.main(["why", *words]) == 2
    assert error in capsys.readouterr().err


# ---------------------------------------------------------------- notebook and cell


def measured(folder, monkeypatch, line):
    """A measurement that says in which line of notebook 05 it was made; returns its origin."""
    monkeypatch.setenv("VWSD_RESULTS", str(folder))
    monkeypatch.setattr(fact, "_now", {})
    monkeypatch.setattr(fact, "_cell_line", lambda frame: line)
    fact.begin("05_saliency", {})
    sizes = ("centre", "top", "corner", "ratio")
    records = [{"picture": "p", "size": "s", **dict.fromkeys(sizes, 1.0 + n)} for n in range(2)]
    about = dict.fromkeys(("dataset", "language", "split", "data_sha256"), "x")
    write_measurement(
        folder / "demo", "centre_bias", records, profile="demo", limit=0, seed=0, **about
    )
    [origin] = origin_of("demo", "centre_bias", "2", "ratio").facts
    return origin


def test_a_fact_that_says_its_line_leads_to_the_cell(tmp_path, monkeypatch):
    origin = measured(tmp_path, monkeypatch, 'run.measure("centre_bias", data, records)')
    assert (origin.lines, origin.notebook, origin.cells) == ([2], "05_saliency", [3])
    assert origin.code_is_here is True


def test_a_line_that_the_notebook_no_longer_has_is_in_no_cell(tmp_path, monkeypatch):
    origin = measured(tmp_path, monkeypatch, "run.measure(as_it_was)")
    assert (origin.cells, origin.line) == ([], "run.measure(as_it_was)")
    assert "code cell ?: run.measure(as_it_was)" in origin_text(
        origin_of("demo", "centre_bias", "1", "3")
    )


def test_a_table_that_reads_nothing_has_no_origin_and_none_is_changed(tiny, monkeypatch):
    from vwsd_companion.facts.collect import Collection

    def still(c: Collection) -> Table:
        return Table("still", "Still", (Column("v", "V", ".1f"),), [{"v": 1.0}])

    monkeypatch.setitem(TABLES, "still", still)
    assert origin_of("demo", "still", "1", "1").facts == []

    def halved(c: Collection) -> Table:
        ranks = [p.ranks for name, p in c.predictions.items() if "phrase" in name]
        rows = [{"v": float(np.mean(some))} for some in ranks]
        return Table("halved", "Halved", (Column("v", "V", ".1f"),), rows)

    monkeypatch.setitem(TABLES, "halved", halved)
    before = halved(Collection("demo", module.results_dir("demo"))).rows
    [origin] = origin_of("demo", "halved", "2", "V").facts
    assert origin.file == "predictions/lite.phrase.fa.test.jsonl"
    assert halved(Collection("demo", module.results_dir("demo"))).rows == before
