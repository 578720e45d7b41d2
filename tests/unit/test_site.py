"""The site: pages that say what the stored facts say, lead only to what is there, load nothing from
elsewhere and are the same bytes again.
"""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from urllib.parse import unquote

import hostile_outputs
import nbformat
import pytest
import site_tiny
from bs4 import BeautifulSoup

from vwsd_companion import cli, site
from vwsd_companion.facts import collect
from vwsd_companion.facts.predictions import read_predictions, write_predictions
from vwsd_companion.pipeline import owners
from vwsd_companion.report import write_report
from vwsd_companion.site import documents, items
from vwsd_companion.site.pages import ARABIC
from vwsd_companion.views.catalogue import FIGURES, VIEWS
from vwsdlib import paths
from vwsdlib.data.sets import VwsdSet, load_set
from vwsdlib.errors import VwsdError

ROOT = paths.PACKAGE.parent
DASH = "–"


def pages(folder):
    return sorted(folder.rglob("*.html"))


def soup(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def grid(table):
    """Heading -> cell text, row by row."""
    heads = [th.get_text() for th in table.thead("th")]
    return [
        dict(zip(heads, [c.get_text() for c in row(["th", "td"])], strict=True))
        for row in table.tbody("tr")
    ]


def tree(folder):
    return {
        p.relative_to(folder).as_posix(): paths.sha256_file(p)
        for p in folder.rglob("*")
        if p.is_file()
    }


@pytest.fixture
def results(tiny_results, monkeypatch):
    monkeypatch.setenv("VWSD_RESULTS", str(tiny_results))
    return tiny_results / "demo"


# ---------------------------------------------------------------- what the pages say


def spelled(value, form):
    return DASH if value is None else format(value, form)


def test_claims_agree_with_the_report_cell_by_cell(tiny_site, results):
    stored = json.loads((results / "report.json").read_text())["claims"]
    shown = grid(soup(tiny_site / "claims.html").find(id="table-claims"))
    assert len(shown) == len(stored) > 20 and shown[0]["Ours"] == "58.32"
    for claim, row in zip(stored, shown):
        between = (
            DASH if claim["ci_low"] is None else f"{claim['ci_low']:.1f} to {claim['ci_high']:.1f}"
        )
        assert row == {
            "Id": claim["id"],
            "Claim": claim["about"],
            "Reported": claim["reported"],
            "Unit": claim["unit"],
            "k": spelled(claim["count"], "d"),
            "n": spelled(claim["n"], "d"),
            "Our k": spelled(claim["ours_k"], "d"),
            "Ours": spelled(claim["ours"], ".2f"),
            "95 % interval": between,
            "McNemar p": spelled(claim["p"], ".2g"),
            "Off by (items)": spelled(claim["off_by"], "+d"),
            "Verdict": claim["verdict"],
            "Notebook": claim["notebook"],
        }
    assert (tiny_site / "report.json").read_bytes() == (results / "report.json").read_bytes()


def test_every_table_is_there_as_it_is_stored(tiny_site, results):
    names = set(json.loads((results / "report.json").read_text())["tables"]) - {"claims"}
    assert names and {p.stem for p in (tiny_site / "tables").glob("*.html")} == names | {"index"}
    for name in names:
        page = soup(tiny_site / "tables" / f"{name}.html")
        for kind, suffix in (("csv", "csv"), ("latex", "tex")):
            stored = (results / "tables" / f"{name}.{suffix}").read_text()
            assert (
                page.find(id=kind).get_text() == "\n" + stored
                and (tiny_site / "tables" / f"{name}.{suffix}").read_text() == stored
            )
        lines = [
            line
            for line in (results / "tables" / f"{name}.md").read_text().splitlines()
            if line.startswith("|")
        ]
        assert [list(row.values()) for row in grid_lists(page)] == [
            [c.strip() for c in line.strip("|").split("|")] for line in lines[2:]
        ]


def grid_lists(page):
    return [
        dict(enumerate(c.get_text() for c in row(["th", "td"])))
        for row in page.find("table").tbody("tr")
    ]


@pytest.mark.parametrize("language", site_tiny.SIZES)
def test_an_items_page_says_what_the_runs_answered(tiny_site, results, language):
    runs = [
        read_predictions(path)
        for path in sorted((results / "predictions").glob(f"*.{language}.test.jsonl"))
    ]
    assert {int(rank) for p in runs for rank in p.ranks} == {1, 2, 3}
    for n, item in enumerate(runs[0].items):
        page = soup(tiny_site / "items" / f"emojiwsd.{language}.test" / f"{item.id}.html")
        rows = page.find(id="table-answers").tbody("tr")
        assert len(rows) == len(runs) == 2
        for p, row in zip(runs, rows):
            run, text, answer, rank, pick, *scores = [c.get_text() for c in row(["th", "td"])]
            best = max(range(10), key=lambda i: p.scores[n][i])
            assert (run, text, int(rank), int(pick)) == (
                p.run,
                p.texts[n],
                p.ranks[n],
                best + 1,
            ) and scores == [f"{s:.3f}" for s in p.scores[n]]
            assert answer == ("✓ right" if item.candidates[best] == item.gold else "✗ wrong")
        shown = page.select(".candidates li")
        assert [c.select_one(".name").get_text("|").split("|")[0] for c in shown] == list(
            item.candidates
        ) and page.h1.get_text() == item.phrase
        assert [("gold" in c.get("class", []), "✓ gold" in c.get_text()) for c in shown] == [
            (name == item.gold,) * 2 for name in item.candidates
        ]
        assert (
            page.find(id="table-answers").thead("th")[5 + item.gold_index].get_text()
            == f"{item.gold_index + 1} ✓"
        )


def test_marks_are_by_run_and_a_run_that_was_not_asked_says_so(results):
    english = items.sets_of(collect.Collection("demo", results))[0]
    first = next(iter(english.items))
    assert english.marks(first) == "".join(str(int(p.ranks[0] == 1)) for p in english.runs)
    shorter = items.ItemSet(
        *("emojiwsd", "en", "test"),
        (
            english.runs[0],
            *[
                p.__class__(p.run, p.meta, p.items[1:], p.texts[1:], p.scores[1:], p.ranks[1:])
                for p in english.runs[1:]
            ],
        ),
        None,
        "",
    )
    assert (
        shorter.marks(first) == english.marks(first)[0] + "-"
        and len(shorter.answers(shorter.items[first]).rows) == 1
    )


def test_every_item_is_reached_from_its_overview(tiny_site):
    for language, size in site_tiny.SIZES.items():
        folder = tiny_site / "items" / f"emojiwsd.{language}.test"
        linked = {a["href"] for a in soup(folder / "index.html").find(id="items")("a")}
        assert (
            linked == {p.name for p in folder.glob("*.html")} - {"index.html"}
            and len(linked) == size
        )
        assert f"{folder.name}/index.html" in {
            a["href"] for a in soup(tiny_site / "items" / "index.html").main("a")
        }


def test_farsi_runs_from_right_to_left(tiny_site):
    for path in (tiny_site / "items" / "emojiwsd.fa.test").glob("*.html"):
        for tag in soup(path)(["bdi", "dd", "td", "th"]):
            if ARABIC.search(tag.get_text()):
                assert (tag.get("lang"), tag.get("dir")) == ("fa", "rtl"), (path.name, tag)
        assert soup(path).main.find(attrs={"lang": "fa", "dir": "rtl"})
    assert not soup(tiny_site / "items" / "emojiwsd.en.test" / "en.test.0.html").find(
        attrs={"dir": "rtl"}
    )


def test_the_demo_is_labelled_on_every_page_and_no_claim_of_a_paper_is_answered_by_it(tiny_site):
    for path in pages(tiny_site):
        assert (
            "They are not the papers' experiments" in soup(path).footer.get_text()
            and soup(path).select_one(".badge").get_text() == "profile demo"
        )


def test_every_row_of_the_stored_demo_has_a_command():
    planned, stored = (
        owners("demo"),
        [
            json.loads(line)
            for line in (ROOT / "results" / "demo" / "rows.jsonl").read_text().splitlines()
        ],
    )
    known = {path for n in planned for path in n["outputs"]}
    assert len(stored) > 200 and not [
        row["id"] for row in stored if site._file_of(row) not in known
    ]


def test_a_row_names_the_notebook_that_owns_it(tiny_site):
    commands = {
        row["Row"]: row["Command"]
        for row in grid(soup(tiny_site / "again.html").find(id="table-again"))
    }
    assert commands["chance.en.test/hit@1"] == "vwsd run --profile demo --only 01_data"
    assert commands["lite.phrase.fa.test/mrr"] == "vwsd run --profile demo --only 02_clip_baseline"


# ---------------------------------------------------------------- where the pages lead, what they
# load


def loads(html):
    """Addresses from which a page would load something."""
    page = BeautifulSoup(html, "html.parser")
    found = [
        tag[name]
        for tag in page(True)
        for name in ("src", "srcset", "data", "poster")
        if tag.has_attr(name) and tag.name != "a"
    ]
    found += [tag["href"] for tag in page("link")] + re.findall(
        r"url\(([^)]*)\)|@import\s+([^;]*)", html
    )
    return [address if isinstance(address, str) else "".join(address) for address in found]


def test_nothing_is_loaded_from_elsewhere(tiny_site):
    assert len(pages(tiny_site)) > 20
    for path in (*pages(tiny_site), tiny_site / "site.css"):
        for address in loads(path.read_text(encoding="utf-8")):
            assert address.startswith("data:") or not re.match(r"\W*(\w+:|//)", address), (
                path.name,
                address,
            )
    assert (
        "fetch(" not in (tiny_site / "site.js").read_text()
        and "http" not in (tiny_site / "site.js").read_text()
    )


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://x/y.js"></script>',
        '<link href="//x/y.css">',
        "<style>@import 'https://x'</style>",
        '<p style="background: url(https://x/y)">',
    ],
)
def test_what_is_loaded_from_elsewhere_would_be_seen(html):
    assert any(re.match(r"\W*(\w+:|//)", address) for address in loads(html))


def test_every_link_leads_to_something(tiny_site):
    seen, targets = (
        0,
        {path: {tag["id"] for tag in soup(path)(id=True)} for path in pages(tiny_site)},
    )
    for path in targets:
        page = soup(path)
        for tag in page(["a", "img", "link", "script"]):
            address = tag.get("href") or tag.get("src")
            if address.startswith(("data:", "https://")):
                assert tag.name == "a" or address.startswith("data:")
                continue
            name, _, fragment = address.partition("#")
            there = (path.parent / unquote(name)).resolve() if name else path
            assert there.is_file() and (not fragment or fragment in targets[there]), (
                path.name,
                address,
            )
            seen += 1
        for tag in page(attrs={"aria-labelledby": True}):
            assert tag["aria-labelledby"] in targets[path], path.name
    assert seen > 500


def test_every_page_has_one_heading_landmarks_and_tables_that_can_be_read_aloud(tiny_site):
    for path in pages(tiny_site):
        page = soup(path)
        assert (
            len(page("h1")) == 1
            and page.html["lang"] == "en"
            and all(len(page(name)) == 1 for name in ("main", "header", "footer", "title"))
        ), path.name
        assert page.find("nav", attrs={"aria-label": "Site"}) and all(
            img.has_attr("alt") for img in page("img")
        )
        assert len(page(attrs={"aria-current": "page"})) == 1, path.name
        for table in page.select("table.sortable"):
            assert table.caption.get_text() and {th["scope"] for th in table.thead("th")} == {"col"}
            assert {row.th["scope"] for row in table.tbody("tr")} == {"row"}
        ids = [tag["id"] for tag in page(id=True)]
        assert len(ids) == len(set(ids)), path.name


def test_figures_have_their_pdf_and_those_with_drawings_their_credit(tiny_site, results):
    page, names = (
        soup(tiny_site / "figures.html"),
        json.loads((results / "report.json").read_text())["figures"],
    )
    assert names and [li["id"] for li in page.select(".figures li")] == names
    for li in page.select(".figures li"):
        assert {f"figures/{li['id']}.pdf", f"figures/{li['id']}.png"} <= {
            a["href"] for a in li("a")
        } and li.img["alt"].endswith((".", "?"))
        assert ("OpenMoji" in li.get_text()) == VIEWS[li["id"]].pictures


def test_a_figure_credits_pictures_where_its_view_says_that_it_shows_some(results):
    c = collect.Collection("demo", results)
    drawn = {name: draw(c) for name, draw in FIGURES.items()}
    credits = {
        name: "OpenMoji" in made[0].get_supxlabel().replace("\n", " ")
        for name, made in drawn.items()
        if made
    }
    assert len(credits) > 5 and set(credits.values()) == {True, False}
    assert credits == {name: VIEWS[name].pictures for name in credits}


def test_notebooks_are_shown_without_what_runs_or_loads(tiny_site):
    page = soup(tiny_site / "notebooks" / "01_data.html").article
    assert (
        page.h1.get_text() == "1 · The data"
        and not page(["script", "style", "link", "img"])
        and page.find("table").get("onclick") is None
    )
    assert {a.get_text(): a["href"] for a in page("a")} == {
        "the next": "02_clip_baseline.html",
        "a page": "https://example.org/page",
    }
    assert (
        "a file" in page.get_text()
        and "a picture" in page.get_text()
        and page.find("table").parent["tabindex"] == "0"
    )
    assert (
        soup(tiny_site / "notebooks" / "02_clip_baseline.html").h1.get_text() == "02_clip_baseline"
    )


def test_deviations_are_rendered(tiny_site):
    page = soup(tiny_site / "deviations.html").article
    assert (
        len(page("table"))
        == (ROOT / "docs" / "deviations.md").read_text().count("|---|---|---|\n")
        > 3
    )
    assert "<b>" not in documents.markdown("<b>x</b>")


# ---------------------------------------------------------------- the same bytes, missing pictures,
# errors


def test_the_same_facts_give_the_same_bytes(tiny_site, results, tmp_path):
    again = tmp_path / "pages"  # by another process, whose sets have another order
    code = (
        "from vwsd_companion.pipeline import owners; from vwsd_companion.site import write_site;"
        f" write_site('demo', {str(again)!r}, owners('demo'))"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert tree(again) == tree(tiny_site)
    (again / "stray.html").write_text("x")
    assert tree(site.write_site("demo", again, owners("demo"))) == tree(tiny_site) and not [
        p for p in tmp_path.iterdir() if p != again
    ]


def test_a_picture_is_written_once_and_small(tiny_site, results):
    names = {
        name
        for s in items.sets_of(collect.Collection("demo", results))
        for i in s.items.values()
        for name in i.candidates
    }
    distinct = {paths.sha256_file(load_set("emojiwsd").path(name)) for name in names}
    assert {p.stem for p in (tiny_site / "pictures").iterdir()} == {sha[:20] for sha in distinct}
    assert max(p.stat().st_size for p in (tiny_site / "pictures").iterdir()) < 12_000


def test_missing_and_broken_pictures_are_said(results, tmp_path, monkeypatch):
    item = load_set("emojiwsd", "en", "test").items[0]
    gone, broken = item.candidates[:2]
    (tmp_path / "broken.png").write_text("no picture")
    usual = VwsdSet.path
    monkeypatch.setattr(
        VwsdSet,
        "path",
        lambda self, name: (
            {gone: tmp_path / "gone.png", broken: tmp_path / "broken.png"}.get(name)
            or usual(self, name)
        ),
    )
    page = soup(
        site.write_site("demo", tmp_path / "pages")
        / "items"
        / "emojiwsd.en.test"
        / f"{item.id}.html"
    )
    shown = page.select(".candidates li")
    assert [bool(c.img) for c in shown] == [False] * 2 + [True] * 8 and [
        c.select_one(".absent").get_text() for c in shown[:2]
    ] == ["missing"] * 2


def test_a_set_that_is_not_at_hand_shows_names_and_says_so(results, tmp_path, monkeypatch):
    def absent(*_):
        raise VwsdError(
            "the pictures are not here", where=tmp_path, remedy="Run `vwsd fetch vwsd`."
        )

    monkeypatch.setattr(collect, "load_set", absent)
    made = site.write_site("demo", tmp_path / "pages")
    page = soup(made / "items" / "emojiwsd.fa.test" / "fa.test.0.html")
    assert (
        "vwsd fetch vwsd" in page.select_one(".missing").get_text()
        and not page("img")
        and len(page.select(".absent")) == 10
    )
    assert not any((made / "pictures").iterdir()) and str(tmp_path) not in "".join(
        p.read_text() for p in pages(made)
    )


def test_the_slowest_cells_are_named_with_the_notebooks(results, tmp_path):
    lines = ["  02_clip_baseline, cell 2  35.7 s  from x import <y>", "  01_data, cell 1  0.5 s  z"]
    made = site.write_site("demo", tmp_path / "pages", slowest=lines)
    page = soup(made / "notebooks" / "index.html")
    assert [its.get_text() for its in page.select("ol.list code")] == [
        line.strip() for line in lines
    ]
    assert not soup(site.write_site("demo", tmp_path / "none") / "notebooks" / "index.html").select(
        "ol.list"
    )


def test_a_set_without_any_picture_says_how_to_get_them(results, tmp_path, monkeypatch):
    monkeypatch.setattr(VwsdSet, "path", lambda self, name: tmp_path / "nowhere" / name)
    made = site.write_site("demo", tmp_path / "pages")
    page = soup(made / "items" / "emojiwsd.en.test" / "en.test.0.html")
    assert "vwsd doctor --profile demo" in page.select_one(".missing").get_text() and {
        a.get_text() for a in page.select(".absent")
    } == {"not at hand"}
    assert [
        td.get_text() for td in soup(made / "items" / "index.html").select("tbody td:last-child")
    ] == ["not at hand"] * len(site_tiny.SIZES)


def test_without_a_report_there_is_no_site(own_folders):
    with pytest.raises(VwsdError, match="no report.*vwsd report --profile demo"):
        site.write_site("demo")
    assert not list(own_folders.rglob("*.html"))


def test_a_figure_that_is_gone_is_named(results, tmp_path, monkeypatch):
    shutil.copytree(results, tmp_path / "demo")
    monkeypatch.setenv("VWSD_RESULTS", str(tmp_path))
    (tmp_path / "demo" / "figures" / "audit.pdf").unlink()
    with pytest.raises(
        VwsdError, match="figures/audit.pdf of the report is missing.*vwsd report --profile demo"
    ):
        site.write_site("demo")


def test_a_folder_of_other_things_is_left_alone(results, tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    for target in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(VwsdError, match="left alone.*--out"):
            site.write_site("demo", target)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), VwsdError("two runs differ")]
)
def test_a_failure_leaves_the_earlier_site(results, tmp_path, monkeypatch, error):
    target = tmp_path / "pages"
    target.mkdir()
    (target / site.MARK).write_text("demo\n")

    def fail(*_):
        raise error

    monkeypatch.setattr(items, "write_item_pages", fail)
    with pytest.raises(VwsdError, match="No space left|two runs differ"):
        site.write_site("demo", target)
    assert [p.name for p in target.iterdir()] == [site.MARK] and [
        p.name for p in tmp_path.iterdir()
    ] == ["pages"]


def test_runs_that_know_an_item_differently_are_named(results):
    a, b = items.sets_of(collect.Collection("demo", results))[0].runs
    other = b.__class__(
        b.run,
        b.meta,
        (b.items[0].__class__(**{**vars(b.items[0]), "phrase": "other"}), *b.items[1:]),
        b.texts,
        b.scores,
        b.ranks,
    )
    with pytest.raises(VwsdError, match=rf"en\.test\.0.*{re.escape(b.run)}"):
        items.ItemSet("emojiwsd", "en", "test", (a, other), None, "").items


def test_a_broken_notebook_is_named(tmp_path):
    (tmp_path / "01_data.ipynb").write_text("{")
    with pytest.raises(VwsdError, match="01_data.ipynb"):
        documents.rendered(tmp_path / "01_data.ipynb", {})


def test_the_command_writes_and_refuses(results, tmp_path, monkeypatch, capsys):
    def unable(profile):
        raise VwsdError("the text is not here")

    monkeypatch.setattr("vwsd_companion.report.refresh_report", lambda profile: (results, False))
    assert cli.main(["report", "--html", "--out", str(tmp_path / "pages")]) == 0
    assert (
        Path(capsys.readouterr().out.strip()) == tmp_path / "pages" / "index.html"
        and (tmp_path / "pages" / "index.html").is_file()
    )
    monkeypatch.setattr("vwsd_companion.report.refresh_report", unable)
    assert (
        cli.main(["report", "--html", "--out", str(tmp_path / "pages")]) == 0
        and "as it is stored" in capsys.readouterr().err
    )
    monkeypatch.setenv("VWSD_RESULTS", str(tmp_path / "none"))
    assert (
        cli.main(["report", "--html"]) == 2
        and "the text is not here" in capsys.readouterr().err
        and not (tmp_path / "none").exists()
    )
    for wrong in (["--check", "--html"], ["--out", str(tmp_path)]):
        assert cli.main(["report", *wrong]) == 2 and "--html" in capsys.readouterr().err


def test_templates_and_static_files_are_packaged():
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]["vwsd_companion.site"]
    files = [
        p.relative_to(site.HERE).as_posix()
        for p in site.HERE.rglob("*")
        if p.is_file() and p.suffix not in {".py", ".pyc"}
    ]
    assert len(files) > 10 and not [
        name for name in files if not any(fnmatch.fnmatch(name, glob) for glob in globs)
    ]


# ---------------------------------------------------------------- hostile outputs, without a
# browser (with one: tests/browser)

RUNS = re.compile(
    r"<(script|style|iframe|object|embed|form|svg|math|video|audio|base|meta|link|input|button|template|noscript)\b",
    re.I,
)


def stays_harmless(html, pages=()):
    """Nothing in the HTML runs, loads, or leads anywhere but to the web or to one of `pages`."""
    page = BeautifulSoup(html, "html.parser")
    assert not RUNS.search(html), html
    for tag in page(True):
        for name, value in tag.attrs.items():
            assert not name.startswith("on") and name not in {
                "id",
                "srcset",
                "background",
                "ping",
                "formaction",
                "target",
                "download",
                "action",
            }, (name, html)
            assert (
                "evil.invalid" not in str(value) or name == "href" and value.startswith("https://")
            ), html
            assert "javascript" not in str(value).lower(), html
        if tag.name == "img":
            assert re.match("data:image/(png|jpeg|gif|webp);base64,", tag["src"]), html
        if tag.name == "a":
            assert (
                tag["href"] in pages
                or tag["href"].startswith("https://")
                and tag["rel"] == ["noopener", "noreferrer"]
            ), html
        assert not re.search(r"url|position|image|@|\\", tag.get("style", "")), html
    return page


@pytest.mark.parametrize(
    "kind, html", hostile_outputs.PAYLOADS, ids=[kind for kind, _ in hostile_outputs.PAYLOADS]
)
def test_a_hostile_output_is_made_harmless(kind, html):
    pages = {"01_data.ipynb": "01_data.html"}
    stays_harmless(documents.tame(documents.inlined(html), pages), pages.values())
    stays_harmless(documents.tame(html, pages), pages.values())


def test_a_notebook_of_hostile_outputs_shows_every_honest_cell(tmp_path):
    path = tmp_path / "x.ipynb"
    nbformat.write(hostile_outputs.notebook(), path)
    title, html = documents.rendered(path, {})
    page = stays_harmless(html)
    shown = page.get_text()
    missing = [n for n in range(len(hostile_outputs.PAYLOADS)) if f"still here {n}" not in shown]
    assert missing == [] and len(hostile_outputs.PAYLOADS) > 40
    for words in (
        "script as text",
        "drawing as text",
        "widget as text",
        "diagram as text",
        "$x$ <img src=x",
        "Markdown link",
    ):
        assert words in shown, words
    assert title.startswith("Hostile <img")


def test_the_looks_of_honest_tables_and_pictures_stay():
    dots = "data:image/png;base64,iVBORw0KGgo="
    honest = (
        '<style type="text/css">#T_a_row0_col0, #T_a_row1_col0 {background-color: #ff0000; color:'
        " white; position: fixed;}\n@media print {#T_a_row1_col0 {color: blue}} .dataframe"
        ' th:only-of-type {text-align: right} td:hover {color: red}</style><table id="T_a"'
        ' class="dataframe" border="1"><thead><tr><th colspan="2">x &amp;'
        ' y</th></tr></thead><tbody><tr><td id="T_a_row0_col0"'
        ' style="text-align:left">1</td></tr><tr><td id="T_a_row1_col0"'
        f' dir="auto">ذهب</td></tr></tbody></table><img src="{dots}" alt="dots" width="3"><a'
        ' href="https://example.org/x">page</a>'
    )
    page = BeautifulSoup(documents.tame(documents.inlined(honest), {}), "html.parser")
    first, second = page("td")
    assert (
        first["style"] == "background-color:#ff0000;color:white;text-align:left"
        and second["style"] == "background-color:#ff0000;color:white"
    )
    assert (
        page.th["style"] == "text-align:right"
        and page.th["colspan"] == "2"
        and page.th["scope"] == "col"
        and page.th.get_text() == "x & y"
    )
    assert (
        page.table["class"] == ["dataframe"]
        and second["dir"] == "auto"
        and (page.img["src"], page.img["alt"], page.img["width"]) == (dots, "dots", "3")
    )


def test_a_styled_table_of_pandas_keeps_its_colours():
    import pandas as pd

    styled = pd.DataFrame({"a": [1, 2], "b": [3, 4]}).style.highlight_max(color="yellow")
    page = BeautifulSoup(documents.tame(documents.inlined(styled.to_html()), {}), "html.parser")
    assert [cell.get("style") for cell in page("td")] == [
        None,
        None,
        "background-color:yellow",
        "background-color:yellow",
    ]


def test_every_page_says_what_it_may_do(tiny_site):
    for path in pages(tiny_site):
        policy = soup(path).find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
        assert "default-src 'none'" in policy and not re.search(r"script-src[^;]*unsafe", policy), (
            path.name
        )
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<[^>]*\son\w+\s*=", text) and text.count("<script") == 1, path.name


def test_names_and_texts_of_facts_are_text_on_every_page(tiny_results, tmp_path, monkeypatch):
    """Markup in a phrase, a candidate, a text, a run's model, a notebook's title: shown as it is
    written.
    """
    shutil.copytree(tiny_results, tmp_path / "r")
    monkeypatch.setenv("VWSD_RESULTS", str(tmp_path / "r"))
    folder = tmp_path / "r" / "demo"
    own = load_set("emojiwsd", "en", "test").head(6)
    bad = '"><img src=x onerror=alert(1)>'
    renamed = [
        item.__class__(
            **{**vars(item), "id": f"a'b#{n}?x=javascript:1", "phrase": f"{bad}{n}", "target": bad}
        )
        for n, item in enumerate(own.items)
    ]
    data = own.__class__(**{**vars(own), "items": tuple(renamed)})
    for path in (folder / "predictions").glob("*.en.*"):
        path.unlink()
    identity = {
        "model": bad,
        "revision": bad,
        "weights_sha256": bad,
        "processor": bad,
        "image_variant": bad,
        "dtype": bad,
        "device": bad,
    }
    write_predictions(
        folder,
        "lite.word.en.test",
        data,
        [bad] * 6,
        site_tiny.scored(data.items, 1),
        profile="demo",
        variant="word",
        identity=identity,
    )
    write_report("demo")
    made = site.write_site("demo", tmp_path / "pages")
    for path in pages(made):
        page = soup(path)
        assert not [
            tag for tag in page(True) if any(name.startswith("on") for name in tag.attrs)
        ], path.name
    page = soup(made / "items" / "emojiwsd.en.test" / f"{renamed[0].id}.html")
    assert page.h1.get_text() == renamed[0].phrase
    links = [
        a["href"]
        for a in soup(made / "items" / "emojiwsd.en.test" / "index.html").find(id="items")("a")
    ]
    assert [unquote(link) for link in links] == [f"{item.id}.html" for item in renamed] and not [
        x for x in links if ":" in x or "?" in x or "#" in x
    ]


# ---------------------------------------------------------------- kills


def test_kills_leave_nothing_after_the_next_run(results, tmp_path, monkeypatch):
    """A site killed while its pages are written; the next run removes what was left, and the site
    is whole.
    """
    shutil.copytree(results.parent, tmp_path / "r")
    folder = tmp_path / "r" / "demo"
    environment = {**os.environ, "VWSD_RESULTS": str(tmp_path / "r")}
    command = [
        sys.executable,
        "-c",
        "from vwsd_companion.site import write_site; write_site('demo')",
    ]
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, env=environment)
        while process.poll() is None and not list(folder.glob(".site.*.staging/new/items/*")):
            time.sleep(0.01)
        process.kill()
        assert (
            process.wait() == -9
            and len([p for p in folder.iterdir() if p.name.startswith(".site")]) == 1
        )
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert not [
        p
        for p in folder.rglob("*")
        if p.name.startswith(".") and p.name not in {".stamps", site.MARK}
    ]
    assert (folder / "site" / "index.html").is_file()


def test_output_that_is_nested_without_end_is_replaced_in_time():
    from vwsd_companion.site.safe_html import inlined, safe

    selector = ":not(" * 3000 + "p" + ")" * 3000
    assert "fine" in safe(inlined(f"<style>{selector}{{color:red}}</style><p>fine</p>"), {})
    assert "nested too deeply" in safe(inlined("<div>" * 200_000 + "x"), {})
    honest = "<table>" + "<tr><td>1</td><td><br>2</td></tr>" * 2000 + "</table>"
    assert safe(inlined(honest), {}).count("<td>") == 4000
