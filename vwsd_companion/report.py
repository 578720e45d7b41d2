"""The report: rows, tables, figures, report.md and report.json of one profile, made again from
stored facts without a model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from vwsdlib import paths
from vwsdlib.data.sets import SETS, set_of
from vwsdlib.errors import VwsdError
from vwsdlib.kept import digest

from .facts.code import other_code, project_sha256
from .facts.collect import Collection
from .facts.numbers import to_jsonl
from .facts.reported import VERDICTS, claims, entries
from .notebook import LEFT_OUT
from .views.catalogue import FIGURES, TABLES
from .views.figures import write_figure
from .views.polclip import SCORES, trained_as, trained_runs
from .views.tables import Table, claims_table, write_table

MADE_BY = (
    "code_sha256",
    "model",
    "revision",
    "weights_sha256",
    "processor",
    "image_variant",
    "dtype",
    "device",
    "limit",
)
AGAIN = "A stored fact is damaged or incomplete: run the notebook that makes it again with --force."
Value = TypeVar("Value")
DERIVED = ("tables", "figures", "rows.jsonl", "report.md", "report.json")


def deviations() -> str:
    """Text of docs/deviations.md, "" where there is none."""
    path = paths.root() / "docs" / "deviations.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def write_report(profile: str, target: Path | None = None) -> Path:
    """Make everything derived again below `target` (default: the profile's own folder); returns
    that folder.

    Raises VwsdError where there are no stored facts.
    """
    source = _results(profile)
    target = Path(target or source)
    c = Collection(profile, source)
    if not c.predictions and not c.audits:
        raise VwsdError(
            "nothing is stored for this profile",
            where=source,
            remedy=f"Run `vwsd run --profile {profile}` first.",
        )
    rows = made_of("the rows", c, lambda: c.rows)
    paths.write_text(target / "rows.jsonl", to_jsonl(rows.values()))
    tables = {}
    for name, make in TABLES.items():
        if (table := made_of(f"the table '{name}'", c, lambda make=make: make(c))) is not None:
            tables[name] = table
    stated = made_of("the claims", c, lambda: claims(c, deviations()))
    for made in (*tables.values(), claims_table(stated)):
        write_table(made, target)
    figures = []
    for name, draw in FIGURES.items():
        if (drawn := made_of(f"the figure '{name}'", c, lambda draw=draw: draw(c))) is not None:
            write_figure(name, drawn, target)
            figures.append(name)
    facts = made_of("the report", c, lambda: report_facts(c, stated, [*tables, "claims"], figures))
    text = made_of("the report", c, lambda: report_text(c, facts, tables))
    stored = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False)
    paths.write_text(target / "report.json", f"{stored}\n")
    paths.write_text(target / "report.md", text)
    return target


def _results(profile: str) -> Path:
    """Folder of a profile's results, which need not be there; VwsdError where something else stands
    in its place."""
    folder = paths.results_dir(profile)
    for place in (folder.parent, folder):
        if place.is_symlink() and not place.exists():
            raise VwsdError(
                "the folder of results is a link that leads nowhere",
                where=place,
                remedy="Remove the link, or set VWSD_RESULTS to a folder.",
            )
        if place.exists() and not place.is_dir():
            raise VwsdError(
                "a file stands where the folder of results is needed",
                where=place,
                remedy="Move it, or set VWSD_RESULTS to a folder.",
            )
    return folder


def made_of(what: str, c: Collection, make: Callable[[], Value]) -> Value:
    """What `make` makes of the stored facts; VwsdError naming `what` where they do not hold what it
    needs."""
    try:
        return make()
    except (ArithmeticError, AttributeError, IndexError, LookupError, TypeError, ValueError) as e:
        raise VwsdError(
            f"{what} cannot be made of the stored facts ({type(e).__name__}: {e})",
            where=c.folder,
            remedy=AGAIN,
        ) from e


def refresh_report(profile: str) -> tuple[Path, bool]:
    """`write_report`, unless the same facts and the same code wrote what is there; returns the
    folder and whether it was written.
    """
    folder = _results(profile)
    stamp = folder / ".stamps" / "report.json"
    inputs = [p for part in paths.FACTS for p in sorted((folder / part).glob("*.*"))]
    hashes = {p.name: _sha256(p) for p in inputs}
    state = {
        "left out": left_out(folder),
        "code": project_sha256(),
        "facts": hashes,
        "deviations": deviations(),
        "reported": entries(),
    }
    made_of = digest(state)
    try:
        if json.loads(stamp.read_text()) == {"made_of": made_of, "files": _derived(folder)}:
            return folder, False
    # no stamp, or none that can be read: the report is written again
    except (OSError, ValueError, RecursionError):
        pass
    # the reference was checked where it was made: another processor's last bits are no reason to
    # write into what git holds
    reference = folder == paths.reference_dir(profile) and (folder / "report.json").is_file()
    written = not (reference and not differing_files(profile))
    if written:
        write_report(profile)
    paths.write_text(stamp, json.dumps({"made_of": made_of, "files": _derived(folder)}, indent=1))
    return folder, written


def report_facts(c: Collection, stated: list[dict], tables: list[str], figures: list[str]) -> dict:
    """report.json: profile, provenance, claims with verdicts, names of tables and figures, number
    of rows.
    """
    return {
        "profile": c.profile,
        "rows": len(c.rows),
        "claims": stated,
        "verdicts": VERDICTS,
        "provenance": provenance_of(c),
        "runs": list(c.predictions),
        "tables": tables,
        "figures": figures,
    }


def provenance_of(c: Collection) -> dict:
    """Distinct values of what made the stored facts: code, data, versions, models."""
    metas = list(c.metas.values())
    distinct = {
        key: sorted({str(m[key]) for m in metas if m.get(key) not in (None, "")}) for key in MADE_BY
    }
    data = {f"{m['dataset']} {m['language']} {m['split']}": m["data_sha256"] for m in metas}
    return {
        **distinct,
        "versions": sorted({json.dumps(m["versions"], sort_keys=True) for m in metas}),
        "data_sha256": dict(sorted(data.items())),
    }


def report_text(c: Collection, facts: dict, tables: dict) -> str:
    """report.md for people."""
    parts = [f"# Report: profile {c.profile}\n", scope(c), *_polclip(c, tables)]
    reasons = left_out(c.folder)
    if reasons:
        parts += ["## Left out\n", *(f"- {name}: {why}" for name, why in reasons.items()), ""]
    parts.append("## Tables\n")
    for name, made in tables.items():
        parts += [made.markdown(), _origin(name, c.profile)]
    parts.append("## Figures\n")
    for name in facts["figures"]:
        parts.append(f"![{name.replace('_', ' ')}](figures/{name}.png)\n")
    verdicts = "; ".join(f"**{name}** {meaning}" for name, meaning in VERDICTS.items())
    parts += ["## Claims\n", claims_table(facts["claims"]).markdown()]
    parts += [_origin("claims", c.profile), f"Verdicts: {verdicts}.\n", "## Provenance\n"]
    parts += [f"- {key}: {_short(value)}" for key, value in facts["provenance"].items()]
    return "\n".join(parts) + "\n"


def left_out(folder: Path) -> dict[str, str]:
    """Notebook -> why the last run into this folder left it out, by the runner's records."""
    reasons = {}
    for path in sorted((folder / ".stamps").glob("*.failed.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["error"] == LEFT_OUT:
                reasons[path.name.removesuffix(".failed.json")] = record["message"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue  # a damaged record is no reason
    return reasons


def _origin(name: str, profile: str) -> str:
    return f"Where a cell comes from: `vwsd why {name} ROW COLUMN --profile {profile}`\n"


def scope(c: Collection) -> str:
    """What these results are and what they are not, in Markdown."""
    if (name := set_of(c.profile)) and SETS[name].scope:
        return SETS[name].scope
    return (
        f"These are results of the profile *{c.profile}*, on its own data with its own model. They"
        " are not the papers' experiments and are never compared with their numbers: every claim"
        " of the papers reads NOT RUN.\n"
    )


def _polclip(c: Collection, tables: dict[str, Table]) -> list[str]:
    """What was trained, how it differs from the published configuration, and whether the gain is
    more than noise.
    """
    main = trained_runs(c)
    if not main:
        return []
    from polclip.config import Config

    published = json.loads(Config().to_json())
    config = c.measured["polclip_runs"].meta["config"]
    changed = []
    for key, value in config.items():
        if key != "seed" and value != published[key]:
            changed.append(f"{key} {value} (there {published[key]})")
    seeds = ", ".join(str(r["seed"]) for r in main)
    lines = [
        f"- {len(main)} models of the full configuration (seeds {seeds}),"
        f" {len(trained_runs(c, 'ablation'))} with something changed; {main[0]['steps']} steps"
        f" each, epochs: {main[0]['epochs']}.",
        f"- Not as in the paper's figure: {', '.join(changed) or 'nothing'}.",
    ]
    summed = SCORES["sum"] + trained_as(c)
    lines += [_gain(row, "F1", "group") for row in _tested(tables.get("textual"), summed)[:1]]
    pictures = _tested(tables.get("visual_polclip"), summed)
    lines += [_gain(row, "hit@1", "language") for row in pictures]
    return ["## PolCLIP\n", *lines, ""]


def _tested(table: Table | None, system: str) -> list[dict]:
    """Rows of a system that were tested against another one."""
    rows = table.rows if table else []
    return [row for row in rows if row["system"] == system and "tests" in row]


def _gain(row: dict, metric: str, part: str) -> str:
    """A line on what training gained, and in how many seeds it is more than noise."""
    clear = [test["difference"] > 0 for test in row["tests"] if test["p"] < 0.05]
    return (
        f"- {row[part]}: {metric} {row['value']:.1f} (n = {row['n']}),"
        f" {row['difference']:+.1f} points against zero-shot; better at p < 0.05 in"
        f" {sum(clear)} of {row['runs']} seeds, worse in {len(clear) - sum(clear)}."
    )


def _short(value: dict[str, str] | Sequence[str]) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} `{v[:12]}`" for k, v in value.items())
    return ", ".join(f"`{v[:12] if len(v) == 64 else v}`" for v in value) or "–"


def check_report(profile: str) -> list[str]:
    """Differences between what is on disk and what the stored facts and this code give; empty when
    all agrees.

    A difference is "<file>: missing | differs | left over", or says that the predictions were made
    by other code.
    """
    differences = differing_files(profile)
    other = other_code(Collection(profile, _results(profile)).metas)
    if other:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        differences.append(
            f"predictions were made by other code ({other[0]}{more}): run the notebooks again"
        )
    return differences


def differing_files(profile: str) -> list[str]:
    """ "<file>: missing | differs | left over" of each file on disk that is not what the stored
    facts and this code give, but for the last bits of its numbers (`same_numbers`)."""
    folder = _results(profile)
    with paths.scratch_folder("check") as scratch:
        made = write_report(profile, scratch)
        fresh, stored = _derived(made), _derived(folder)
        differences = []
        for name in sorted(fresh.keys() | stored.keys()):
            if name not in stored:
                differences.append(f"{name}: missing")
            elif name not in fresh:
                differences.append(f"{name}: left over")
            elif fresh[name] != stored[name] and not same_numbers(made / name, folder / name):
                differences.append(f"{name}: differs")
    return differences


# a number with decimals, as all kinds of text have it
NUMBER = re.compile(rb"-?\d+\.\d+(?:e[+-]?\d+)?")


def same_numbers(a: Path, b: Path) -> bool:
    """Whether two text files are the same but for last bits of numbers, one part in a billion: of
    sums, they are a processor's own."""
    if a.suffix not in (".jsonl", ".json", ".csv", ".md", ".tex"):
        return False
    first, second = a.read_bytes(), b.read_bytes()
    if NUMBER.sub(b"", first) != NUMBER.sub(b"", second):
        return False
    pairs = zip(NUMBER.findall(first), NUMBER.findall(second), strict=True)
    return all(x == y or math.isclose(float(x), float(y), rel_tol=1e-9) for x, y in pairs)


def _derived(folder: Path) -> dict[str, str]:
    """File -> hash of all that is made from facts."""
    files = []
    for name in DERIVED:
        place = folder / name
        files += [place] if place.is_file() else filter(Path.is_file, place.rglob("*"))
    return {p.relative_to(folder).as_posix(): _sha256(p) for p in files}


def _sha256(path: Path) -> str:
    """Hash of a file's bytes; VwsdError where it cannot be read."""
    if not path.is_file():
        raise VwsdError(
            "among the stored facts is something that is no file", where=path, remedy="Remove it."
        )
    try:
        return paths.sha256_file(path)
    except OSError as e:
        raise VwsdError(
            f"a file of the results cannot be read: {e.strerror or e}",
            where=path,
            remedy="Mend its permissions, or remove it.",
        ) from e
