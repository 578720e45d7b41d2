"""The site: one folder of static pages that opens from disk and asks no server for anything, made
of one profile's stored facts and its report.

Pages are jinja2 templates beside this file. What they show stands in report.json, the tables, the
figures, the predictions and the executed notebooks already; nothing is measured here. No clock goes
into a page, so that the same facts give the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from vwsdlib import paths, schema
from vwsdlib.errors import VwsdError

from ..facts.collect import Collection
from ..facts.shapes import shape
from ..report import deviations, made_of, scope
from ..views.catalogue import TABLES, VIEWS
from ..views.tables import TOLD, Column, Table, claims_table, columns_of, write_table
from . import documents, items
from .pages import HERE, Site

MARK = ".vwsd-site"  # in a folder that this module wrote and may replace
LINKED = ("report.json", "rows.jsonl")
DRAWN = (".png", ".pdf", ".json")  # files of a figure
RULES = {"chance", "rarest", "most_frequent"}  # variants of rows that come from an audit
NO_DEVIATION = "# Deviations\n\nNone is recorded."


def write_site(
    profile: str,
    target: Path | None = None,
    notebooks: Sequence[dict] = (),
    slowest: Sequence[str] = (),
) -> Path:
    """Write the site of a profile's report (default: results/<profile>/site), in place of an
    earlier one; returns its folder.

    notebooks: what the pipeline says of each notebook (`pipeline.owners`: name, about, outputs),
    for the commands that make a row again. slowest: lines that name the cells which took longest
    (`runner.slowest`); no stored fact, so they stand on no page but that of the notebooks. Raises
    VwsdError where there is no report yet, where the folder holds something else, and where it
    cannot be written.
    """
    source = paths.results_dir(profile)
    target = Path(target or source / "site").absolute()
    c, facts = Collection(profile, source), _report(profile, source)
    common = {
        "profile": profile,
        "scope": documents.inline(scope(c)),
        "facts": facts,
        "slowest": slowest,
    }
    with paths.staging_folder(target, MARK, "site") as folder:
        for path in (*sorted((HERE / "static").iterdir()), *(source / name for name in LINKED)):
            shutil.copyfile(path, folder / path.name)
        _write_pages(Site(folder, common), c, source, notebooks)
    return target


def _write_pages(site: Site, c: Collection, source: Path, notebooks: Sequence[dict]) -> None:
    """All pages of the site, with the pictures and the files that they show."""
    facts, sets = site.common["facts"], items.sets_of(c)
    tables = _write_tables(site, c, facts)
    _write_figures(site, source, facts, sorted({s.data.credit for s in sets if s.data}))
    items.write_item_pages(site, sets)
    about = {notebook["name"]: notebook["about"] for notebook in notebooks}
    written = documents.write_notebooks(site, source / "notebooks", about)
    body = documents.markdown(deviations() or NO_DEVIATION)
    site.page("deviations.html", "document", "Deviations", body=body)
    site.page("provenance.html", "provenance", "Provenance")
    rows = _again(c, notebooks)
    site.page("again.html", "again", "Run again", notebooks=notebooks, rows=rows)
    verdicts = [claim["verdict"] for claim in facts["claims"]]
    site.page(
        "index.html",
        "index",
        "A reproducible companion for visual word sense disambiguation",
        baseline=tables.get("baseline"),
        sets=sets,
        verdicts={v: verdicts.count(v) for v in facts["verdicts"] if v in verdicts},
        notebooks=written,
    )


def _report(profile: str, source: Path) -> dict:
    """report.json, where all that it speaks of is there."""
    remedy, path = f"Run `vwsd report --profile {profile}` first.", source / "report.json"
    if not path.is_file():
        raise VwsdError("there is no report that could be shown", where=path, remedy=remedy)
    facts = schema.read_json(path, shape("report"), "report", remedy).model_dump()
    wanted = list(LINKED)
    for name in facts["figures"]:
        if name not in VIEWS or not VIEWS[name].figure:
            what = f"the report speaks of a figure '{name}', and there is none"
            raise VwsdError(what, where=path, remedy=remedy)
        wanted += [f"figures/{name}{suffix}" for suffix in DRAWN]
    for name in wanted:
        if not (source / name).is_file():
            raise VwsdError(f"{name} of the report is missing", where=source, remedy=remedy)
    return facts


def _write_tables(site: Site, c: Collection, facts: dict) -> dict[str, Table]:
    """A page for each table of the report, with its CSV and LaTeX; the claims with their ids."""
    stated, tables = claims_table(facts["claims"]), {}
    for name in facts["tables"]:
        make = TABLES.get(name)
        made = made_of(f"the table '{name}'", c, lambda make=make: make(c)) if make else None
        if made:
            tables[name] = made
    for made in (*tables.values(), stated):
        write_table(made, site.folder)
    for name, made in tables.items():
        site.page(f"tables/{name}.html", "table", made.caption, table=made)
    site.page("tables/index.html", "tables", "Tables", tables=tables)
    columns = (Column("id", "Id"), *stated.columns)
    with_ids = Table(stated.name, stated.caption, columns, stated.rows)
    site.page("claims.html", "claims", "Claims", table=with_ids, stated=stated)
    return tables


def _write_figures(site: Site, source: Path, facts: dict, credits: list[str]) -> None:
    """The figures with their PDF, the numbers drawn and what they show."""
    target, figures = site.folder / "figures", []
    target.mkdir()
    for name in facts["figures"]:
        for suffix in DRAWN:
            shutil.copyfile(source / "figures" / f"{name}{suffix}", target / f"{name}{suffix}")
        view = VIEWS[name]
        credit = " ".join(credits) if view.pictures else ""
        figures.append({"name": name, "about": view.about, "credit": credit})
    site.page("figures.html", "figures", "Figures", figures=figures)


def _again(c: Collection, notebooks: Sequence[dict]) -> Table:
    """Every row with the notebook that owns it and the command that makes it again; a run of other
    settings has no owner in the plan."""
    owners = {path: notebook["name"] for notebook in notebooks for path in notebook["outputs"]}
    rows = []
    for row in made_of("the rows", c, c.rows.values):
        name = owners.get(_file_of(row))
        command = f"vwsd run --profile {c.profile} --only {name}" if name else None
        rows.append({**row, "notebook": name, "command": command})
    rows.sort(key=lambda row: row["id"])
    return Table("again", TOLD["again"]["caption"], columns_of(TOLD["again"]["columns"]), rows)


def _file_of(row: dict) -> str:
    """The stored fact that a row was counted from, below results/<profile>/."""
    if row["variant"] in RULES:
        return f"audit/{row['language']}.{row['split']}.json"
    kind = {"saliency": "measured/saliency_truth.jsonl", "wsd": "measured/wsd_answers.jsonl"}
    return kind.get(row["id"].split(".")[0], f"predictions/{row['id'].rsplit('/', 1)[0]}.jsonl")
