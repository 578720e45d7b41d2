"""Tables of notebook 04: languages the encoder never learned, translated or read by encoders that
did.
"""

from __future__ import annotations

from collections.abc import Iterator

from vwsdlib.analysis.metrics import fisher_test, percent, wilson
from vwsdlib.language.quality import RULES
from vwsdlib.language.translate import TRANSLATORS

from ...facts.collect import LANGUAGE_NAMES, Collection, language_place
from ...facts.predictions import Predictions
from . import Column, Table, interval, set_title, table
from .paired import PAIRED, SCORE, difference, score_cells

EXAMPLES = 8  # marked translations shown for each language


def translators(c: Collection) -> dict[tuple[str, str], str]:
    """(variant, language) -> translator, as notebook 04 wrote it down."""
    return (
        {(r["variant"], r["language"]): r["translator"] for r in c.measured["translators"].records}
        if "translators" in c.measured
        else {}
    )


def text_name(variant: str, language: str, c: Collection) -> str:
    """What was given to the encoder, for people; a reference by hand is an upper bound and says
    so."""
    if variant == "phrase":
        return "as it is"
    name = translators(c).get((variant, language), variant)
    return "reference translation (upper bound)" if name == "reference" else f"translated by {name}"


def foreign_runs(c: Collection) -> list[Predictions]:
    """Test runs of phrases other than English, raw and translated; by language, the baseline first,
    raw before translated.
    """
    known = translators(c)
    runs = [
        p
        for p in c.select(split="test")
        if p.meta["language"] != "en"
        and (p.variant == "phrase" or (p.variant, p.meta["language"]) in known)
    ]
    return sorted(
        runs,
        key=lambda p: (
            language_place(p.meta["language"]),
            p.encoder != c.baseline,
            p.encoder,
            p.variant != "phrase",
            p.variant,
        ),
    )


@table
def multilingual(c: Collection) -> Table | None:
    """Every encoder on Italian and Farsi, raw and translated, tested against raw text through the
    baseline and through itself.
    """
    runs = foreign_runs(c)
    if not translators(c) or not runs:
        return None
    rows = []
    for p in runs:
        language = p.meta["language"]
        own = c.predictions.get(f"{p.encoder}.phrase.{language}.{p.meta['split']}")
        against = (
            own
            if p.variant != "phrase"
            else c.predictions.get(f"{c.baseline}.phrase.{language}.{p.meta['split']}")
        )
        tested = (
            {**difference(against, p), "against": f"{against.encoder}, as it is"}
            if against and against is not p
            else {}
        )
        rows.append(
            {
                "language": LANGUAGE_NAMES[language],
                "encoder": p.encoder,
                "text": text_name(p.variant, language, c),
                **score_cells(p),
                **tested,
            }
        )
    columns = (
        Column("language", "Language"),
        Column("encoder", "Encoder"),
        Column("text", "Text"),
        *SCORE,
        Column("against", "against"),
        *PAIRED,
    )
    return Table(
        "multilingual",
        f"Italian and Farsi, raw and translated, percent ({set_title(c)})",
        columns,
        rows,
    )


def marked_runs(c: Collection) -> Iterator[tuple[str, str, list[dict], Predictions]]:
    """(translator, language, translation records, predictions made from them), the baseline
    encoder's first.
    """
    for p in foreign_runs(c):
        if p.variant == "phrase":
            continue
        language, split = p.meta["language"], p.meta["split"]
        name = translators(c)[p.variant, language]
        if (stored := c.translations.get(f"{name}.{language}.{split}")) and len(stored[0]) == len(
            p.items
        ):
            yield name, language, stored[0], p


@table
def translation_marks(c: Collection) -> Table | None:
    """How many translations each rule marks, and how often marked and unmarked items are solved."""
    rows = []
    for name, language, records, p in marked_runs(c):
        right = p.ranks == 1
        marks = {
            **{rule: [rule in r["flags"] for r in records] for rule in RULES},
            "any mark": [bool(r["flags"]) for r in records],
        }
        for mark, marked in marks.items():
            k, n = int(sum(right[marked])), sum(marked)
            if not n and mark != "any mark":
                continue
            rest, m = int(right.sum()) - k, len(records) - n
            rows.append(
                {
                    "language": LANGUAGE_NAMES[language],
                    "translator": name,
                    "encoder": p.encoder,
                    "mark": mark.replace("_", " "),
                    "n": n,
                    "value": percent(k, n) if n else None,
                    "ci": interval(*wilson(k, n)) if n else None,
                    "rest_n": m,
                    "rest": percent(rest, m) if m else None,
                    "rest_ci": interval(*wilson(rest, m)) if m else None,
                    "p": fisher_test(k, n, rest, m) if n and m else None,
                }
            )
    columns = (
        Column("language", "Language"),
        Column("translator", "Translator"),
        Column("encoder", "Encoder"),
        Column("mark", "Mark"),
        Column("n", "marked", "d"),
        Column("value", "Hit@1 of marked", ".1f"),
        Column("ci", "95 % interval"),
        Column("rest_n", "unmarked", "d"),
        Column("rest", "Hit@1 of unmarked", ".1f"),
        Column("rest_ci", "95 % interval"),
        Column("p", "Fisher p", ".2g"),
    )
    return (
        Table(
            "translation_marks",
            "Translations that simple rules mark, and what becomes of their items"
            f" ({set_title(c)})",
            columns,
            rows,
        )
        if rows
        else None
    )


@table
def translation_examples(c: Collection) -> Table | None:
    """The first marked translations of each language and translator, to be checked by hand."""
    rows = []
    for stem, (records, meta) in sorted(
        c.translations.items(), key=lambda entry: (entry[1][1]["source"] != "it", entry[0])
    ):
        shown = [r for r in records if r["flags"]] or records
        rows += [
            {
                "language": LANGUAGE_NAMES[r["language"]],
                "translator": meta["translator"],
                **{k: r[k] for k in ("phrase", "target", "phrase_en", "target_en")},
                "flags": ", ".join(r["flags"]).replace("_", " ") or "none",
            }
            for r in shown[:EXAMPLES]
        ]
    columns = (
        Column("language", "Language"),
        Column("translator", "Translator"),
        Column("phrase", "Phrase"),
        Column("phrase_en", "Phrase in English"),
        Column("target", "Target"),
        Column("target_en", "Target in English"),
        Column("flags", "Marks"),
    )
    return (
        Table(
            "translation_examples",
            f"Marked translations, first {EXAMPLES} of each kind ({set_title(c)})",
            columns,
            rows,
        )
        if rows
        else None
    )


@table
def translators_used(c: Collection) -> Table | None:
    """Who translated, with which model and settings."""
    rows = [
        {
            "translator": m["translator"],
            "language": LANGUAGE_NAMES[m["source"]],
            "n": m["n"],
            "model": m["model"],
            "revision": m["revision"][:12],
            "about": TRANSLATORS[m["translator"]].about,
        }
        for _, m in sorted(
            c.translations.values(),
            key=lambda stored: (stored[1]["source"] != "it", stored[1]["translator"]),
        )
    ]
    columns = (
        Column("translator", "Translator"),
        Column("language", "Language"),
        Column("n", "n", "d"),
        Column("model", "Model"),
        Column("revision", "Revision"),
        Column("about", "About"),
    )
    return (
        Table("translators_used", f"Who translated ({set_title(c)})", columns, rows)
        if rows
        else None
    )
