"""Tables: pure functions of the stored facts, written as CSV (full precision), Markdown and LaTeX (booktabs, rounded).

A new table is one function under `@table`. Rounding happens here and nowhere else.
"""

from __future__ import annotations

import csv
import html
import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import paths
from ..analysis.metrics import mcnemar
from .collect import LANGUAGE_NAMES, LANGUAGE_ORDER, Collection

VARIANTS = {"word": "bare word", "phrase": "phrase", "this_is": "“This is …”"}


@dataclass(frozen=True)
class Column:
    """A column: key in the rows, heading, and a format for people (`.1f`, `d`, ... or empty)."""

    key: str
    heading: str
    format: str = ""

    def show(self, row: dict) -> str:
        """The cell as a reader sees it; an absent value is a dash."""
        value = row.get(self.key)
        return "–" if value is None else format(value, self.format)


@dataclass(frozen=True, repr=False)
class Table:
    """Rows with a caption; shows itself in a notebook."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: list[dict]

    def cells(self) -> list[list[str]]:
        """Rounded cells, row by row."""
        return [[c.show(row) for c in self.columns] for row in self.rows]

    def csv(self) -> str:
        """Full precision."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([c.key for c in self.columns])
        writer.writerows([["" if row.get(c.key) is None else row[c.key] for c in self.columns] for row in self.rows])
        return out.getvalue()

    def markdown(self) -> str:
        """A pipe table under its caption; numbers to the right."""
        lines = [[c.heading for c in self.columns], ["---:" if c.format else "---" for c in self.columns], *self.cells()]
        return f"**{self.caption}**\n\n" + "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)

    def latex(self) -> str:
        """A booktabs tabular inside a table environment."""
        spec = "".join("r" if c.format else "l" for c in self.columns)
        body = [" & ".join(map(_tex, line)) + r" \\" for line in ([c.heading for c in self.columns], *self.cells())]
        return "\n".join([r"\begin{table}", r"\centering", rf"\caption{{{_tex(self.caption)}}}", rf"\label{{tab:{self.name}}}", rf"\begin{{tabular}}{{{spec}}}",
                          r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])

    def _repr_html_(self) -> str:
        head = "".join(f"<th style='text-align:{'right' if c.format else 'left'}'>{html.escape(c.heading)}</th>" for c in self.columns)
        body = "".join("<tr>" + "".join(f"<td dir='auto' style='text-align:{'right' if c.format else 'left'}'>{html.escape(cell)}</td>"
                                        for c, cell in zip(self.columns, line)) + "</tr>" for line in self.cells())
        return f"<table><caption style='text-align:left'><b>{html.escape(self.caption)}</b></caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def __repr__(self) -> str:
        lines = [[c.heading for c in self.columns], *self.cells()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        pad = [str.rjust if c.format else str.ljust for c in self.columns]
        return self.caption + "\n" + "\n".join("  ".join(p(cell, w) for p, cell, w in zip(pad, line, widths)).rstrip() for line in lines)


TEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
       "^": r"\textasciicircum{}", "–": "--", "“": "``", "”": "''", "…": r"\dots{}", "−": "$-$", "≤": r"$\leq$", "×": r"$\times$"}


def _tex(text: str) -> str:
    return "".join(TEX.get(c, c) for c in text)


TABLES: dict[str, Callable[[Collection], Table | None]] = {}


def table(function: Callable[[Collection], Table | None]) -> Callable[[Collection], Table | None]:
    """Register a table under its function's name; it returns None where the profile has no facts for it."""
    TABLES[function.__name__] = function
    return function


def write_table(made: Table, folder: Path) -> list[Path]:
    """The three files of a table below `folder`/tables."""
    stem = Path(folder) / "tables" / made.name
    return [paths.write_text(f"{stem}.csv", made.csv()), paths.write_text(f"{stem}.md", made.markdown()), paths.write_text(f"{stem}.tex", made.latex())]


def set_title(c: Collection) -> str:
    """How captions name the data: a demo's numbers never look like a paper's."""
    facts = [*c.audits.values(), *(p.meta for p in c.predictions.values())]
    if not facts:
        return c.profile
    name = {"emojiwsd": "EmojiWSD", "vwsd": "SemEval-2023 V-WSD"}.get(facts[0]["dataset"], facts[0]["dataset"])
    limit = f", first {facts[0]['limit']} items only" if facts[0]["limit"] else ""
    return f"{name}{limit}; profile {c.profile}"


@table
def data_counts(c: Collection) -> Table | None:
    """Sizes of each language and split."""
    rows = [{"language": LANGUAGE_NAMES[a["language"]], **{k: a[k] for k in ("split", "n", "targets", "images")}, "words": a["mean_words"],
             "meanings": a["mean_meanings"]} for a in c.audits.values()]
    columns = (Column("language", "Language"), Column("split", "Split"), Column("n", "Items", "d"), Column("targets", "Targets", "d"),
               Column("images", "Images", "d"), Column("words", "Words a phrase", ".2f"), Column("meanings", "Meanings a target", ".2f"))
    return Table("data_counts", f"What the set holds ({set_title(c)})", columns, rows) if rows else None


@table
def audit(c: Collection) -> Table | None:
    """Hit@1 of rules that read no text and see no pixel."""
    rows = [{"language": LANGUAGE_NAMES[a["language"]], "split": a["split"], "n": a["n"], **{rule: a[rule] for rule in ("chance", "rarest", "most_frequent")},
             **{f"{rule}_ci": _interval(*a["intervals"][rule]) for rule in ("chance", "rarest", "most_frequent")},
             "gold_as_distractor": a["gold_as_distractor"]} for a in c.audits.values()]
    columns = (Column("language", "Language"), Column("split", "Split"), Column("n", "n", "d"), Column("chance", "Chance", ".2f"),
               Column("chance_ci", "95 % range"), Column("rarest", "Rarest", ".2f"), Column("rarest_ci", "95 % interval"),
               Column("most_frequent", "Most frequent", ".2f"), Column("most_frequent_ci", "95 % interval"),
               Column("gold_as_distractor", "Golds as distractors (slots)", "d"))
    return Table("audit", f"Hit@1 without text or pixels, in percent ({set_title(c)})", columns, rows) if rows else None


def _interval(low: float, high: float) -> str:
    return f"{low:.1f}–{high:.1f}"


@table
def baseline(c: Collection) -> Table | None:
    """Chance, no-text rules and every text of the baseline encoder, language by language."""
    test = [r for r in c.rows.values() if r["metric"] == "hit@1" and r["split"] == "test"]
    order = ["chance", "rarest", "most_frequent", *VARIANTS]
    test = [r for r in test if r["variant"] in order]
    if not any(r["variant"] in VARIANTS for r in test):
        return None
    test.sort(key=lambda r: (LANGUAGE_ORDER.index(r["language"]), r["model"] != "none", r["model"], order.index(r["variant"])))
    columns = (Column("language", "Language"), Column("model", "Model"), Column("what", "Text"), Column("n", "n", "d"), Column("k", "k", "g"),
               Column("value", "Hit@1", ".2f"), Column("ci", "95 % interval"), Column("mrr", "MRR", ".2f"), Column("mrr_ci", "95 % interval"))
    return Table("baseline", f"Zero-shot baseline, percent ({set_title(c)})", columns, [_baseline_row(r, c) for r in test])


NO_TEXT = {"chance": "chance", "rarest": "none: rarest picture", "most_frequent": "none: most frequent picture"}


def _baseline_row(row: dict, c: Collection) -> dict:
    other = c.rows.get(row["id"].replace("/hit@1", "/mrr"))
    return {"language": LANGUAGE_NAMES[row["language"]], "model": "–" if row["model"] == "none" else row["model"],
            "what": {**NO_TEXT, **VARIANTS}[row["variant"]], "n": row["n"], "k": round(row["k"], 2), "value": row["value"],
            "ci": _interval(row["ci_low"], row["ci_high"]), "mrr": other and other["value"], "mrr_ci": other and _interval(other["ci_low"], other["ci_high"])}


@table
def baseline_paired(c: Collection) -> Table | None:
    """Each pair of texts on the same items: who is right where the other is wrong."""
    rows = []
    for language in LANGUAGE_ORDER:
        runs = [p for p in c.select(language=language, split="test") if p.meta["variant"] in VARIANTS]
        runs.sort(key=lambda p: (p.meta["model"], list(VARIANTS).index(p.meta["variant"])))
        for a, b in itertools.combinations(runs, 2):
            if a.meta["model"] == b.meta["model"] and a.meta["data_sha256"] == b.meta["data_sha256"]:
                only_a, only_b, p = mcnemar(a.ranks == 1, b.ranks == 1)
                rows.append({"language": LANGUAGE_NAMES[language], "model": a.meta["model"], "a": VARIANTS[a.meta["variant"]], "b": VARIANTS[b.meta["variant"]],
                             "n": len(a.ranks), "only_a": only_a, "only_b": only_b, "difference": 100 * (only_b - only_a) / len(a.ranks), "p": p})
    columns = (Column("language", "Language"), Column("model", "Model"), Column("a", "A"), Column("b", "B"), Column("n", "n", "d"),
               Column("only_a", "only A right", "d"), Column("only_b", "only B right", "d"), Column("difference", "B − A (points)", "+.2f"),
               Column("p", "McNemar p (exact)", ".2g"))
    return Table("baseline_paired", f"The same items under two texts ({set_title(c)})", columns, rows) if rows else None


def claims_table(made: list[dict]) -> Table:
    """The papers' claims beside ours."""
    columns = (Column("about", "Claim"), Column("reported", "Reported"), Column("unit", "Unit"), Column("count", "k", "d"), Column("n", "n", "d"),
               Column("ours_k", "Our k", "d"), Column("ours", "Ours", ".2f"), Column("off_by", "Off by (items)", "+d"), Column("verdict", "Verdict"),
               Column("notebook", "Notebook"))
    return Table("claims", "What the papers report, and what this profile can say to it", columns, made)
