"""Tables of notebook 03: the ladder from one row of the study to the other, the decoder put to use,
the claim about masks measured.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from vwsdlib.analysis.masks import STATISTICS, association, choose_weight, mix
from vwsdlib.analysis.metrics import gold_ranks, hits, percent, wilson

from ...facts.collect import Collection
from ...facts.predictions import Predictions
from . import Column, Table, interval, set_title, spelled, table
from .paired import PAIRED, SCORE, cells_of, difference, difference_of, score_cells


def ladder_runs(c: Collection) -> list[tuple[str, Predictions]]:
    """(what changed, run) for each step of the ladder, the baseline first; empty where notebook 03
    has not run.
    """
    if "ladder" not in c.measured:
        return []
    steps = [
        (r["change"], c.predictions.get(f"{r['encoder']}.phrase.en.{r['split']}"))
        for r in c.measured["ladder"].records
    ]
    return [(change, run) for change, run in steps if run]


@table
def ladder(c: Collection) -> Table | None:
    """From the baseline to the study's second row, one change a step, each step tested on the same
    items.
    """
    runs = ladder_runs(c)
    if len(runs) < 2:
        return None
    rows = [
        {
            "step": i,
            "change": change,
            "encoder": run.encoder,
            **score_cells(run),
            **(difference(runs[i - 1][1], run) if i else {}),
        }
        for i, (change, run) in enumerate(runs)
    ]
    rows.append(
        {
            "step": len(runs),
            "change": "all steps together",
            "encoder": f"{runs[0][1].encoder} → {runs[-1][1].encoder}",
            **difference(runs[0][1], runs[-1][1]),
        }
    )
    columns = (
        Column("step", "Step", "d"),
        Column("change", "Change"),
        Column("encoder", "Encoder"),
        *SCORE,
        *PAIRED,
    )
    return Table(
        "ladder",
        "From one row of the study to the other, English, one change a step; differences are"
        f" against the step before ({set_title(c)})",
        columns,
        rows,
    )


@table
def backbones(c: Collection) -> Table | None:
    """Every encoder's bare phrase in English, best first, each against the baseline."""
    runs = [
        p for p in c.select(language="en", variant="phrase", split="test") if "@" not in p.encoder
    ]
    first = next((p for p in runs if p.encoder == c.baseline), None)
    if len(runs) < 2 or first is None:
        return None
    rows = [
        {"encoder": p.encoder, **score_cells(p), **(difference(first, p) if p is not first else {})}
        for p in sorted(runs, key=lambda p: -hits(p.ranks))
    ]
    return Table(
        "backbones",
        f"All encoders on the English phrase; differences are against {first.encoder}"
        f" ({set_title(c)})",
        (Column("encoder", "Encoder"), *SCORE, *PAIRED),
        rows,
    )


@table
def dtype_drift(c: Collection) -> Table | None:
    """What half precision and scaled decoding do to cosines and rankings: largest change of a
    score, items whose first picture changes, margin of those.
    """
    pairs = [
        (p, base)
        for p in c.predictions.values()
        if "@" in p.encoder
        and (base := c.predictions.get(p.run.replace("@" + p.encoder.split("@")[1], "")))
    ]
    rows = [
        _drift(p, base) for p, base in pairs if p.meta["data_sha256"] == base.meta["data_sha256"]
    ]
    columns = (
        Column("encoder", "Variant"),
        Column("language", "Language"),
        Column("n", "n", "d"),
        Column("largest", "largest change of a cosine", ".2g"),
        Column("mean", "mean change", ".2g"),
        Column("flips", "first picture changes", "d"),
        Column("margin", "largest fp32 margin among those", ".2g"),
        Column("k", "right in fp32", "d"),
        Column("k_variant", "right in the variant", "d"),
    )
    return (
        Table(
            "dtype_drift",
            f"Faster variants against the fp32 reference ({set_title(c)})",
            columns,
            rows,
        )
        if rows
        else None
    )


def _drift(p: Predictions, base: Predictions) -> dict:
    change = np.abs(p.scores.astype(np.float64) - base.scores)
    ordered = np.sort(base.scores.astype(np.float64), axis=1)
    flipped = p.scores.argmax(1) != base.scores.argmax(1)
    margin = (ordered[:, -1] - ordered[:, -2])[flipped]
    return {
        "encoder": p.encoder,
        "language": p.meta["language"],
        "n": len(p.items),
        "largest": float(change.max()),
        "mean": float(change.mean()),
        "flips": int(flipped.sum()),
        "margin": float(margin.max()) if len(margin) else None,
        "k": hits(base.ranks),
        "k_variant": hits(p.ranks),
    }


def decoder_facts(c: Collection) -> dict | None:
    """Runs that notebook 03 scored with a decoder: segmenter, the cosine it is mixed with,
    statistic -> (dev run, test run).
    """
    if "decoder" not in c.measured:
        return None
    meta = c.measured["decoder"].meta
    name, dual, dev, test = (meta[k] for k in ("segmenter", "dual", "dev", "split"))
    runs = {
        s: tuple(c.predictions.get(f"{name}.{s}.en.{part}") for part in (dev, test))
        for s in STATISTICS
    }
    cosine = tuple(c.predictions.get(f"{dual}.phrase.en.{part}") for part in (dev, test))
    if not all(all(pair) for pair in (*runs.values(), cosine)):
        return None
    return {"segmenter": name, "dual": dual, "cosine": cosine, "runs": runs}


@table
def decoder(c: Collection) -> Table | None:
    """Scores that use the segmentation decoder, alone and mixed with the cosine; the weight is
    chosen on other items.
    """
    facts = decoder_facts(c)
    if facts is None:
        return None
    dev_cosine, test_cosine = facts["cosine"]
    gold_dev, gold = ([i.gold_index for i in p.items] for p in facts["cosine"])
    rows = [{"score": f"cosine of {facts['dual']}, no decoder", **score_cells(test_cosine)}]
    for name, (dev, test) in facts["runs"].items():
        rows.append(
            {"score": STATISTICS[name], **score_cells(test), **difference(test_cosine, test)}
        )
        weight, _ = choose_weight(dev_cosine.scores, dev.scores, gold_dev)
        ranks = gold_ranks(mix(test_cosine.scores, test.scores, weight), gold)
        rows.append(
            {
                "score": f"… mixed with the cosine, weight {weight:g}",
                "weight": weight,
                **cells_of(ranks),
                **difference_of(test_cosine.ranks == 1, ranks == 1),
            }
        )
    return Table(
        "decoder",
        f"English scores from the masks of {facts['segmenter']}; differences are against the"
        f" cosine, weights chosen on {len(gold_dev)} {dev_cosine.meta['split']} items"
        f" ({set_title(c)})",
        (Column("score", "Score"), *SCORE, *PAIRED),
        rows,
    )


CONTRASTS = {
    "mask": "mean of the mask, own phrase less the other's",
    "cosine": "cosine, own phrase less the other's (control)",
}


def contrasts_by_item(c: Collection) -> dict | None:
    """Of every English item that shares its target: mean contrast of mask and of cosine, whether it
    was solved, its target.
    """
    m = c.measured.get("contrast")
    p = c.predictions.get(f"{m.meta['dual']}.phrase.en.{m.meta['split']}") if m else None
    if p is None:
        return None
    solved = {item.id: rank == 1 for item, rank in zip(p.items, p.ranks)}
    found = defaultdict(lambda: {"mask": [], "cosine": [], "target": ""})
    for r in m.records:
        item = found[r["id"]]
        item["mask"].append(r["own"] - r["foreign"])
        item["cosine"].append(r["own_cosine"] - r["foreign_cosine"])
        item["target"] = r["target"]
    ids = list(found)
    return {
        "meta": m.meta,
        "pairs": len(m.records),
        "ids": ids,
        "right": [bool(solved[i]) for i in ids],
        "targets": [found[i]["target"] for i in ids],
        **{kind: [float(np.mean(found[i][kind])) for i in ids] for kind in CONTRASTS},
    }


@table
def mask_contrast(c: Collection) -> Table | None:
    """Does the mask answer to the phrase where the model is right? Contrast between own and other
    phrase against correctness.
    """
    by_item = contrasts_by_item(c)
    if by_item is None or not 0 < sum(by_item["right"]) < len(by_item["right"]):
        return None
    rows = []
    for kind, about in CONTRASTS.items():
        found = association(by_item[kind], by_item["right"], by_item["targets"])
        positive = sum(v > 0 for v in by_item[kind])
        rows.append(
            {
                "kind": about,
                **found,
                "auc_ci": spelled(found["auc_low"], found["auc_high"], "–", 3),
                "r_ci": spelled(found["r_low"], found["r_high"], digits=3),
                "pairs": by_item["pairs"],
                "positive": percent(positive, len(by_item["ids"])),
                "positive_ci": interval(*wilson(positive, len(by_item["ids"]))),
            }
        )
    columns = (
        Column("kind", "Contrast over the item's gold picture"),
        Column("n", "items", "d"),
        Column("pairs", "pairs", "d"),
        Column("targets", "targets", "d"),
        Column("k", "solved", "d"),
        Column("positive", "contrast > 0 (%)", ".1f"),
        Column("positive_ci", "95 % interval"),
        Column("auc", "AUC", ".3f"),
        Column("auc_ci", "95 % interval"),
        Column("r", "r", ".3f"),
        Column("r_ci", "95 % interval"),
        Column("p", "permutation p", ".2g"),
    )
    return Table(
        "mask_contrast",
        "Contrast between matching and non-matching phrase against being right, all items that"
        f" share a target; intervals resample targets ({set_title(c)})",
        columns,
        rows,
    )


@table
def inner_clip(c: Collection) -> Table | None:
    """Is CLIPSeg's inner CLIP the published ViT-B/16? Tensor by tensor, summed up by part."""
    if "inner_clip" not in c.measured or not c.measured["inner_clip"].records:
        return None
    parts = defaultdict(list)
    for r in c.measured["inner_clip"].records:
        parts[r["name"].split(".")[0]].append(r)
    rows = [
        {
            "part": part,
            "tensors": len(some),
            "equal": sum(r["equal"] for r in some),
            "largest": max(
                (r["max_abs_difference"] for r in some if r["max_abs_difference"] is not None),
                default=None,
            ),
        }
        for part, some in sorted(parts.items())
    ]
    columns = (
        Column("part", "Part"),
        Column("tensors", "Tensors", "d"),
        Column("equal", "equal to the bit", "d"),
        Column("largest", "largest difference", ".2g"),
    )
    return Table(
        "inner_clip",
        f"CLIPSeg's inner CLIP against openai/clip-vit-base-patch16 ({set_title(c)})",
        columns,
        rows,
    )
