"""Views of notebook 04: languages the encoder never learned, translated or read by encoders that
did.
"""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib import pyplot as plt
from matplotlib.transforms import ScaledTranslation

from vwsdlib.analysis.metrics import fisher_test
from vwsdlib.language.quality import RULES
from vwsdlib.language.translate import TRANSLATORS

from ..facts.collect import LANGUAGE_NAMES, Collection, language_place
from ..facts.predictions import Predictions
from .base import records_of
from .figures import Drawing, Series, dot, dots, figure, name_rows, panels
from .paired import difference, score_cells, share_cells, with_ends
from .style import BLACK, BLUE, DASHED, GREEN, GREY, ORANGE, RED, SKY
from .tables import Rows, table

COLOURS = (ORANGE, BLUE, GREEN, SKY, RED)  # of the raw phrase, then of each translation
EXAMPLES = 8  # translations shown for each language and translator
ANY = "any mark"
KINDS_OF_TRANSLATION = {
    "reference": "reference translation (upper bound)",
    "literal": "literal translation (word by word)",
}


def translators(c: Collection) -> dict[tuple[str, str], str]:
    """(variant, language) -> translator, as notebook 04 wrote it down."""
    records = records_of(c, "translators")
    return {(r["variant"], r["language"]): r["translator"] for r in records}


def text_name(variant: str, language: str, c: Collection) -> str:
    """What was given to the encoder, for people."""
    if variant == "phrase":
        return "as it is"
    name = translators(c).get((variant, language), variant)
    return KINDS_OF_TRANSLATION.get(name, f"translated by {name}")


def foreign_runs(c: Collection) -> list[Predictions]:
    """Test runs of phrases other than English, raw and translated; by language, the baseline first,
    raw before translated; empty where nothing was translated."""
    known = translators(c)

    def place(p: Predictions) -> tuple:
        baseline, raw = p.encoder == c.baseline, p.variant == "phrase"
        return language_place(p.meta["language"]), not baseline, p.encoder, not raw, p.variant

    runs = [
        p
        for p in c.select(split="test")
        if p.meta["language"] != "en"
        and (p.variant == "phrase" or (p.variant, p.meta["language"]) in known)
    ]
    return sorted(runs, key=place) if known else []


@table
def multilingual_table(c: Collection) -> Rows:
    """Every encoder on Italian and Farsi, raw and translated, each tested against raw text."""
    rows = []
    for p in foreign_runs(c):
        language = p.meta["language"]
        rival = c.baseline if p.variant == "phrase" else p.encoder
        against = c.predictions.get(f"{rival}.phrase.{language}.{p.meta['split']}")
        tested = {}
        if against and against is not p:
            tested = {**difference(against, p), "against": f"{against.encoder}, as it is"}
        text = text_name(p.variant, language, c)
        cells = {"language": LANGUAGE_NAMES[language], "encoder": p.encoder, "text": text}
        rows.append({**cells, **score_cells(p), **tested})
    return rows


@figure
def multilingual_figure(c: Collection) -> Drawing:
    """Hit@1 by encoder for each language: the raw phrase and each translation, with 95 %
    intervals."""
    runs = foreign_runs(c)
    languages = list(dict.fromkeys(p.meta["language"] for p in runs))
    if not languages:
        return None
    encoders = list(dict.fromkeys(p.encoder for p in runs))
    size = (5.4 * len(languages), 1.7 + 0.5 * len(encoders))
    fig, axes = panels(1, len(languages), *size, sharey=True)
    for ax, language in zip(axes[0], languages):
        own = [p for p in runs if p.meta["language"] == language]
        texts = list(dict.fromkeys(p.variant for p in own))
        looks = {}
        for text, colour in zip(texts, COLOURS):
            looks[text] = (colour, "s" if text == "phrase" else "o")
        for p in own:
            beside = (texts.index(p.variant) - (len(texts) - 1) / 2) * 0.2
            y = encoders.index(p.encoder) + beside
            dot(ax, c.rows[f"{p.run}/hit@1"], y, *looks[p.variant])
        for text, (colour, marker) in looks.items():
            name = text_name(text, language, c)
            ax.errorbar([], [], fmt=marker, color=colour, label=name)
        ax.axvline(10, **DASHED)
        name_rows(ax, encoders, title=f"{LANGUAGE_NAMES[language]} (n = {own[0].meta['n']})")
        ax.set_xlim(left=0)
        lower = ScaledTranslation(0, -0.55, fig.dpi_scale_trans)  # inches: below the axis label
        below = {"bbox_to_anchor": (0.5, 0), "bbox_transform": ax.transAxes + lower}
        ax.legend(loc="upper center", **below)
    return fig, [c.rows[f"{p.run}/hit@1"] for p in runs]


def marked_runs(c: Collection) -> Iterator[tuple[str, str, list[dict], Predictions]]:
    """(translator, language, translation records, predictions made from them), baseline first."""
    for p in foreign_runs(c):
        if p.variant == "phrase":
            continue
        language = p.meta["language"]
        name = translators(c)[p.variant, language]
        records, _ = c.translations.get(f"{name}.{language}.{p.meta['split']}", ([], {}))
        if len(records) == len(p.items):
            yield name, language, records, p


@table
def translation_marks_table(c: Collection) -> Rows:
    """How many translations each rule marks, and how often marked and unmarked items are solved."""
    rows = []
    for name, language, records, p in marked_runs(c):
        right = p.ranks == 1
        marks = {rule: [rule in record["flags"] for record in records] for rule in RULES}
        marks[ANY] = [bool(record["flags"]) for record in records]
        for mark, marked in marks.items():
            k, n = int(sum(right[marked])), sum(marked)
            if not n and mark != ANY:
                continue
            rest, m = int(right.sum()) - k, len(records) - n
            shares, others = share_cells(k, n), share_cells(rest, m)
            rows.append(
                {
                    "language": LANGUAGE_NAMES[language],
                    "translator": name,
                    "encoder": p.encoder,
                    "mark": mark.replace("_", " "),
                    "n": n,
                    "value": shares.get("value"),
                    "ci": shares.get("ci"),
                    "rest_n": m,
                    "rest": others.get("value"),
                    "rest_ci": others.get("ci"),
                    "p": fisher_test(k, n, rest, m) if n and m else None,
                }
            )
    return rows


@figure
def translation_quality_figure(c: Collection) -> Drawing:
    """Items with a marked translation against the others: hit@1 with 95 % intervals, the first
    encoder of each translator."""
    made, rows, encoders = translation_marks_table(c), [], {}
    for row in made.rows if made else ():
        first = encoders.setdefault((row["translator"], row["language"]), row["encoder"])
        if (row["mark"], row["encoder"]) == (ANY, first) and row["n"] and row["rest_n"]:
            rows.append(row)
    if not rows:
        return None
    fig, ax = plt.subplots(figsize=(8, 1.5 + 0.6 * len(rows)), layout="constrained")
    marked = [with_ends(row["value"], row["ci"]) for row in rows]
    others = [with_ends(row["rest"], row["rest_ci"]) for row in rows]
    series = [
        Series("marked by a rule", ORANGE, "o", -0.14, marked),
        Series("not marked", BLUE, "o", 0.14, others),
    ]
    dots(ax, series)
    for one, key in zip(series, ("n", "rest_n")):
        for y, row in enumerate(rows):
            right = one.rows[y]["ci_high"] + 0.8
            ax.text(right, y + one.beside, f"n = {row[key]}", fontsize=8, va="center")
    ax.axvline(10, **DASHED)
    names = [f"{row['language']}, {row['translator']}\n{row['encoder']}" for row in rows]
    name_rows(ax, names)
    ax.legend(loc="center right")
    return fig, rows


def _translated(c: Collection) -> list[str]:
    """Names of the files of translations, Italian first."""
    return sorted(c.translations, key=lambda key: (c.translations[key][1]["source"] != "it", key))


@table
def translation_examples_table(c: Collection) -> Rows:
    """The first marked translations of each language and translator, to be checked by hand."""
    rows = []
    for key in _translated(c):
        records, meta = c.translations[key]
        shown = [record for record in records if record["flags"]] or records
        for record in shown[:EXAMPLES]:
            language = LANGUAGE_NAMES[record["language"]]
            flags = ", ".join(record["flags"]).replace("_", " ") or "none"
            named = {"language": language, "translator": meta["translator"]}
            rows.append({**record, **named, "flags": flags})
    return rows


@figure
def translations_shown_figure(c: Collection) -> Drawing:
    """Phrases as they stand and in English; Farsi shaped and from right to left."""
    keys = _translated(c)[:4]
    if not keys:
        return None
    shown = {key: c.translations[key][0][:EXAMPLES] for key in keys}
    fig, axes = panels(1, len(keys), 4.8 * len(keys), 0.9 + 0.32 * EXAMPLES)
    for ax, (key, records) in zip(axes[0], shown.items()):
        name, language, _ = key.rsplit(".", 2)  # nllb-1.3b.it.test
        ax.set_axis_off()
        ax.set(title=f"{LANGUAGE_NAMES[language]}, {name}", xlim=(0, 1), ylim=(EXAMPLES, 0))
        for line, record in enumerate(records):
            y = line + 0.5
            words = record["phrase_en"][:34] + (" …" if len(record["phrase_en"]) > 34 else "")
            level = {"va": "center", "fontsize": 9}
            ax.text(0.46, y, record["phrase"], ha="right", **level)
            ax.text(0.5, y, "→", ha="center", color=GREY, **level)
            ax.text(0.54, y, words, ha="left", color=RED if record["flags"] else BLACK, **level)
    return fig, shown


@table
def translators_used_table(c: Collection) -> Rows:
    """Who translated, with which model and settings."""
    metas = [meta for _, meta in c.translations.values()]
    metas.sort(key=lambda meta: (meta["source"] != "it", meta["translator"]))
    return [
        {
            **meta,
            "language": LANGUAGE_NAMES[meta["source"]],
            "revision": meta["revision"][:12],
            "about": TRANSLATORS[meta["translator"]].about,
        }
        for meta in metas
    ]
