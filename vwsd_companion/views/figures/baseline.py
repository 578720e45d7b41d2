"""Figures of notebooks 01 and 02: the set, the audit, the zero-shot baseline and when to trust
it."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt

from vwsdlib.analysis.metrics import margins, wilson

from ...facts.collect import LANGUAGE_NAMES, Collection, language_place
from ...facts.predictions import Predictions
from ..tables import VARIANTS
from . import (
    BLACK,
    BLUE,
    GREY,
    LANGUAGE_COLOURS,
    MARKERS,
    RED,
    SKY,
    Drawn,
    figure,
    finish,
    picture_grid,
    spans,
)


@figure
def ambiguity(c: Collection) -> Drawn | None:
    """How many meanings (distinct gold concepts) each target word has, by language."""
    audits = _test_audits(c)
    if not audits:
        return None
    fig, axes = plt.subplots(
        1,
        len(audits),
        figsize=(3.4 * len(audits), 2.8),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, a in zip(axes[0], audits):
        counts = {int(k): v for k, v in a["meanings"].items()}
        bars = ax.bar(
            list(counts), list(counts.values()), color=LANGUAGE_COLOURS[a["language"]], width=0.7
        )
        ax.bar_label(bars, fontsize=8)
        ax.margins(y=0.12)
        ax.set(
            title=f"{LANGUAGE_NAMES[a['language']]} ({sum(counts.values())} targets)",
            xlabel="meanings of a target",
            xticks=range(1, max(counts) + 1),
        )
        ax.grid(axis="x", visible=False)
    axes[0][0].set_ylabel("targets")
    finish(fig, "How ambiguous are the words?", c)
    return fig, {f"{a['language']}.{a['split']}": a["meanings"] for a in audits}


@figure
def audit(c: Collection) -> Drawn | None:
    """Left: hit@1 of rules that see neither text nor pixels. Right: where the gold stands among the
    ten.
    """
    audits = _test_audits(c)
    if not audits:
        return None
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
    rules = {"rarest": "pick the rarest picture", "most_frequent": "pick the most frequent"}
    for i, a in enumerate(audits):
        for j, rule in enumerate(rules):
            low, high = a["intervals"][rule]
            y = j + (i - (len(audits) - 1) / 2) * 0.22
            left.errorbar(
                a[rule],
                y,
                xerr=[[a[rule] - low], [high - a[rule]]],
                fmt=MARKERS[a["language"]],
                color=LANGUAGE_COLOURS[a["language"]],
                capsize=3,
                label=f"{LANGUAGE_NAMES[a['language']]} (n = {a['n']})" if j == 0 else None,
            )
        right.plot(
            range(1, 11),
            [100 * k / a["n"] for k in a["position_counts"]],
            marker=MARKERS[a["language"]],
            color=LANGUAGE_COLOURS[a["language"]],
            lw=1.2,
        )
    left.axvline(10, color=GREY, ls="--", lw=1)
    left.text(10.2, 1.62, "chance", color="#666666", fontsize=8)
    left.set(
        yticks=range(len(rules)),
        yticklabels=rules.values(),
        ylim=(-0.6, 1.75),
        xlabel="hit@1, percent (95 % interval)",
        title="No-text rules",
    )
    left.set_xlim(0, max(25, left.get_xlim()[1]))
    left.legend(fontsize=8, loc="center right", frameon=False)
    right.axhline(10, color=GREY, ls="--", lw=1)
    right.set(
        xticks=range(1, 11),
        ylim=(0, 20),
        yticks=range(0, 21, 5),
        xlabel="position of the gold",
        ylabel="items, percent",
        title="Gold position",
    )
    finish(fig, "Can one guess without looking?", c)
    return fig, audits


@figure
def examples_en(c: Collection) -> Drawn | None:
    """English items with their ten pictures, the gold framed."""
    return _examples(c, "en")


@figure
def examples_it(c: Collection) -> Drawn | None:
    """Italian items with their ten pictures, the gold framed."""
    return _examples(c, "it")


@figure
def examples_fa(c: Collection) -> Drawn | None:
    """Farsi items with their ten pictures, the gold framed."""
    return _examples(c, "fa")


@figure
def baseline(c: Collection) -> Drawn | None:
    """Hit@1 by language and text with 95 % intervals, chance as a line."""
    runs = [p for p in c.select(split="test", encoder=c.baseline) if p.variant in VARIANTS]
    if not runs:
        return None
    runs.sort(
        key=lambda p: (language_place(p.meta["language"]), list(VARIANTS).index(p.meta["variant"]))
    )
    languages = list(dict.fromkeys(p.meta["language"] for p in runs))
    fig, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
    colours, drawn = dict(zip(VARIANTS, (GREY, BLUE, SKY))), []
    for p in runs:
        row = c.rows[f"{p.run}/hit@1"]
        x = (
            languages.index(p.meta["language"])
            + (list(VARIANTS).index(p.meta["variant"]) - 1) * 0.26
        )
        ax.bar(
            x,
            row["value"],
            width=0.24,
            color=colours[p.meta["variant"]],
            label=VARIANTS[p.meta["variant"]] if p.meta["language"] == languages[0] else None,
        )
        ax.errorbar(x, row["value"], yerr=spans(row), color=BLACK, capsize=3, lw=1)
        ax.text(x, row["ci_high"] + 1.5, f"{row['value']:.1f}", ha="center", fontsize=8)
        drawn.append({k: row[k] for k in ("id", "value", "ci_low", "ci_high", "n", "k")})
    ax.axhline(10, color=RED, ls="--", lw=1)
    ax.text(len(languages) - 0.56, 11, "chance", color=RED, fontsize=8)
    sizes = {p.meta["language"]: p.meta["n"] for p in runs}
    ax.set(
        xticks=range(len(languages)),
        xticklabels=[f"{LANGUAGE_NAMES[lang]}\n(n = {sizes[lang]})" for lang in languages],
        ylabel="hit@1, percent",
        ylim=(0, 100),
        xlim=(-0.55, len(languages) - 0.3),
    )
    ax.grid(axis="x", visible=False)
    ax.legend(frameon=False, fontsize=8, title="text given to the encoder", title_fontsize=8)
    finish(fig, f"What the phrase adds to the bare word: {runs[0].meta['model']}", c)
    return fig, drawn


@figure
def reliability(c: Collection) -> Drawn | None:
    """Is a clear win also a right one? Share right in fifths of the items by margin between first
    and second candidate.
    """
    runs = c.select(variant="phrase", split="test", encoder=c.baseline)
    if not runs:
        return None
    fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    drawn = {}
    for p in runs:
        bins = margin_bins(p)
        drawn[p.run] = bins
        language = p.meta["language"]
        x, y = [b["margin"] for b in bins], [b["value"] for b in bins]
        ax.errorbar(
            x,
            y,
            yerr=[
                [b["value"] - b["ci_low"] for b in bins],
                [b["ci_high"] - b["value"] for b in bins],
            ],
            marker=MARKERS[language],
            color=LANGUAGE_COLOURS[language],
            capsize=3,
            lw=1.3,
            label=f"{LANGUAGE_NAMES[language]} ({len(bins)} bins of about {bins[0]['n']})",
        )
    ax.axhline(10, color=GREY, ls="--", lw=1)
    ax.text(
        1.0,
        11,
        "chance",
        color="#666666",
        fontsize=8,
        ha="right",
        transform=ax.get_yaxis_transform(),
    )
    ax.set(
        xlabel="margin: best minus second-best cosine (mean of the bin)",
        ylabel="right, percent (95 % interval)",
        ylim=(0, 100),
    )
    ax.legend(frameon=False, fontsize=8)
    finish(fig, "Does the margin tell when to trust the answer?", c)
    return fig, drawn


def margin_bins(p: Predictions, bins: int = 5) -> list[dict]:
    """Items in `bins` equal parts by margin (best minus second score): mean margin, n, k, hit@1 and
    interval in percent.
    """
    margin = margins(p.scores)  # [n]
    found = []
    for part in np.array_split(np.argsort(margin, kind="stable"), min(bins, len(margin))):
        k, n = int((p.ranks[part] == 1).sum()), len(part)
        low, high = wilson(k, n)
        found.append(
            {
                "margin": float(margin[part].mean()),
                "n": n,
                "k": k,
                "value": 100 * k / n,
                "ci_low": low,
                "ci_high": high,
            }
        )
    return found


@figure
def best_and_worst(c: Collection) -> Drawn | None:
    """Three English items won by the widest margin over the best wrong picture, and three lost by
    the widest.
    """
    runs = c.select(variant="phrase", split="test", encoder=c.baseline)
    if not runs:
        return None
    p = runs[0]
    own = p.scores[np.arange(len(p.items)), [i.gold_index for i in p.items]]  # [n]
    rivals = np.where(
        np.arange(10)[None] == np.array([[i.gold_index] for i in p.items]), -np.inf, p.scores
    ).max(1)  # [n]
    order = np.argsort(rivals - own, kind="stable")
    chosen = [*order[:3], *order[::-1][:3]]
    fig = picture_grid([p.items[i] for i in chosen], c.data(p.meta), [p.scores[i] for i in chosen])
    finish(
        fig,
        f"Best three and worst three items of {p.meta['model']}, pictures ordered by score",
        c,
        c.data(p.meta).credit,
    )
    return fig, [
        {
            "id": p.items[i].id,
            "phrase": p.items[i].phrase,
            "gold_minus_best_other": float(own[i] - rivals[i]),
        }
        for i in chosen
    ]


def _test_audits(c: Collection) -> list[dict]:
    return [a for a in c.audits.values() if a["split"] == "test"]


def _examples(c: Collection, language: str, rows: int = 4) -> Drawn | None:
    found = [a for a in _test_audits(c) if a["language"] == language]
    if not found:
        return None
    data = c.data(found[0])
    step = max(1, len(data.items) // rows)
    items = [data.items[i * step] for i in range(min(rows, len(data.items)))]
    fig = picture_grid(items, data)
    finish(fig, f"{LANGUAGE_NAMES[language]} items; the gold has a blue frame", c, data.credit)
    return fig, [
        {"id": i.id, "phrase": i.phrase, "candidates": i.candidates, "gold": i.gold} for i in items
    ]
