"""Views of notebook 03: the ladder from one row of the study to the other, the decoder put to use,
the claim about masks measured.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from matplotlib import pyplot as plt

from vwsdlib.analysis.masks import STATISTICS, association, choose_weight, mix
from vwsdlib.analysis.metrics import gold_ranks, hits

from ..facts.collect import Collection
from ..facts.predictions import Predictions
from .base import records_of
from .figures import Drawing, Series, dots, figure, name_rows, numbers_of, panels
from .paired import cells_of, difference, difference_of, score_cells, share_cells, with_ends
from .style import BLACK, BLUE, DASHED, GREY, ORANGE
from .tables import Rows, spelled, table

CONTRASTS = {
    "mask": "mean of the mask, own phrase less the other's",
    "cosine": "cosine, own phrase less the other's (control)",
}


# ---------------------------------------------------------------- the ladder


def ladder_runs(c: Collection) -> list[tuple[str, Predictions]]:
    """(what changed, run) for each step of the ladder, baseline first; empty before notebook 03."""
    steps = records_of(c, "ladder")
    names = [f"{step['encoder']}.phrase.en.{step['split']}" for step in steps]
    return [
        (step["change"], c.predictions[name])
        for step, name in zip(steps, names)
        if name in c.predictions
    ]


@table
def ladder_table(c: Collection) -> Rows:
    """From the baseline to the study's second row, each step tested on the same items."""
    runs = ladder_runs(c)
    if len(runs) < 2:
        return None
    rows = []
    for i, (change, run) in enumerate(runs):
        tested = difference(runs[i - 1][1], run) if i else {}
        cells = {"step": i, "change": change, "encoder": run.encoder}
        rows.append({**cells, **score_cells(run), **tested})
    first, last = runs[0][1], runs[-1][1]
    ends = f"{first.encoder} → {last.encoder}"
    whole = {"step": len(runs), "change": "all steps together", "encoder": ends}
    return [*rows, {**whole, **difference(first, last)}]


@figure
def ladder_figure(c: Collection) -> Drawing:
    """Hit@1 after each step from the baseline to the study's second row, with 95 % intervals."""
    runs = ladder_runs(c)
    if len(runs) < 2:
        return None
    rows = [c.rows[f"{run.run}/hit@1"] for _, run in runs]
    fig, ax = plt.subplots(figsize=(8.5, 1.2 + 0.55 * len(runs)), layout="constrained")
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    dots(ax, [Series("", BLUE, "o", 0, rows)])
    for y, row in enumerate(rows):
        shown = f"{row['value']:.1f}"
        ax.text(row["value"], y - 0.22, shown, ha="center", fontsize=8, bbox=white)
    ax.plot([row["value"] for row in rows], range(len(rows)), color=GREY, lw=1, zorder=0)
    ax.axvline(10, **DASHED)
    ax.text(10.4, len(runs) - 0.55, "chance", fontsize=8, color="#666666")
    names = [f"{run.encoder}\n{change}" for change, run in runs]
    name_rows(ax, names, above=0.6, below=0.55)
    ax.set_xlim(0, max(row["ci_high"] for row in rows) + 5)
    ax.tick_params(axis="y", labelsize=8)
    numbers = [{"change": change, **numbers_of(row)} for (change, _), row in zip(runs, rows)]
    return fig, numbers, {"n": rows[0]["n"]}


# ---------------------------------------------------------------- encoders and their variants


@table
def backbones_table(c: Collection) -> Rows:
    """Every encoder's bare phrase in English, best first, each against the baseline."""
    runs = c.select(language="en", variant="phrase", split="test")
    runs = {p.encoder: p for p in runs if "@" not in p.encoder}
    first = runs.get(c.baseline)
    if len(runs) < 2 or first is None:
        return None
    rows = []
    for p in sorted(runs.values(), key=lambda p: -hits(p.ranks)):
        tested = difference(first, p) if p is not first else {}
        rows.append({"encoder": p.encoder, **score_cells(p), **tested})
    return rows, {"first": first.encoder}


@table
def dtype_drift_table(c: Collection) -> Rows:
    """What half precision and scaled decoding do to cosines and rankings: largest change of a
    score, items whose first picture changes, margin of those."""
    rows = []
    for p in c.predictions.values():
        _, at, kind = p.encoder.partition("@")
        reference = c.predictions.get(p.run.replace(at + kind, "")) if at else None
        if reference and p.meta["data_sha256"] == reference.meta["data_sha256"]:
            rows.append(_drift(p, reference))
    return rows


def _drift(p: Predictions, reference: Predictions) -> dict:
    change = np.abs(p.scores.astype(np.float64) - reference.scores)
    ordered = np.sort(reference.scores.astype(np.float64), axis=1)
    flipped = p.scores.argmax(1) != reference.scores.argmax(1)
    margin = (ordered[:, -1] - ordered[:, -2])[flipped]
    return {
        "encoder": p.encoder,
        "language": p.meta["language"],
        "n": len(p.items),
        "largest": float(change.max()),
        "mean": float(change.mean()),
        "flips": int(flipped.sum()),
        "margin": float(margin.max()) if len(margin) else None,
        "k": hits(reference.ranks),
        "k_variant": hits(p.ranks),
    }


# ---------------------------------------------------------------- the decoder


def decoder_facts(c: Collection) -> dict | None:
    """Runs that notebook 03 scored with a decoder: segmenter, the cosine it is mixed with,
    statistic -> (dev run, test run)."""
    if "decoder" not in c.measured:
        return None
    meta = c.measured["decoder"].meta
    splits = (meta["dev"], meta["split"])

    def pair(name: str) -> tuple[Predictions | None, ...]:
        return tuple(c.predictions.get(f"{name}.en.{split}") for split in splits)

    cosine = pair(f"{meta['dual']}.phrase")
    runs = {statistic: pair(f"{meta['segmenter']}.{statistic}") for statistic in STATISTICS}
    if not all(all(pair) for pair in (*runs.values(), cosine)):
        return None
    return {**meta, "cosine": cosine, "runs": runs}


@table
def decoder_table(c: Collection) -> Rows:
    """Scores that use the decoder, alone and mixed with the cosine by a weight chosen elsewhere."""
    facts = decoder_facts(c)
    if facts is None:
        return None
    dev_cosine, cosine = facts["cosine"]
    gold_dev, gold = ([item.gold_index for item in p.items] for p in facts["cosine"])
    rows = [{"score": f"cosine of {facts['dual']}, no decoder", **score_cells(cosine)}]
    for statistic, (dev, test) in facts["runs"].items():
        alone = {"score": STATISTICS[statistic], **score_cells(test), **difference(cosine, test)}
        weight, _ = choose_weight(dev_cosine.scores, dev.scores, gold_dev)
        ranks = gold_ranks(mix(cosine.scores, test.scores, weight), gold)
        tested = difference_of(cosine.ranks == 1, ranks == 1)
        name = f"… mixed with the cosine, weight {weight:g}"
        rows += [alone, {"score": name, "weight": weight, **cells_of(ranks), **tested}]
    words = {"n": len(gold_dev), "dev": dev_cosine.meta["split"]}
    return rows, {**words, "segmenter": facts["segmenter"]}


@figure
def decoder_scores_figure(c: Collection) -> Drawing:
    """Hit@1 of scores that use the decoder, alone (orange squares) and mixed with the cosine (blue
    dots), against the cosine alone."""
    made = decoder_table(c)
    if made is None:
        return None
    cosine, *rest = made.rows
    shown = [with_ends(row["value"], row["ci"]) for row in rest]
    alone, mixed = rest[::2], rest[1::2]
    fig, ax = plt.subplots(figsize=(8.5, 3.6), layout="constrained")
    name = "mixed with the cosine (weight beside)"
    series = [
        Series("decoder alone", ORANGE, "s", -0.14, shown[::2]),
        Series(name, BLUE, "o", 0.14, shown[1::2]),
    ]
    dots(ax, series)
    for y, row in enumerate(mixed):
        right = shown[2 * y + 1]["ci_high"] + 0.6
        ax.text(right, y + 0.14, f"{row['weight']:g}", fontsize=8, va="center", color=BLUE)
    middle = {"fontsize": 8, "ha": "center", "backgroundcolor": "white"}
    ax.axvline(cosine["value"], color=BLACK, lw=1)
    ax.text(cosine["value"], -0.75, "cosine alone", **middle)
    ax.axvline(10, **DASHED)
    ax.text(10, -0.75, "chance", color="#666666", **middle)
    name_rows(ax, [row["score"] for row in alone], above=1.0, below=0.6)
    ax.set_xlim(left=0)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=2)
    return fig, made.rows, {"n": cosine["n"]}


# ---------------------------------------------------------------- masks


def contrasts_by_item(c: Collection) -> dict | None:
    """Of every English item that shares its target: mean contrast of mask and of cosine, whether it
    was solved, its target; None where there is none, or none or all of them are solved."""
    m = c.measured.get("contrast")
    p = c.predictions.get(f"{m.meta['dual']}.phrase.en.{m.meta['split']}") if m else None
    if p is None:
        return None
    solved = {item.id: bool(rank == 1) for item, rank in zip(p.items, p.ranks)}
    values = {kind: defaultdict(list) for kind in CONTRASTS}
    targets = {}
    for pair in m.records:
        values["mask"][pair["id"]].append(pair["own"] - pair["foreign"])
        values["cosine"][pair["id"]].append(pair["own_cosine"] - pair["foreign_cosine"])
        targets[pair["id"]] = pair["target"]
    right = [solved[i] for i in targets]
    if not 0 < sum(right) < len(right):
        return None
    return {
        "meta": m.meta,
        "pairs": len(m.records),
        "ids": [*targets],
        "right": right,
        "targets": [*targets.values()],
        "mask": [float(np.mean(some)) for some in values["mask"].values()],
        "cosine": [float(np.mean(some)) for some in values["cosine"].values()],
    }


@table
def mask_contrast_table(c: Collection) -> Rows:
    """Does the mask answer to the phrase where the model is right? Contrast against correctness."""
    by_item = contrasts_by_item(c)
    rows = []
    for kind, about in CONTRASTS.items() if by_item else ():
        tested = association(by_item[kind], by_item["right"], by_item["targets"])
        shares = share_cells(sum(v > 0 for v in by_item[kind]), len(by_item["ids"]))
        rows.append(
            {
                "kind": about,
                **tested,
                "auc_ci": spelled(tested["auc_low"], tested["auc_high"], "–", 3),
                "r_ci": spelled(tested["r_low"], tested["r_high"], digits=3),
                "pairs": by_item["pairs"],
                "positive": shares["value"],
                "positive_ci": shares["ci"],
            }
        )
    return rows


@figure
def mask_contrast_figure(c: Collection) -> Drawing:
    """Contrast of mask and of cosine between own and other phrase, items solved and not; boxes are
    quartiles, whiskers 5 to 95 %."""
    by_item = contrasts_by_item(c)
    if by_item is None:
        return None
    right, rng = np.array(by_item["right"]), np.random.default_rng(0)
    groups = {"solved": (right, BLUE), "not solved": (~right, ORANGE)}
    names = [f"{name}\n(n = {chosen.sum()})" for name, (chosen, _) in groups.items()]
    fig, axes = panels(1, 2, 9, 3.2)
    for ax, kind in zip(axes[0], CONTRASTS):
        values = np.array(by_item[kind])
        for y, (chosen, colour) in enumerate(groups.values()):
            _spread(ax, values[chosen], y, colour, rng)
        ax.axvline(0, **DASHED)
        auc = association(values, by_item["right"], by_item["targets"])
        ends = f"({auc['auc_low']:.2f}–{auc['auc_high']:.2f})"
        name_rows(ax, names, title=f"{kind}: AUC {auc['auc']:.2f} {ends}")
    return fig, by_item


def _spread(
    ax: plt.Axes, values: np.ndarray, y: float, colour: str, rng: np.random.Generator
) -> None:
    """Values as dots about a height y, and their quartiles as a box."""
    beside = y + rng.uniform(-0.26, 0.26, len(values))
    ax.scatter(values, beside, s=9, alpha=0.45, color=colour, linewidths=0)
    ax.boxplot(
        [values],
        positions=[y],
        orientation="horizontal",
        widths=0.24,
        whis=(5, 95),
        showfliers=False,
        medianprops={"color": BLACK, "lw": 1.5},
        boxprops={"color": BLACK},
        manage_ticks=False,
    )


@table
def inner_clip_table(c: Collection) -> Rows:
    """Is CLIPSeg's inner CLIP the published ViT-B/16? Tensor by tensor, summed up by part."""
    parts = defaultdict(list)
    for tensor in records_of(c, "inner_clip"):
        parts[tensor["name"].split(".")[0]].append(tensor)
    rows = []
    for part, tensors in sorted(parts.items()):
        equal = sum(tensor["equal"] for tensor in tensors)
        apart = [tensor["max_abs_difference"] for tensor in tensors]
        largest = max((gap for gap in apart if gap is not None), default=None)
        rows.append({"part": part, "tensors": len(tensors), "equal": equal, "largest": largest})
    return rows
