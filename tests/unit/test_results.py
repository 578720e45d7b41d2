"""From stored predictions to tables and figures: pure, checked, the same bytes; reported values
that can be true.
"""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from vwsd_companion import report
from vwsd_companion.facts import collect
from vwsd_companion.facts.audits import write_audit
from vwsd_companion.facts.collect import Collection
from vwsd_companion.facts.numbers import KEYS, check, prediction_rows, to_jsonl
from vwsd_companion.facts.predictions import meaningful, read_predictions, write_predictions
from vwsd_companion.facts.reported import attainable, claims, reported, verdict
from vwsd_companion.views.baseline import margin_bins
from vwsd_companion.views.catalogue import FIGURES, TABLES
from vwsd_companion.views.tables import Column, Table
from vwsdlib import paths
from vwsdlib.analysis.metrics import mcnemar, paired_interval
from vwsdlib.data.sets import languages, load_set
from vwsdlib.encoders.control import RandomEncoder
from vwsdlib.errors import VwsdError


def store(folder, profile="demo", run="toy", language="en", variant="phrase", seed=0, limit=0):
    data = load_set("emojiwsd", language, "test").head(limit)
    scores = np.random.default_rng(seed).random((len(data.items), 10))
    return write_predictions(
        folder,
        f"{run}.{variant}.{language}.test",
        data,
        [i.phrase for i in data.items],
        scores,
        profile=profile,
        variant=variant,
        identity=RandomEncoder().identity(),
        limit=limit,
    )


@pytest.fixture(scope="module")
def stored(emojiwsd, tmp_path_factory):
    """A small but whole demo result with its report; module-wide, never changed in place."""
    folder = tmp_path_factory.mktemp("results")
    for n, language in enumerate(languages("emojiwsd")):
        write_audit(folder / "demo", load_set("emojiwsd", language), profile="demo")
        for variant in ("word", "phrase"):
            store(folder / "demo", language=language, variant=variant, seed=n + len(variant))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VWSD_RESULTS", str(folder))
        report.write_report("demo")
    return folder


@pytest.fixture
def demo(stored, tmp_path, monkeypatch):
    shutil.copytree(stored, tmp_path / "results")
    monkeypatch.setenv("VWSD_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results" / "demo"


def test_predictions_come_back_as_they_went(tmp_path, emojiwsd):
    written = store(tmp_path)
    back = read_predictions(tmp_path / "predictions" / "toy.phrase.en.test.jsonl")
    assert (
        np.array_equal(back.scores, written.scores)
        and np.array_equal(back.ranks, written.ranks)
        and back.items == written.items
    )
    line = json.loads(
        (tmp_path / "predictions" / "toy.phrase.en.test.jsonl").read_text().split("\n")[0]
    )
    assert (
        list(line)
        == ["id", "language", "target", "phrase", "text", "candidates", "gold", "scores", "rank"]
        and len(line["scores"]) == 10
    )


def test_scores_keep_five_digits_and_every_rank_and_tie():
    """Rounding that would swap two scores, or make a tie or end one, leaves that item alone."""
    scores = np.float32(
        [
            [0.51234567, 0.1, -0.00000049, 0.00012345],  # rounded at the fifth digit of 0.5
            [0.300001, 0.300002, 0.2, 0.1],  # would become a tie
            [0.25, 0.25, 0.2, 0.1],  # is one, and stays
        ]
    )
    kept = meaningful(scores)
    assert [str(x) for x in kept[0]] == ["0.51235", "0.1", "0.0", "0.00012"]
    assert np.array_equal(kept[1:], scores[1:]) and kept.dtype == np.float32
    assert [str(x) for x in meaningful(1000 * scores)[0]] == ["512.35", "100.0", "0.0", "0.12"]
    assert np.array_equal(meaningful(np.zeros((2, 3))), np.zeros((2, 3)))
    many = np.random.default_rng(0).normal(size=(2000, 10)).astype(np.float32) ** 9
    for some in (many, many * 1e-30, many * 1e6):
        kept = meaningful(some)
        assert np.array_equal(kept.argsort(1, kind="stable"), some.argsort(1, kind="stable"))
        ties, before = ((x[:, :, None] == x[:, None]).sum() for x in (kept, some))
        assert ties == before and np.abs(kept - some).max() <= 1e-4 * np.abs(some).max()
        assert np.array_equal(meaningful(kept), kept)  # read and written again, the same


def test_separators_inside_a_phrase_split_no_line(tmp_path, emojiwsd):
    data = load_set("emojiwsd", "en", "test").head(3)
    texts = ["a\u2028b", "c\u0085d\u2029", "e"]
    write_predictions(
        tmp_path, "x", data, texts, np.eye(10)[:3], profile="demo", variant="x", identity={}
    )
    assert read_predictions(tmp_path / "predictions" / "x.jsonl").texts == tuple(texts)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.split("\n", 1)[1],
        lambda t: t.replace('"rank": 1}', '"rank": 2}', 1),
        lambda t: t[:-30],
    ],
    ids=["a line gone", "a rank edited", "cut short"],
)
def test_tampered_predictions_are_noticed(tmp_path, emojiwsd, change):
    store(tmp_path)
    path = tmp_path / "predictions" / "toy.phrase.en.test.jsonl"
    path.write_text(change(path.read_text()))
    with pytest.raises(VwsdError, match="toy.phrase.en.test.jsonl"):
        read_predictions(path)


def test_scores_that_are_not_finite_are_refused(tmp_path, emojiwsd):
    data = load_set("emojiwsd", "fa", "dev")
    with pytest.raises(VwsdError, match="not finite"):
        write_predictions(
            tmp_path,
            "x",
            data,
            [""] * len(data.items),
            np.full((len(data.items), 10), np.inf),
            profile="demo",
            variant="x",
            identity={},
        )


def test_rows_carry_everything(tmp_path, emojiwsd):
    hit, mrr = prediction_rows(store(tmp_path))
    assert (
        set(hit) == set(mrr) == set(KEYS)
        and hit["k"] <= hit["n"] == 502
        and hit["ci_low"] < hit["value"] < hit["ci_high"]
    )
    assert len(hit["data_sha256"]) == len(hit["code_sha256"]) == 64 and hit["versions"]["numpy"]


@pytest.mark.parametrize(
    "change", [{"n": None}, {"n": 0}, {"value": float("nan")}, {"ci_low": 99.9}, {"extra": 1}]
)
def test_bad_rows_are_refused(tmp_path, emojiwsd, change):
    row = prediction_rows(store(tmp_path))[0]
    check(row)
    with pytest.raises(VwsdError):
        check({**row, **change})


def test_two_rows_of_one_id_are_refused(tmp_path, emojiwsd):
    row = prediction_rows(store(tmp_path))[0]
    with pytest.raises(VwsdError, match="two rows"):
        to_jsonl([row, row])


def test_deleting_tables_and_figures_and_reporting_gives_the_same_bytes(demo):
    before = {p.relative_to(demo): p.read_bytes() for p in demo.rglob("*") if p.is_file()}
    assert {p.suffix for p in before} == {".png", ".pdf", ".csv", ".md", ".tex", ".json", ".jsonl"}
    for part in ("tables", "figures"):
        shutil.rmtree(demo / part)
    report.write_report("demo")
    assert {p.relative_to(demo): p.read_bytes() for p in demo.rglob("*") if p.is_file()} == before
    assert report.check_report("demo") == []


def test_check_sees_an_edited_table_a_missing_figure_a_left_over_and_other_code(demo):
    (demo / "tables" / "baseline.csv").write_text(
        (demo / "tables" / "baseline.csv").read_text().replace("502", "503")
    )
    (demo / "figures" / "audit.pdf").unlink()
    (demo / "tables" / "old.csv").write_text("x")
    meta = demo / "predictions" / "toy.word.fa.test.meta.json"
    meta.write_text(meta.read_text().replace('"code_sha256": "', '"code_sha256": "0000'))
    found = "\n".join(report.check_report("demo"))
    for words in (
        "tables/baseline.csv: differs",
        "figures/audit.pdf: missing",
        "tables/old.csv: left over",
        "made by other code",
    ):
        assert words in found


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("x 45.53182112818566,1", "x 45.53182112818567,1", True),
        ("x 45.53182112818566,1", "x 45.53182212818566,1", False),
        ("x 45.5,1", "x 45.5,2", False),  # a count is no sum
        ("x 45.5,1", "y 45.5,1", False),
        ("1.5 2.5", "1.5", False),
        ("1e-05 0.1", "1e-05 0.1", True),
    ],
)
def test_last_bits_of_sums_are_no_difference_and_all_else_is(tmp_path, a, b, same):
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text(a)
    second.write_text(b)
    assert report.same_numbers(first, second) == same
    assert not report.same_numbers(first.rename(tmp_path / "a.png"), second)


def test_another_processors_last_bits_are_not_written_into_the_reference(demo, monkeypatch):
    monkeypatch.setenv("VWSD_HOME", str(demo.parents[1]))
    monkeypatch.delenv("VWSD_RESULTS")
    written = []
    monkeypatch.setattr(report, "write_report", lambda profile: written.append(profile))
    assert paths.results_dir("demo") == demo  # nothing was run: it is the reference
    for differences in ([], ["rows.jsonl: differs"]):
        monkeypatch.setattr(report, "differing_files", lambda profile: differences)
        (demo / ".stamps" / "report.json").unlink(missing_ok=True)
        assert report.refresh_report("demo") == (demo, bool(differences))
        assert written == ["demo"] * len(differences)


def test_the_report_says_what_the_last_run_left_out(stored, tmp_path, monkeypatch):
    shutil.copytree(stored, tmp_path / "results")
    monkeypatch.setenv("VWSD_RESULTS", str(tmp_path / "results"))
    folder, written = tmp_path / "results" / "demo", []
    monkeypatch.setattr(report, "write_report", lambda profile: written.append(profile))
    report.refresh_report("demo")
    report.refresh_report("demo")
    assert written == ["demo"]  # the second has nothing new to say
    record = {"cell": 0, "error": "left out", "message": "it would take about 9 days", "log": ""}
    stamps = folder / ".stamps"
    paths.write_text(stamps / "06_polclip.failed.json", json.dumps(record))
    paths.write_text(stamps / "05_saliency.failed.json", json.dumps(record | {"error": "Died"}))
    paths.write_text(stamps / "04_multilingual.failed.json", "[")
    report.refresh_report("demo")
    assert written == ["demo", "demo"]
    facts = json.loads((folder / "report.json").read_text())
    said = report.report_text(Collection("demo", folder), facts, {})
    assert "## Left out\n\n- 06_polclip: it would take about 9 days\n\n## Tables" in said
    assert "05_saliency" not in said.partition("## Tables")[0]
    assert "## Left out" not in (folder / "report.md").read_text()  # made when nothing was


def test_report_of_nothing_says_what_to_do(own_folders):
    with pytest.raises(VwsdError, match="vwsd run --profile demo"):
        report.write_report("demo")


def test_results_of_another_set_are_not_drawn_with_this_one(demo):
    c = Collection("demo", demo)
    with pytest.raises(VwsdError, match="not the one these results were made from"):
        c.data({**c.audits["en.test"], "data_sha256": "other"})


def test_a_stored_file_is_read_once_until_it_changes(demo, monkeypatch):
    path, read = demo / "predictions" / "toy.phrase.en.test.jsonl", []
    monkeypatch.setattr(
        collect,
        "ROWS",
        ((lambda p: read.append(p.name) or read_predictions(p), *collect.ROWS[0][1:]),),
    )
    first = Collection("demo", demo).rows
    assert (
        sorted(read) == sorted(p.name for p in (demo / "predictions").glob("*.jsonl"))
        and Collection("demo", demo).rows == first
    )
    assert len(read) == len(set(read))
    store(demo, language="en", variant="phrase", seed=99)
    again = Collection("demo", demo).rows
    assert read[-1] == path.name and read.count(path.name) == 2 and len(read) == len(set(read)) + 1
    assert (
        again["toy.phrase.en.test/mrr"] != first["toy.phrase.en.test/mrr"]
        and again["toy.word.en.test/mrr"] == first["toy.word.en.test/mrr"]
    )
    meta = path.with_suffix(".meta.json")
    meta.write_text(meta.read_text().replace('"device": "cpu"', '"device": "none"'))
    assert (
        Collection("demo", demo).rows["toy.phrase.en.test/mrr"]["device"] == "none"
        and Collection("demo", demo).predictions["toy.phrase.en.test"].meta["device"] == "none"
    )


def test_under_the_demo_every_claim_of_the_papers_reads_not_run(demo):
    facts = json.loads((demo / "report.json").read_text())
    assert len(facts["claims"]) == len(reported()) and {c["verdict"] for c in facts["claims"]} == {
        "NOT RUN"
    }
    assert all(c["ours"] is None for c in facts["claims"])


def test_demo_captions_name_the_demo(demo):
    for path in (demo / "tables").glob("*.md"):
        assert path.name == "claims.md" or "EmojiWSD; profile demo" in path.read_text()


def test_tables_keep_full_precision_and_round_for_people():
    made = Table(
        "t",
        "A & B",
        (Column("a", "A_1"), Column("v", "V", ".2f"), Column("w", "W", "d")),
        [{"a": "x|y", "v": 1 / 3, "w": None}],
    )
    assert made.csv() == f"a,v,w\nx|y,{1 / 3!r},\n"
    assert "| x\\|y | 0.33 | – |" in made.markdown()
    assert (
        r"x|y & 0.33 & -- \\" in made.latex()
        and r"\caption{A \& B}" in made.latex()
        and r"A\_1" in made.latex()
    )


def test_margin_bins_cover_every_item_once(tmp_path, emojiwsd):
    p = store(tmp_path)
    bins = margin_bins(p)
    assert sum(b["n"] for b in bins) == 502 and sum(b["k"] for b in bins) == (p.ranks == 1).sum()
    assert [b["margin"] for b in bins] == sorted(b["margin"] for b in bins)


# ------------------------------------------------------------------ what the papers report


def test_each_reported_percentage_is_printed_by_its_count_and_no_other():
    for entry in reported():
        if entry["unit"] == "percent":
            assert attainable(entry["value"], entry["n"], entry["decimals"]) == [entry["count"]], (
                entry["id"]
            )


def test_the_reported_gain_is_the_difference_of_its_counts():
    gain = next(e for e in reported() if e["id"] == "clipseg.gain.en")
    by_run = {e["run"]: e["count"] for e in reported() if "run" in e and "against" not in e}
    assert by_run[gain["run"]] - by_run[gain["against"]] == gain["count"] and round(
        100 * gain["count"] / gain["n"], 2
    ) == float(gain["value"])


@pytest.mark.parametrize(
    "value, n, counts",
    [
        ("58.31", 463, [270]),
        ("58.32", 463, [270]),
        ("58.40", 463, []),
        ("32", 200, [64]),
        ("9.5", 200, [19]),
    ],
)
def test_attainable(value, n, counts):
    assert attainable(value, n, 2) == counts


def test_an_unattainable_value_would_be_seen():
    assert attainable("58.35", 463, 2) == []


def test_reported_entries_are_complete_and_unique():
    entries = yaml.safe_load((paths.root() / "results" / "reported.yml").read_text())
    assert len({e["id"] for e in entries}) == len(entries)
    for e in entries:
        assert isinstance(e["value"], str) and {
            "paper",
            "about",
            "unit",
            "notebook",
            "source",
        } <= set(e), e["id"]


def row(k, n=463, limit=0):
    return {"k": k, "n": n, "limit": limit, "value": 100 * k / n, "ci_low": 0.0, "ci_high": 100.0}


@pytest.mark.parametrize(
    "ours, expected",
    [
        (None, "NOT RUN"),
        (row(270), "EXACT"),
        (row(274), "CLOSE"),
        (row(266), "CLOSE"),
        (row(265), "CONSISTENT"),
        (row(248), "DIFFERS, unexplained"),
        (row(27, 50, 50), "PARTIAL"),
        (row(270, limit=463), "PARTIAL"),
    ],
)
def test_verdicts(ours, expected):
    assert verdict(270, 463, ours) == expected


def test_a_difference_that_is_explained_is_named_so():
    assert verdict(270, 463, row(200), explained=True) == "DIFFERS"


def facts(profile="paper", clip=270, lost=20, won=40, limit=0, other_items=False):
    """As much of a Collection as claims ask for: CLIP with `clip` of 463 right; CLIPSeg loses and
    wins so many of them.
    """
    right = {
        "clip-vit-b32.phrase.en.test": np.arange(463) < clip,
        "clipseg-rd64.phrase.en.test": (np.arange(463) >= lost) & (np.arange(463) < clip + won),
    }
    predictions = {
        run: SimpleNamespace(
            ranks=np.where(r, 1, 2),
            meta={"limit": limit, "data_sha256": "b" if other_items and "seg" in run else "a"},
        )
        for run, r in right.items()
    }
    return SimpleNamespace(
        profile=profile,
        audits={},
        predictions=predictions,
        rows={f"{run}/hit@1": row(int(r.sum()), limit=limit) for run, r in right.items()},
    )


def claimed(*arguments, explained="", **named):
    return {c["id"]: c for c in claims(facts(*arguments, **named), explained)}


def test_claims_of_the_paper_profile_are_answered_by_rows():
    found = claimed()
    assert (
        found["clipseg.clip.en"]["verdict"] == "EXACT"
        and found["clipseg.clipseg.en"]["verdict"] == "CLOSE"
        and found["clipseg.clipseg.en"]["ours_k"] == 290
    )
    assert (
        found["clipseg.clipseg.it"]["verdict"] == "NOT RUN"
        and found["polclip.visual"]["verdict"] == "NO REFERENCE"
    )
    assert {c["verdict"] for c in claimed("demo").values()} == {"NOT RUN"}


def test_a_difference_is_claimed_with_its_interval_and_the_word_significant_with_a_test():
    found = claimed()
    gain, word = found["clipseg.gain.en"], found["clipseg.gain.significant"]
    assert (gain["verdict"], gain["off_by"], gain["ours_k"], gain["ours"]) == (
        "CLOSE",
        -3,
        20,
        pytest.approx(100 * 20 / 463),
    )
    assert (gain["ci_low"], gain["ci_high"]) == paired_interval(20, 40, 463) and gain["p"] == word[
        "p"
    ] == mcnemar([1] * 20 + [0] * 40, [0] * 20 + [1] * 40)[2] < 0.05
    assert word["verdict"] == "SUPPORTED"
    assert (
        claimed(lost=60, won=83)["clipseg.gain.en"]["verdict"] == "EXACT"
        and claimed(lost=60, won=83)["clipseg.gain.significant"]["verdict"] == "NOT SUPPORTED"
    )
    assert (
        claimed(lost=40, won=20)["clipseg.gain.significant"]["verdict"] == "NOT SUPPORTED"
    )  # significant, and worse
    assert claimed(lost=40, won=20)["clipseg.gain.en"]["verdict"] == "DIFFERS, unexplained"
    assert (
        claimed(lost=40, won=20, explained="see clipseg.gain.en")["clipseg.gain.en"]["verdict"]
        == "DIFFERS"
    )


def test_differences_of_a_part_or_between_other_items_are_none():
    assert {
        claimed(limit=463)[name]["verdict"]
        for name in ("clipseg.gain.en", "clipseg.gain.significant", "clipseg.clip.en")
    } == {"PARTIAL"}
    assert {
        claimed(other_items=True)[name]["verdict"]
        for name in ("clipseg.gain.en", "clipseg.gain.significant")
    } == {"NOT RUN"}


def test_a_rehearsal_walks_the_path_and_claims_nothing():
    found = claimed("rehearsal")
    assert (
        found["clipseg.clip.en"]["verdict"]
        == found["clipseg.gain.significant"]["verdict"]
        == "REHEARSAL"
        and found["clipseg.clipseg.it"]["verdict"] == "NOT RUN"
    )
    assert not {c["verdict"] for c in found.values()} & {
        "EXACT",
        "CLOSE",
        "CONSISTENT",
        "SUPPORTED",
    }


def test_sizes_of_the_official_files_are_claims_too():
    def verdicts(n, limit=0):
        some = SimpleNamespace(
            profile="paper", rows={}, predictions={}, audits={"en.test": {"n": n, "limit": limit}}
        )
        return {c["id"]: c["verdict"] for c in claims(some)}

    assert verdicts(463)["vwsd.items.en"] == "EXACT" and verdicts(463)["vwsd.items.it"] == "NOT RUN"
    assert (
        verdicts(462)["vwsd.items.en"] == "DIFFERS, unexplained"
        and verdicts(20, 20)["vwsd.items.en"] == "PARTIAL"
    )


# ---------------------------------------------------------------- encoders of one's own, languages
# of one's own


def test_an_encoder_of_ones_own_stands_below_the_registrys_and_displaces_nothing(demo):
    """By name it would come first: `a-clip` before `lite`, as does what notebook 02 was once run
    with.
    """
    for run in ("a-clip", "lite", "clip-vit-b32"):
        for variant in ("word", "phrase"):
            store(demo, run=run, variant=variant, seed=len(run) + len(variant))
    store(demo, run="siglip2-base")  # of notebook 04: no bare word
    c = Collection("demo", demo)
    assert c.baselines == ["lite", "clip-vit-b32", "a-clip", "toy"] and c.baseline == "lite"
    english = [row for row in TABLES["baseline"](c).rows if row["language"] == "English"]
    assert [row["what"] for row in english] == [
        "chance",
        "none: rarest picture",
        "none: most frequent picture",
    ] + ["bare word", "phrase"] * 4
    assert (
        english[3]["k"] == c.rows["lite.word.en.test/hit@1"]["k"]
        and english[-1]["k"] == c.rows["toy.phrase.en.test/hit@1"]["k"]
    )
    pairs = [row for row in TABLES["baseline_paired"](c).rows if row["language"] == "English"]
    assert (
        len(pairs) == 4
        and pairs[2]["only_a"]
        == mcnemar(*(c.predictions[f"a-clip.{v}.en.test"].ranks == 1 for v in ("word", "phrase")))[
            0
        ]
    )
    assert {figure["id"].split(".")[0] for figure in FIGURES["baseline"](c)[1]} == {"lite"}


def test_while_notebook_02_runs_its_own_encoder_is_the_baseline(demo, tmp_path):
    store(demo, run="lite", variant="word")
    store(tmp_path / "staging", run="random", variant="word")
    assert (
        Collection("demo", demo, tmp_path / "staging").baselines == ["random", "lite", "toy"]
        and Collection("demo", demo).baseline == "lite"
    )
    store(demo, run="random", variant="word")  # the control: last of the registry's
    store(demo, run="clip-vit-b32", variant="word")
    assert (
        Collection("demo", demo).baselines == ["lite", "clip-vit-b32", "random", "toy"]
        and Collection("paper", demo).baseline == "clip-vit-b32"
    )
    store(
        tmp_path / "other", run="siglip2-base"
    )  # what another notebook is writing decides nothing
    assert Collection("demo", demo, tmp_path / "other").baseline == "lite"


def test_a_language_without_a_place_is_named_and_not_guessed(demo):
    english = load_set("emojiwsd", "en", "test")
    data = replace(
        english, language="de", items=tuple(replace(item, language="de") for item in english.items)
    )
    scores = np.random.default_rng(0).random((len(data.items), 10))
    write_predictions(
        demo,
        "toy.phrase.de.test",
        data,
        [i.phrase for i in data.items],
        scores,
        profile="demo",
        variant="phrase",
        identity=RandomEncoder().identity(),
    )
    with pytest.raises(VwsdError) as e:
        report.write_report("demo")
    assert "the language 'de' has no name and no place in tables" in str(
        e.value
    ) and "docs/adding-a-language.md" in str(e.value)
