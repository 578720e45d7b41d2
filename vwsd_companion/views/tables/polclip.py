"""Tables of notebook 06: PolCLIP on words and on pictures, over seeds, against what was not trained
for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from vwsdlib.analysis.metrics import mcnemar, paired_interval, percent, wilson
from vwsdlib.analysis.wsd_scoring import compare_answers, groups
from vwsdlib.errors import VwsdError

from ...facts.collect import LANGUAGE_NAMES, Collection
from ...facts.numbers import wsd_id
from ...facts.predictions import Predictions
from ...facts.reported import published
from . import Column, Table, interval, set_title, table

ZERO_SHOT = "sentence encoder"
SYSTEMS = {"first-sense": "first sense", "lesk": "Lesk", ZERO_SHOT: "sentence encoder, zero-shot"}
SCORES = {"plain": "PolCLIP, plain", "fused": "PolCLIP, fused", "sum": "PolCLIP, plain + fused"}
EXAMPLES = 5
System = tuple[str, str]  # (system, score) of textual WSD


def trained_runs(c: Collection, group: str = "main") -> list[dict]:
    """What notebook 06 stored of its trained models; group: main (the full model, a seed each) or
    ablation.
    """
    return (
        [r for r in c.measured["polclip_runs"].records if r["group"] == group]
        if "polclip_runs" in c.measured
        else []
    )


def over_seeds(rows: Sequence[dict], tests: Sequence[dict]) -> dict:
    """Cells of one system under several seeds: the mean, the lowest to the highest, the interval of
    the middle seed (the lower of two).

    rows: of rows.jsonl, one a seed; tests: {difference, ci_low, ci_high, p} a seed, none where it
    is compared with nothing. Keys that are no column are for the figures. Raises VwsdError where
    the seeds were tested on different numbers of items.
    """
    if not rows:
        return {}
    if len({row["n"] for row in rows}) > 1:
        raise VwsdError(
            "seeds were tested on different numbers of items",
            where=rows[0]["id"],
            remedy="Run 06_polclip again with --force.",
        )
    values, middle = [row["value"] for row in rows], _middle(rows, "value")
    cells = {
        "runs": len(rows),
        "n": middle["n"],
        "value": fmean(values),
        "ci": interval(middle["ci_low"], middle["ci_high"]),
        "seeds": values,
        "middle": middle,
    }
    if len(rows) > 1:
        cells["spread"] = interval(min(values), max(values))
    if tests:
        central = _middle(tests, "difference")
        cells |= {
            "difference": fmean(t["difference"] for t in tests),
            "difference_ci": interval(central["ci_low"], central["ci_high"]),
            "p": " / ".join(f"{t['p']:.2g}" for t in tests),
            "each": " / ".join(f"{t['difference']:+.1f}" for t in tests),
            "tests": list(tests),
            "central": central,
        }
    return cells


def _middle(of: Sequence[dict], key: str) -> dict:
    return sorted(of, key=lambda one: one[key])[(len(of) - 1) // 2]


PAIRED = (
    Column("difference", "Points", "+.2f"),
    Column("difference_ci", "95 % interval"),
    Column("each", "each seed"),
    Column("p", "McNemar p, each seed"),
)


def shown_groups(c: Collection) -> list[str]:
    """Groups of the textual items, the main one first (ALL of the five sets, else all items); one
    that is the whole of another is left out.
    """
    found, kept = groups(next(iter(c.answered.values()))[0]), {}
    for name in ("ALL" if "ALL" in found else "items", *found):
        ids = frozenset(item.id for item in found[name])
        if ids not in kept.values():
            kept[name] = ids
    return list(kept)


def textual_cells(
    c: Collection, mine: Sequence[System], others: Sequence[System], group: str
) -> dict:
    """Cells of textual WSD: F1 of `mine`, one a seed, each tested against its one of `others`;
    empty where one did not run.
    """
    split = c.measured["wsd_answers"].meta["split"] if mine and "wsd_answers" in c.measured else ""
    rows = [c.rows.get(wsd_id(*system, group, split)) for system in mine]
    tests = [_textual_test(c, a, b, group) for a, b in zip(others, mine)]
    return over_seeds(rows, tests if all(tests) else []) if all(rows) else {}


def _textual_test(c: Collection, a: System, b: System, group: str) -> dict | None:
    if a not in c.answered or b not in c.answered:
        return None
    (items, of_a), (_, of_b) = c.answered[a], c.answered[b]
    gold = {item.id: item.golds for item in groups(items).get(group, ())}
    return compare_answers(gold, of_a, of_b) if of_a.keys() == of_b.keys() and gold else None


def visual_cells(
    c: Collection, mine: Sequence[Predictions | None], others: Sequence[Predictions | None]
) -> dict:
    """Cells of visual WSD: hit@1 and MRR of `mine`, one a seed, each tested against its one of
    `others`; empty where one did not run.
    """
    if not mine or not all(mine):
        return {}
    tests = [_visual_test(a, b) for a, b in zip(others, mine)]
    reciprocal = over_seeds([c.rows[f"{p.run}/mrr"] for p in mine], [])
    cells = over_seeds([c.rows[f"{p.run}/hit@1"] for p in mine], tests if all(tests) else [])
    return {**cells, "mrr": reciprocal["value"], "mrr_ci": reciprocal["ci"]}


def _visual_test(a: Predictions | None, b: Predictions) -> dict | None:
    if a is None or a.meta["data_sha256"] != b.meta["data_sha256"]:
        return None
    lost, won, p = mcnemar(a.ranks == 1, b.ranks == 1)
    low, high = paired_interval(lost, won, len(a.ranks))
    return {"difference": percent(won - lost, len(a.ranks)), "ci_low": low, "ci_high": high, "p": p}


def visual_runs(
    c: Collection, runs: Sequence[str], variant: str, language: str = "en"
) -> list[Predictions | None]:
    """Test predictions of trained models, one a seed."""
    return [c.predictions.get(f"polclip-{run}.{variant}.{language}.test") for run in runs]


@table
def polclip_model(c: Collection) -> Table | None:
    """Parameters of the parts, and how many of them are trained."""
    if not (main := trained_runs(c)):
        return None
    of = main[0]
    rows = [
        {"part": name, "parameters": n, "trained": trained}
        for name, (n, trained) in of["parts"].items()
    ]
    if lag := of["parameters"] - sum(row["parameters"] for row in rows):
        rows.append(
            {"part": "followers of what is trained in the towers", "parameters": lag, "trained": 0}
        )
    rows.append(
        {
            "part": "the model",
            **{key: of[key] for key in ("parameters", "trained", "tensors", "trained_tensors")},
        }
    )
    columns = (
        Column("part", "Part"),
        Column("parameters", "Parameters", ",d"),
        Column("trained", "trained", ",d"),
        Column("tensors", "Tensors", ",d"),
        Column("trained_tensors", "trained", ",d"),
    )
    return Table(
        "polclip_model",
        f"PolCLIP's parts; borrowed blocks count once, with their tower ({set_title(c)})",
        columns,
        rows,
    )


@table
def textual(c: Collection) -> Table | None:
    """F1 of baselines and of PolCLIP's three scores, by set and part of speech where there are
    several.
    """
    if not c.answered:
        return None
    rows, main = [], [r["run"] for r in trained_runs(c)]
    for group in shown_groups(c):
        lines = {name: textual_cells(c, [(key, "")], [], group) for key, name in SYSTEMS.items()}
        others = [(ZERO_SHOT, "")] * len(main)
        lines |= {
            name: textual_cells(c, [(run, score) for run in main], others, group)
            for score, name in SCORES.items()
        }
        rows += [
            {"group": {"items": "all items"}.get(group, group), "system": name, **cells}
            for name, cells in lines.items()
            if cells
        ]
        rows += _published(c, group, rows[-1]["n"])
    columns = (
        Column("group", "Items"),
        Column("system", "System"),
        Column("n", "n", "d"),
        Column("value", "F1", ".2f"),
        Column("ci", "95 % interval"),
        Column("spread", "lowest–highest seed"),
        *PAIRED,
    )
    return Table(
        "textual",
        "Textual WSD, percent: means over seeds with the interval of the middle one; differences"
        f" are against the sentence encoder, zero-shot ({set_title(c)})",
        columns,
        rows,
    )


def _published(c: Collection, group: str, n: int) -> list[dict]:
    """Lines of published systems, beside the paper's data alone; their intervals are those of the
    printed shares.
    """
    if c.profile != "paper" or c.measured["wsd_answers"].meta["limit"]:
        return []
    return [
        {
            "group": group,
            "system": f"{entry['about']}, reported ({entry['source']})",
            "n": n,
            "value": f1,
            "ci": interval(*wilson(f1 * n / 100, n)),
        }
        for entry, f1 in published(group, n)
    ]


def zero_shot(c: Collection, language: str) -> dict[str, Predictions]:
    """Variant -> run of the encoder that was given PolCLIP's text untrained (else the baseline's);
    the bare phrase first.
    """
    encoder = min((p.encoder for p in c.select(variant="photo")), default=c.baseline)
    runs = c.select(encoder=encoder, language=language, split="test") if encoder else []
    return {
        p.variant: p
        for p in sorted(runs, key=lambda p: (p.variant != "phrase", p.variant))
        if p.variant.split("+")[0] in ("phrase", "photo")
    }


def _text(variant: str) -> str:
    kind, _, definer = variant.partition("+")
    name = {"phrase": "phrase", "photo": "“A photo of …”", **SCORES}[kind]
    return name + (f", definition by {definer.replace('-', ' ')}" if definer else "")


@table
def visual_polclip(c: Collection) -> Table | None:
    """Hit@1 and MRR of PolCLIP's three scores by language, against the encoder that was not
    trained, on the same text.
    """
    rows, main = [], [r["run"] for r in trained_runs(c)]
    for language in LANGUAGE_NAMES if main else ():
        plain, named = zero_shot(c, language), {"language": LANGUAGE_NAMES[language]}
        lines = [
            (variant, p)
            for variant in (*SCORES, *_defined(c, main))
            if all(p := visual_runs(c, main, variant, language))
        ]
        for variant, p in plain.items() if lines else ():
            rows.append(
                {
                    **named,
                    "system": f"{p.encoder}, zero-shot: {_text(variant)}",
                    **visual_cells(c, [p], []),
                }
            )
        for variant, mine in lines:
            other = next(
                (p for p in plain.values() if p.texts == mine[0].texts), plain.get("phrase")
            )
            rows.append(
                {
                    **named,
                    "system": _text(variant),
                    **visual_cells(c, mine, [other] * len(mine)),
                    "against": other and _text(other.variant),
                }
            )
    columns = (
        Column("language", "Language"),
        Column("system", "System"),
        Column("n", "n", "d"),
        Column("value", "Hit@1", ".2f"),
        Column("ci", "95 % interval"),
        Column("spread", "lowest–highest seed"),
        Column("mrr", "MRR", ".2f"),
        Column("mrr_ci", "95 % interval"),
        Column("against", "against zero-shot"),
        *PAIRED,
    )
    caption = (
        "Visual WSD, percent: means over seeds with the interval of the middle one"
        f" ({set_title(c)})"
    )
    return Table("visual_polclip", caption, columns, rows) if rows else None


def _defined(c: Collection, main: Sequence[str]) -> list[str]:
    """Variants with a definition in the text: sum+<definer>."""
    return sorted(
        {
            p.variant
            for p in c.predictions.values()
            if p.encoder in {f"polclip-{run}" for run in main} and p.variant.startswith("sum+")
        }
    )


@table
def polclip_ablations(c: Collection) -> Table | None:
    """What each part is worth: models trained without it, and other scores of the models as they
    are, against the same seed's full model.
    """
    main, changed = {r["seed"]: r["run"] for r in trained_runs(c)}, {}
    for r in trained_runs(c, "ablation"):
        if r["seed"] in main:
            changed.setdefault(r["changed"], []).append((r["run"], main[r["seed"]]))
    whole = [(run, run) for run in main.values()]
    lines = [
        ("the full model", "yes", whole, "sum"),
        *((name, "yes", pairs, "sum") for name, pairs in changed.items()),
        ("plain alone", "no", whole, "plain"),
        ("fused alone", "no", whole, "fused"),
        *(
            (f"with definitions by {v.removeprefix('sum+').replace('-', ' ')}", "no", whole, v)
            for v in _defined(c, list(main.values()))
        ),
    ]
    rows = []
    for name, trained, pairs, score in lines:
        mine, others = (
            [run for run, _ in pairs],
            [other for _, other in pairs] if name != "the full model" else [],
        )
        words = (
            textual_cells(
                c,
                [(run, score) for run in mine],
                [(run, "sum") for run in others],
                shown_groups(c)[0],
            )
            if c.answered
            else {}
        )
        cells = {
            "t": words,
            "v": visual_cells(c, visual_runs(c, mine, score), visual_runs(c, others, "sum")),
        }
        named = {
            f"{key}_{name}": value for key, some in cells.items() for name, value in some.items()
        }
        rows += [{"change": name, "trained": trained, **named}] if named else []
    measures = (("t", "Textual F1"), ("v", "Visual hit@1"))
    heads = (
        Column("n", "n", "d"),
        Column("value", "{}", ".2f"),
        Column("ci", "95 % interval"),
        *PAIRED,
    )
    columns = (
        Column("change", "Change"),
        Column("trained", "trained anew"),
        *(
            Column(f"{key}_{h.key}", h.heading.format(what), h.format)
            for key, what in measures
            for h in heads
        ),
    )
    caption = (
        "What each part is worth, English, percent: means over the seeds that were run;"
        " differences are against the full model of the same seed, p is not corrected for the"
        f" number of lines ({set_title(c)})"
    )
    return Table("polclip_ablations", caption, columns, rows) if len(rows) > 1 else None


RIGHT = {
    "sense_right": ("best of the senses", "sense"),
    "picture_right": ("best of the pictures", "picture"),
    "first_right": ("first of all, sense or picture", ""),
}


@table
def multimodal(c: Collection) -> Table | None:
    """One context, its senses and their pictures in one ranking: how often the best of each kind is
    right, beside a guess.
    """
    rows, records = [], c.measured["multimodal"].records if "multimodal" in c.measured else []
    for key, (name, kind) in RIGHT.items():
        asked = [
            (r[key], some)
            for r in records
            if (some := [e["sense"] == r["gold"] for e in r["ranking"] if kind in ("", e["kind"])])
        ]
        if asked:
            k, n, chance = (
                sum(right for right, _ in asked),
                len(asked),
                100 * fmean(fmean(some) for _, some in asked),
            )
            rows.append(
                {
                    "what": name,
                    "n": n,
                    "k": k,
                    "value": percent(k, n),
                    "ci": interval(*wilson(k, n)),
                    "chance": chance,
                }
            )
    columns = (
        Column("what", "Right"),
        Column("n", "n", "d"),
        Column("k", "k", "d"),
        Column("value", "percent", ".1f"),
        Column("ci", "95 % interval"),
        Column("chance", "a guess", ".1f"),
    )
    return (
        Table(
            "multimodal",
            f"Senses and pictures ranked together for one context ({set_title(c)})",
            columns,
            rows,
        )
        if rows
        else None
    )


@table
def multimodal_examples(c: Collection) -> Table | None:
    """A few contexts at even steps, with the first three of their rankings."""
    records, prefix = (
        c.measured["multimodal"].records if "multimodal" in c.measured else [],
        {
            "picture": "picture of ",
            "sense": "",
        },
    )
    rows = [
        {
            **{key: r[key] for key in ("lemma", "sentence", "gold")},
            "right": "yes" if r["first_right"] else "no",
            "first": "; ".join(
                f"{prefix[e['kind']]}{e['sense']} ({e['score']:.2f})" for e in r["ranking"][:3]
            ),
        }
        for r in records[:: max(1, len(records) // EXAMPLES)][:EXAMPLES]
    ]
    columns = (
        Column("lemma", "Word"),
        Column("sentence", "Context"),
        Column("gold", "Sense meant"),
        Column("first", "First three"),
        Column("right", "first is right"),
    )
    caption = (
        f"Rankings of senses and pictures, scores standardised within each kind ({set_title(c)})"
    )
    return Table("multimodal_examples", caption, columns, rows) if rows else None
