"""Tables of notebooks 01 and 02: the set, the audit, the zero-shot baseline."""

from __future__ import annotations

import itertools

from ...facts.collect import LANGUAGE_NAMES, Collection, language_place
from . import VARIANTS, Column, Table, interval, set_title, table
from .paired import difference


@table
def data_counts(c: Collection) -> Table | None:
    """Sizes of each language and split."""
    rows = [
        {
            "language": LANGUAGE_NAMES[a["language"]],
            **{k: a[k] for k in ("split", "n", "targets", "images")},
            "words": a["mean_words"],
            "meanings": a["mean_meanings"],
        }
        for a in c.audits.values()
    ]
    columns = (
        Column("language", "Language"),
        Column("split", "Split"),
        Column("n", "Items", "d"),
        Column("targets", "Targets", "d"),
        Column("images", "Images", "d"),
        Column("words", "Words a phrase", ".2f"),
        Column("meanings", "Meanings a target", ".2f"),
    )
    return (
        Table("data_counts", f"What the set holds ({set_title(c)})", columns, rows)
        if rows
        else None
    )


@table
def audit(c: Collection) -> Table | None:
    """Hit@1 of rules that read no text and see no pixel."""
    rows = [
        {
            "language": LANGUAGE_NAMES[a["language"]],
            "split": a["split"],
            "n": a["n"],
            **{rule: a[rule] for rule in ("chance", "rarest", "most_frequent")},
            **{
                f"{rule}_ci": interval(*a["intervals"][rule])
                for rule in ("chance", "rarest", "most_frequent")
            },
            "gold_as_distractor": a["gold_as_distractor"],
        }
        for a in c.audits.values()
    ]
    columns = (
        Column("language", "Language"),
        Column("split", "Split"),
        Column("n", "n", "d"),
        Column("chance", "Chance", ".2f"),
        Column("chance_ci", "95 % range"),
        Column("rarest", "Rarest", ".2f"),
        Column("rarest_ci", "95 % interval"),
        Column("most_frequent", "Most frequent", ".2f"),
        Column("most_frequent_ci", "95 % interval"),
        Column("gold_as_distractor", "Golds as distractors (slots)", "d"),
    )
    return (
        Table("audit", f"Hit@1 without text or pixels, in percent ({set_title(c)})", columns, rows)
        if rows
        else None
    )


@table
def baseline(c: Collection) -> Table | None:
    """Chance, no-text rules and every text of the encoders that notebook 02 has scored, language by
    language.
    """
    test = [r for r in c.rows.values() if r["metric"] == "hit@1" and r["split"] == "test"]
    order = ["chance", "rarest", "most_frequent", *VARIANTS]
    test = [r for r in test if r["variant"] in order and _place(r, c) is not None]
    if not any(r["variant"] in VARIANTS for r in test):
        return None
    test.sort(
        key=lambda r: (language_place(r["language"]), _place(r, c), order.index(r["variant"]))
    )
    columns = (
        Column("language", "Language"),
        Column("model", "Encoder"),
        Column("what", "Text"),
        Column("n", "n", "d"),
        Column("k", "k", "g"),
        Column("value", "Hit@1", ".2f"),
        Column("ci", "95 % interval"),
        Column("mrr", "MRR", ".2f"),
        Column("mrr_ci", "95 % interval"),
    )
    return Table(
        "baseline",
        f"Zero-shot baseline, percent ({set_title(c)})",
        columns,
        [_baseline_row(r, c) for r in test],
    )


def _place(row: dict, c: Collection) -> int | None:
    """-1 for a rule that uses no model, then the encoders of notebook 02 in their order; None for
    any other.
    """
    places = {name: place for place, name in enumerate(c.baselines)}
    return -1 if row["model"] == "none" else places.get(row["id"].split(".")[0])


NO_TEXT = {
    "chance": "chance",
    "rarest": "none: rarest picture",
    "most_frequent": "none: most frequent picture",
}


def _baseline_row(row: dict, c: Collection) -> dict:
    other = c.rows.get(row["id"].replace("/hit@1", "/mrr"))
    return {
        "language": LANGUAGE_NAMES[row["language"]],
        "model": "–" if row["model"] == "none" else row["id"].split(".")[0],
        "what": {**NO_TEXT, **VARIANTS}[row["variant"]],
        "n": row["n"],
        "k": round(row["k"], 2),
        "value": row["value"],
        "ci": interval(row["ci_low"], row["ci_high"]),
        "mrr": other and other["value"],
        "mrr_ci": other and interval(other["ci_low"], other["ci_high"]),
    }


@table
def baseline_paired(c: Collection) -> Table | None:
    """Each pair of texts on the same items: who is right where the other is wrong."""
    rows = []
    for language in LANGUAGE_NAMES:
        runs = [
            p
            for p in c.select(language=language, split="test")
            if p.variant in VARIANTS and p.encoder in c.baselines
        ]
        runs.sort(
            key=lambda p: (c.baselines.index(p.encoder), list(VARIANTS).index(p.meta["variant"]))
        )
        for a, b in itertools.combinations(runs, 2):
            if a.encoder == b.encoder and (found := difference(a, b)):
                rows.append(
                    {
                        "language": LANGUAGE_NAMES[language],
                        "model": a.encoder,
                        "a": VARIANTS[a.meta["variant"]],
                        "b": VARIANTS[b.meta["variant"]],
                        "n": len(a.ranks),
                        **found,
                    }
                )
    columns = (
        Column("language", "Language"),
        Column("model", "Encoder"),
        Column("a", "A"),
        Column("b", "B"),
        Column("n", "n", "d"),
        Column("only_a", "only A right", "d"),
        Column("only_b", "only B right", "d"),
        Column("difference", "B − A (points)", "+.2f"),
        Column("p", "McNemar p (exact)", ".2g"),
    )
    return (
        Table("baseline_paired", f"The same items under two texts ({set_title(c)})", columns, rows)
        if rows
        else None
    )
