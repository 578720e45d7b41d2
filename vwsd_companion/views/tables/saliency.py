"""Tables of notebook 05: what saliency methods are worth where the truth is known."""

from __future__ import annotations

from collections import defaultdict

from vwsdlib.analysis.faithfulness import summary

from ...facts.collect import Collection
from ...facts.numbers import TRUTH
from . import Column, Table, interval, set_title, spelled, table

METHOD_NAMES = {
    "crops_sum": "random crops, plain sum (as published)",
    "crops_by_visits": "random crops, divided by visits",
    "occlusion": "occlusion",
    "integrated_gradients": "integrated gradients",
    "relevance": "gradient-weighted map",
    "mask": "segmentation mask",
    "centre": "control: centre",
    "random": "control: noise",
}


def truth(c: Collection) -> dict[tuple[str, str], list[dict]]:
    """(model, method) -> records of scenes, models and methods in the order they were run."""
    groups = defaultdict(list)
    for r in c.measured["saliency_truth"].records if "saliency_truth" in c.measured else ():
        groups[r["model"], r["method"]].append(r)
    order = {name: i for i, name in enumerate(METHOD_NAMES)}
    return dict(sorted(groups.items(), key=lambda g: (order[g[0][1]], g[0][0])))


@table
def saliency_truth(c: Collection) -> Table | None:
    """Pointing game, energy and IoU of every method and model on scenes whose masks are known,
    beside chance.
    """
    rows = []
    for (model, method), records in truth(c).items():
        area = sum(r["area"] for r in records) / len(records)
        made = {
            metric: c.rows[
                f"saliency.{model}.{method}.{c.measured['saliency_truth'].meta['split']}/{metric}"
            ]
            for metric in TRUTH
        }
        rows.append(
            {
                "method": METHOD_NAMES[method],
                "model": model,
                "n": len(records),
                "chance": 100 * area,
                **{metric: r["value"] for metric, r in made.items()},
                **{
                    f"{metric}_ci": interval(r["ci_low"], r["ci_high"])
                    for metric, r in made.items()
                },
            }
        )
    columns = (
        Column("method", "Method"),
        Column("model", "Model"),
        Column("n", "scenes", "d"),
        Column("pointing", "Pointing", ".1f"),
        Column("pointing_ci", "95 % interval"),
        Column("chance", "chance", ".1f"),
        Column("rival", "on another object", ".1f"),
        Column("rival_ci", "95 % interval"),
        Column("energy", "Energy inside", ".1f"),
        Column("energy_ci", "95 % interval"),
        Column("iou", "IoU", ".1f"),
        Column("iou_ci", "95 % interval"),
    )
    return (
        Table(
            "saliency_truth",
            "Saliency where the truth is known, percent; chance is the mask's mean share of the"
            f" scene ({set_title(c)})",
            columns,
            rows,
        )
        if rows
        else None
    )


@table
def deletion_insertion(c: Collection) -> Table | None:
    """Mean cosine while the map's places go (lower is better) and while they come (higher is
    better).
    """
    rows = []
    for (model, method), records in truth(c).items():
        some = [r for r in records if r["deletion"] is not None]
        if some:
            made = {
                name: summary([r[name] for r in some], "mean") for name in ("deletion", "insertion")
            }
            gap = summary([r["insertion"] - r["deletion"] for r in some], "mean")
            rows.append(
                {
                    "method": METHOD_NAMES[method],
                    "model": model,
                    "n": len(some),
                    **{k: v["value"] for k, v in made.items()},
                    **{
                        f"{k}_ci": spelled(v["ci_low"], v["ci_high"], digits=3)
                        for k, v in {**made, "gap": gap}.items()
                    },
                    "gap": gap["value"],
                }
            )
    columns = (
        Column("method", "Method"),
        Column("model", "Model"),
        Column("n", "scenes", "d"),
        Column("deletion", "Deletion", ".3f"),
        Column("deletion_ci", "95 % interval"),
        Column("insertion", "Insertion", ".3f"),
        Column("insertion_ci", "95 % interval"),
        Column("gap", "Insertion − deletion", "+.3f"),
        Column("gap_ci", "95 % interval"),
    )
    return (
        Table(
            "deletion_insertion",
            f"Mean cosine over the steps of deletion and insertion ({set_title(c)})",
            columns,
            rows,
        )
        if rows
        else None
    )


@table
def centre_bias(c: Collection) -> Table | None:
    """How often random crops visit a pixel, by place: the bias that the plain sum carries whatever
    the model does.
    """
    if "centre_bias" not in c.measured:
        return None
    columns = (
        Column("picture", "Picture"),
        Column("size", "Size (px)"),
        Column("centre", "centre", ".0f"),
        Column("top", "middle of the top edge", ".1f"),
        Column("corner", "corner", ".2f"),
        Column("ratio", "centre : top", ".0f"),
    )
    return Table(
        "centre_bias",
        "Expected visits of 2,000 random crops of 50 px and more",
        columns,
        c.measured["centre_bias"].records,
    )


@table
def masks_shown(c: Collection) -> Table | None:
    """Mean and area of the masks in the figure, which the published panels hide by scaling each to
    its own range.
    """
    if "mask_panels" not in c.measured:
        return None
    rows = [
        {**r, "match": "matching" if r["match"] else "other sense"}
        for r in c.measured["mask_panels"].records
    ]
    columns = (
        Column("picture", "Picture of"),
        Column("phrase", "Phrase"),
        Column("match", "Pair"),
        Column("mean", "mean probability", ".3f"),
        Column("area", "share above 0.5", ".3f"),
        Column("low", "smallest", ".3f"),
        Column("high", "largest", ".3f"),
    )
    return Table(
        "masks_shown",
        f"Masks of matching and other phrases, as probabilities ({set_title(c)})",
        columns,
        rows,
    )
