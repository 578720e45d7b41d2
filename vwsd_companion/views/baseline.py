"""Views of notebooks 01 and 02: the set, the audit, the zero-shot baseline and when to trust it."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib import pyplot as plt

from vwsdlib.analysis.metrics import margins, wilson

from ..facts.collect import LANGUAGE_NAMES, Collection, language_place
from ..facts.predictions import Predictions
from .figures import Drawing, dot, figure, numbers_of, panels, picture_grid, spans
from .paired import difference
from .style import BLACK, BLUE, DASHED, GREY, LANGUAGE_COLOURS, MARKERS, RED, SKY
from .tables import Rows, interval, table

VARIANTS = {"word": "bare word", "phrase": "phrase", "this_is": "“This is …”"}
TEXTS = {
    "chance": "chance",
    "rarest": "none: rarest picture",
    "most_frequent": "none: most frequent picture",
    **VARIANTS,
}
RULES = {"rarest": "pick the rarest picture", "most_frequent": "pick the most frequent"}
NO_MODEL = "–"


# ---------------------------------------------------------------- 01: the set


@table
def data_counts_table(c: Collection) -> Rows:
    """Sizes of each language and split."""
    return [
        {
            **audit,
            "language": LANGUAGE_NAMES[audit["language"]],
            "words": audit["mean_words"],
            "meanings": audit["mean_meanings"],
        }
        for audit in c.audits.values()
    ]


@figure
def ambiguity_figure(c: Collection) -> Drawing:
    """How many meanings (distinct gold concepts) each target word has, by language."""
    audits = _test_audits(c)
    if not audits:
        return None
    fig, axes = panels(1, len(audits), 3.4 * len(audits), 2.8, sharey=True)
    for ax, audit in zip(axes[0], audits):
        counts = {int(meanings): targets for meanings, targets in audit["meanings"].items()}
        colour = LANGUAGE_COLOURS[audit["language"]]
        bars = ax.bar(list(counts), list(counts.values()), color=colour, width=0.7)
        ax.bar_label(bars, fontsize=8)
        ax.margins(y=0.12)
        ax.set(
            title=f"{LANGUAGE_NAMES[audit['language']]} ({sum(counts.values())} targets)",
            xticks=range(1, max(counts) + 1),
        )
        ax.grid(axis="x", visible=False)
    axes[0][0].set_ylabel("targets")
    numbers = {f"{audit['language']}.{audit['split']}": audit["meanings"] for audit in audits}
    return fig, numbers


@table
def audit_table(c: Collection) -> Rows:
    """Hit@1 of rules that read no text and see no pixel."""
    rows = []
    for audit in c.audits.values():
        cells = {f"{rule}_ci": interval(*ends) for rule, ends in audit["intervals"].items()}
        rows.append({**audit, **cells, "language": LANGUAGE_NAMES[audit["language"]]})
    return rows


@figure
def audit_figure(c: Collection) -> Drawing:
    """Left: hit@1 of rules that see neither text nor pixels. Right: where the gold stands among the
    ten."""
    audits = _test_audits(c)
    if not audits:
        return None
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
    for i, audit in enumerate(audits):
        beside = (i - (len(audits) - 1) / 2) * 0.22
        colour, marker = LANGUAGE_COLOURS[audit["language"]], MARKERS[audit["language"]]
        for y, rule in enumerate(RULES):
            low, high = audit["intervals"][rule]
            name = f"{LANGUAGE_NAMES[audit['language']]} (n = {audit['n']})" if y == 0 else None
            row = {"value": audit[rule], "ci_low": low, "ci_high": high}
            dot(left, row, y + beside, colour, marker, label=name)
        shares = [100 * k / audit["n"] for k in audit["position_counts"]]
        right.plot(range(1, 11), shares, marker=marker, color=colour, lw=1.2)
    left.axvline(10, **DASHED)
    left.text(10.2, 1.62, "chance", color="#666666", fontsize=8)
    left.set(yticks=range(len(RULES)), yticklabels=RULES.values())
    left.set_xlim(0, max(25, left.get_xlim()[1]))
    left.legend(loc="center right")
    right.axhline(10, **DASHED)
    return fig, audits


def _test_audits(c: Collection) -> list[dict]:
    return [audit for audit in c.audits.values() if audit["split"] == "test"]


@figure(pictures=True)
def examples_en_figure(c: Collection) -> Drawing:
    """English items with their ten pictures, the gold framed."""
    return _examples(c, "en")


@figure(pictures=True)
def examples_it_figure(c: Collection) -> Drawing:
    """Italian items with their ten pictures, the gold framed."""
    return _examples(c, "it")


@figure(pictures=True)
def examples_fa_figure(c: Collection) -> Drawing:
    """Farsi items with their ten pictures, the gold framed."""
    return _examples(c, "fa")


def _examples(c: Collection, language: str, rows: int = 4) -> Drawing:
    audit = next((audit for audit in _test_audits(c) if audit["language"] == language), None)
    if audit is None:
        return None
    data = c.data(audit)
    step = max(1, len(data.items) // rows)
    items = data.items[: step * rows : step]
    keys = ("id", "phrase", "candidates", "gold")
    numbers = [{key: getattr(item, key) for key in keys} for item in items]
    return picture_grid(items, data), numbers, {"credit": data.credit}


# ---------------------------------------------------------------- 02: the baseline


@table
def baseline_table(c: Collection) -> Rows:
    """Chance, rules without text, and every text of the encoders of notebook 02, by language."""
    models, texts = [NO_MODEL, *c.baselines], [*TEXTS]
    rows = [
        row
        for row in c.rows.values()
        if (row["metric"], row["split"]) == ("hit@1", "test")
        and row["variant"] in TEXTS
        and _model(row) in models
    ]
    rows.sort(
        key=lambda row: (
            language_place(row["language"]),
            models.index(_model(row)),
            texts.index(row["variant"]),
        )
    )
    scored = any(row["variant"] in VARIANTS for row in rows)
    return [_baseline_row(row, c) for row in rows] if scored else None


def _model(row: dict) -> str:
    """The encoder of a row, or NO_MODEL."""
    return NO_MODEL if row["model"] == "none" else row["id"].split(".")[0]


def _baseline_row(row: dict, c: Collection) -> dict:
    cells = {
        **row,
        "language": LANGUAGE_NAMES[row["language"]],
        "model": _model(row),
        "what": TEXTS[row["variant"]],
        "k": round(row["k"], 2),
        "ci": interval(row["ci_low"], row["ci_high"]),
    }
    reciprocal = c.rows.get(row["id"].replace("/hit@1", "/mrr"))
    if reciprocal:
        cells["mrr"] = reciprocal["value"]
        cells["mrr_ci"] = interval(reciprocal["ci_low"], reciprocal["ci_high"])
    return cells


@table
def baseline_paired_table(c: Collection) -> Rows:
    """Each pair of texts on the same items: who is right where the other is wrong."""
    rows = []
    for language, encoder in itertools.product(LANGUAGE_NAMES, c.baselines):
        runs = {p.variant: p for p in c.select(encoder, language=language, split="test")}
        for a, b in itertools.combinations([text for text in VARIANTS if text in runs], 2):
            tested = difference(runs[a], runs[b])
            if tested:
                cells = {"language": LANGUAGE_NAMES[language], "model": encoder, **tested}
                rows.append({**cells, "a": VARIANTS[a], "b": VARIANTS[b], "n": len(runs[a].ranks)})
    return rows


@figure
def baseline_figure(c: Collection) -> Drawing:
    """Hit@1 by language and text with 95 % intervals, chance as a line."""
    runs = [p for p in c.select(c.baseline, split="test") if p.variant in VARIANTS]
    if not runs:
        return None
    texts, colours = [*VARIANTS], (GREY, BLUE, SKY)
    runs.sort(key=lambda p: (language_place(p.meta["language"]), texts.index(p.variant)))
    sizes = {p.meta["language"]: p.meta["n"] for p in runs}
    languages, rows = [*sizes], [c.rows[f"{p.run}/hit@1"] for p in runs]
    fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for p, row in zip(runs, rows):
        group, place = languages.index(p.meta["language"]), texts.index(p.variant)
        x, name = group + (place - 1) * 0.26, VARIANTS[p.variant] if group == 0 else None
        ax.bar(x, row["value"], width=0.24, color=colours[place], label=name)
        ax.errorbar(x, row["value"], yerr=spans(row), color=BLACK, lw=1)
        ax.text(x, row["ci_high"] + 1.5, f"{row['value']:.1f}", ha="center", fontsize=8)
    ax.axhline(10, **{**DASHED, "color": RED})
    ax.text(len(languages) - 0.56, 11, "chance", color=RED, fontsize=8)
    ax.set(
        xticks=range(len(languages)),
        xticklabels=[f"{LANGUAGE_NAMES[key]}\n(n = {n})" for key, n in sizes.items()],
        xlim=(-0.55, len(languages) - 0.3),
    )
    ax.grid(axis="x", visible=False)
    ax.legend(title="text given to the encoder", title_fontsize=8)
    return fig, [numbers_of(row) for row in rows], {"model": runs[0].meta["model"]}


@figure
def reliability_figure(c: Collection) -> Drawing:
    """Is a clear win also a right one? Share right in fifths of the items by margin between first
    and second candidate."""
    runs = c.select(c.baseline, variant="phrase", split="test")
    if not runs:
        return None
    fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    numbers = {p.run: margin_bins(p) for p in runs}
    for p in runs:
        bins, language = numbers[p.run], p.meta["language"]
        values = np.array([row["value"] for row in bins])
        low = np.array([row["ci_low"] for row in bins])
        high = np.array([row["ci_high"] for row in bins])
        ax.errorbar(
            [row["margin"] for row in bins],
            values,
            yerr=[values - low, high - values],
            marker=MARKERS[language],
            color=LANGUAGE_COLOURS[language],
            lw=1.3,
            label=f"{LANGUAGE_NAMES[language]} ({len(bins)} bins of about {bins[0]['n']})",
        )
    ax.axhline(10, **DASHED)
    right = {"ha": "right", "transform": ax.get_yaxis_transform()}
    ax.text(1.0, 11, "chance", color="#666666", fontsize=8, **right)
    ax.legend()
    return fig, numbers


def margin_bins(p: Predictions, bins: int = 5) -> list[dict]:
    """Items in `bins` equal parts by margin (best minus second score): mean margin, n, k, hit@1 and
    interval in percent."""
    margin = margins(p.scores)  # [n]
    rows = []
    for part in np.array_split(np.argsort(margin, kind="stable"), min(bins, len(margin))):
        k, n = int((p.ranks[part] == 1).sum()), len(part)
        low, high = wilson(k, n)
        counted = {"n": n, "k": k, "value": 100 * k / n, "ci_low": low, "ci_high": high}
        rows.append({"margin": float(margin[part].mean()), **counted})
    return rows


@figure(pictures=True)
def best_and_worst_figure(c: Collection) -> Drawing:
    """Three English items won by the widest margin over the best wrong picture, and three lost by
    the widest."""
    p = next(iter(c.select(c.baseline, variant="phrase", split="test")), None)
    if p is None:
        return None
    gold = np.array([item.gold_index for item in p.items])  # [n]
    own = p.scores[np.arange(len(gold)), gold]  # [n]
    rivals = np.where(np.arange(10) == gold[:, None], -np.inf, p.scores).max(1)  # [n]
    order = np.argsort(rivals - own, kind="stable")
    chosen = [*order[:3], *order[::-1][:3]]
    items, data = [p.items[i] for i in chosen], c.data(p.meta)
    fig = picture_grid(items, data, [p.scores[i] for i in chosen])
    ahead = [float(own[i] - rivals[i]) for i in chosen]
    numbers = [
        {"id": item.id, "phrase": item.phrase, "gold_minus_best_other": gap}
        for item, gap in zip(items, ahead)
    ]
    return fig, numbers, {"model": p.meta["model"], "credit": data.credit}
