"""Figures of notebook 03: the ladder, the decoder's scores, what the masks' contrast says about
being right.
"""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt

from vwsdlib.analysis.masks import association

from ...facts.collect import Collection
from ..tables.clipseg import CONTRASTS, contrasts_by_item, decoder, ladder_runs
from . import BLACK, BLUE, GREY, ORANGE, Drawn, figure, finish, spans


@figure
def ladder(c: Collection) -> Drawn | None:
    """Hit@1 after each step from the baseline to the study's second row, with 95 % intervals."""
    runs = ladder_runs(c)
    if len(runs) < 2:
        return None
    rows = [c.rows[f"{run.run}/hit@1"] for _, run in runs]
    fig, ax = plt.subplots(figsize=(8.5, 1.2 + 0.55 * len(runs)), layout="constrained")
    for y, row in enumerate(rows):
        ax.errorbar(row["value"], y, xerr=spans(row), fmt="o", color=BLUE, capsize=3)
        ax.text(
            row["value"],
            y - 0.22,
            f"{row['value']:.1f}",
            ha="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    ax.plot([row["value"] for row in rows], range(len(rows)), color=GREY, lw=1, zorder=0)
    labels = [f"{run.encoder}\n{change}" for change, run in runs]
    ax.axvline(10, color=GREY, ls="--", lw=1)
    ax.text(10.4, len(runs) - 0.55, "chance", fontsize=8, color="#666666")
    ax.set(
        yticks=range(len(runs)),
        yticklabels=labels,
        ylim=(len(runs) - 0.45, -0.6),
        xlim=(0, max(r["ci_high"] for r in rows) + 5),
        xlabel=f"hit@1, percent (95 % interval, n = {rows[0]['n']})",
    )
    ax.tick_params(axis="y", labelsize=8)
    finish(fig, "One change a step", c)
    return fig, [
        {"change": change, **{k: row[k] for k in ("id", "value", "ci_low", "ci_high", "n", "k")}}
        for (change, _), row in zip(runs, rows)
    ]


@figure
def decoder_scores(c: Collection) -> Drawn | None:
    """Hit@1 of scores that use the decoder, alone (orange squares) and mixed with the cosine (blue
    dots), against the cosine alone.
    """
    made = decoder(c)
    if made is None:
        return None
    cosine, *rest = made.rows
    names = [r for r in rest if "weight" not in r]
    fig, ax = plt.subplots(figsize=(8.5, 3.6), layout="constrained")
    for y, row in enumerate(names):
        mixed = rest[rest.index(row) + 1]
        for r, colour, marker, dy in ((row, ORANGE, "s", -0.14), (mixed, BLUE, "o", 0.14)):
            low, high = round(r["ci"].low, 1), round(r["ci"].high, 1)
            label = (
                {ORANGE: "decoder alone", BLUE: "mixed with the cosine (weight beside)"}[colour]
                if y == 0
                else None
            )
            ax.errorbar(
                r["value"],
                y + dy,
                xerr=[[max(0, r["value"] - low)], [max(0, high - r["value"])]],
                fmt=marker,
                color=colour,
                capsize=3,
                label=label,
            )
        ax.text(
            round(mixed["ci"].high, 1) + 0.6,
            y + 0.14,
            f"{mixed['weight']:g}",
            fontsize=8,
            va="center",
            color=BLUE,
        )
    ax.axvline(cosine["value"], color=BLACK, lw=1)
    ax.text(
        cosine["value"], -0.75, "cosine alone", fontsize=8, ha="center", backgroundcolor="white"
    )
    ax.axvline(10, color=GREY, ls="--", lw=1)
    ax.text(10, -0.75, "chance", fontsize=8, ha="center", color="#666666", backgroundcolor="white")
    ax.set(
        yticks=range(len(names)),
        yticklabels=[r["score"] for r in names],
        ylim=(len(names) - 0.4, -1.0),
        xlabel=f"hit@1, percent (95 % interval, n = {cosine['n']})",
    )
    ax.set_xlim(left=0)
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=2, frameon=False)
    finish(fig, "Does the decoder help?", c)
    return fig, made.rows


@figure
def mask_contrast(c: Collection) -> Drawn | None:
    """Contrast of mask and of cosine between own and other phrase, items solved and not; boxes are
    quartiles, whiskers 5 to 95 %.
    """
    by_item = contrasts_by_item(c)
    if by_item is None or not 0 < sum(by_item["right"]) < len(by_item["right"]):
        return None
    right, fig = np.array(by_item["right"]), None
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    rng = np.random.default_rng(0)
    for ax, (kind, about) in zip(axes, CONTRASTS.items()):
        values = np.array(by_item[kind])
        found = association(values, by_item["right"], by_item["targets"])
        for y, (name, chosen, colour) in enumerate(
            (("solved", right, BLUE), ("not solved", ~right, ORANGE))
        ):
            some = values[chosen]
            ax.scatter(
                some,
                y + rng.uniform(-0.26, 0.26, len(some)),
                s=9,
                alpha=0.45,
                color=colour,
                linewidths=0,
            )
            ax.boxplot(
                [some],
                positions=[y],
                orientation="horizontal",
                widths=0.24,
                whis=(5, 95),
                showfliers=False,
                medianprops={"color": BLACK, "lw": 1.5},
                boxprops={"color": BLACK},
                manage_ticks=False,
            )
        ax.axvline(0, color=GREY, ls="--", lw=1)
        ax.set(
            yticks=(0, 1),
            yticklabels=[f"solved\n(n = {right.sum()})", f"not solved\n(n = {(~right).sum()})"],
            ylim=(1.5, -0.5),
            xlabel=about.split(" (")[0],
            title=(
                f"{kind}: AUC {found['auc']:.2f} ({found['auc_low']:.2f}–{found['auc_high']:.2f})"
            ),
        )
    finish(fig, "Does the map answer to the phrase where the model is right?", c)
    return fig, by_item
