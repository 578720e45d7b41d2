"""Figures of notebook 05: saliency maps as published and as they should be read, masks at one
scale, the ground truth.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from PIL import Image

from vwsdlib.data.pictures import load_picture

from ...facts.collect import Collection
from ...facts.measurements import Measurement
from ..tables.saliency import METHOD_NAMES, truth
from . import BLACK, BLUE, GREY, ORANGE, Drawn, figure, finish, spans

DIVERGING, SEQUENTIAL = "RdBu_r", "viridis"
OPACITY = 0.65


def _picture(c: Collection, m: Measurement, name: str) -> Image.Image:
    """A picture of the measurement's set, or a stand-in where it is not at hand."""
    path = (
        c.data(m.meta).path(name)
        if not name.startswith("scene.")
        else c.data(m.meta).images.parent / "scenes" / name
    )
    picture = (
        load_picture(path, truncated="keep").image
        if path.exists()
        else Image.new("RGB", (64, 64), "#DDDDDD")
    )
    picture.thumbnail((240, 240))
    return picture


def _bare(axes: Iterable[plt.Axes]) -> None:
    """Pictures need no ticks, grid or frame."""
    for ax in axes:
        ax.set(xticks=(), yticks=())
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)


def overlay(
    ax: plt.Axes, picture: Image.Image, shown: np.ndarray, norm: Normalize, colours: str
) -> None:
    """Draw a picture in grey and a map [h, w] of it above, in colours at the scale of `norm`."""
    ax.imshow(picture.convert("L"), cmap="gray", vmin=0, vmax=255)
    ax.imshow(
        shown,
        cmap=colours,
        norm=norm,
        alpha=OPACITY,
        extent=(-0.5, picture.width - 0.5, picture.height - 0.5, -0.5),
        interpolation="bilinear",
    )


@figure
def crop_maps(c: Collection) -> Drawn | None:
    """Random-crop saliency of the study's examples: the plain sum as published, and the map divided
    by visits, at one colour scale each.
    """
    if "crop_maps" not in c.measured:
        return None
    m = c.measured["crop_maps"]
    subjects = list(dict.fromkeys((r["picture"], r["phrase"]) for r in m.records))
    models = list(dict.fromkeys(r["model"] for r in m.records))
    kinds = {"total": "plain sum", "mean": "divided by visits"}
    columns = [(kind, model) for kind in kinds for model in models]
    fig, axes = plt.subplots(
        len(subjects),
        1 + len(columns),
        figsize=(2.1 * (1 + len(columns)) + 0.6, 2.2 * len(subjects) + 1.3),
        squeeze=False,
        layout="constrained",
    )
    limits = {
        kind: max(np.abs(m.maps[r["map"]]).max() for r in m.records if r["kind"] == kind)
        for kind in kinds
    }
    for row, (name, phrase) in zip(axes, subjects):
        picture = _picture(c, m, name)
        row[0].imshow(picture)
        row[0].set_title(f"“{phrase}”", fontsize=9, loc="left")
        for ax, (kind, model) in zip(row[1:], columns):
            record = next(
                r
                for r in m.records
                if (r["picture"], r["phrase"], r["kind"], r["model"]) == (name, phrase, kind, model)
            )
            overlay(
                ax,
                picture,
                m.maps[record["map"]],
                Normalize(-limits[kind], limits[kind]),
                DIVERGING,
            )
            ax.set_title(f"{kinds[kind]}\n{model}", fontsize=8, loc="left")
        _bare(row)
    for i, (kind, unit) in enumerate(
        (("total", "sum of changes in cosine"), ("mean", "mean change in cosine"))
    ):
        span = slice(1 + i * len(models), 1 + (i + 1) * len(models))
        fig.colorbar(
            ScalarMappable(Normalize(-limits[kind], limits[kind]), DIVERGING),
            ax=list(axes[:, span].ravel()),
            location="bottom",
            shrink=0.9,
            aspect=30,
            label=unit,
        )
    finish(
        fig,
        f"Random-crop saliency, {m.meta['crops']:,} crops: the plain sum as published, and divided"
        " by visits; one scale a kind",
        c,
        c.data(m.meta).credit,
    )
    return fig, m.records


@figure
def crop_seeds(c: Collection) -> Drawn | None:
    """How much of a map is chance: the mean over seeds of the first example and the width of the
    range of single runs.
    """
    if "crop_seeds" not in c.measured:
        return None
    m = c.measured["crop_seeds"]
    r, maps = m.records[0], m.maps
    fig, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
    picture, limit = _picture(c, m, r["picture"]), float(np.abs(maps["mean"]).max())
    axes[0].imshow(picture)
    axes[0].set_title(f"“{r['phrase']}”")
    overlay(axes[1], picture, maps["mean"], Normalize(-limit, limit), DIVERGING)
    axes[1].set_title(f"mean of {r['seeds']} seeds")
    width = maps["high"] - maps["low"]
    overlay(axes[2], picture, width, Normalize(0, float(width.max())), SEQUENTIAL)
    axes[2].set_title("width of one run's 95 % range", fontsize=10)
    for ax, norm, colours in (
        (axes[1], Normalize(-limit, limit), DIVERGING),
        (axes[2], Normalize(0, float(width.max())), SEQUENTIAL),
    ):
        fig.colorbar(
            ScalarMappable(norm, colours),
            ax=ax,
            location="bottom",
            label="mean change in cosine",
            shrink=0.85,
        )
    _bare(axes)
    finish(
        fig,
        f"The same map under other seeds ({r['crops']} crops each, {r['model']})",
        c,
        c.data(m.meta).credit,
    )
    return fig, m.records


@figure
def masks(c: Collection) -> Drawn | None:
    """Masks of a picture under its own phrase and under another sense's, all at the scale 0 to 1,
    with mean and area.
    """
    if "mask_panels" not in c.measured:
        return None
    m = c.measured["mask_panels"]
    pictures = [
        m.records[i : i + 2] for i in range(0, len(m.records), 2)
    ]  # each under its own and under the other phrase
    rows = [
        pictures[i : i + 2] for i in range(0, len(pictures), 2)
    ]  # the two pictures of a pair side by side
    fig, axes = plt.subplots(
        len(rows), 6, figsize=(13.6, 2.35 * len(rows) + 0.9), squeeze=False, layout="constrained"
    )
    for row, pair in zip(axes, rows):
        row[0].set_ylabel(pair[0][0]["group"], fontsize=9)
        for start, records in zip((0, 3), pair):
            row[start].imshow(_picture(c, m, records[0]["picture"]))
            for ax, r in zip(row[start + 1 :], records):
                shown = ax.imshow(
                    m.maps[r["map"]], cmap=SEQUENTIAL, vmin=0, vmax=1, interpolation="nearest"
                )
                ax.set_title(f"“{r['phrase']}”" + (" (match)" if r["match"] else ""), fontsize=8)
                ax.set_xlabel(
                    f"mean {r['mean']:.2f}, above 0.5: {100 * r['area']:.0f} %", fontsize=8
                )
        _bare(row)
    fig.colorbar(shown, ax=axes, location="right", shrink=0.6, label="probability")
    finish(fig, f"Masks of {m.meta['segmenter']} at one scale", c, c.data(m.meta).credit)
    return fig, m.records


@figure
def scenes(c: Collection) -> Drawn | None:
    """Scenes with known masks under every method of the baseline encoder; the white outline is the
    truth.
    """
    if "scene_maps" not in c.measured:
        return None
    m = c.measured["scene_maps"]
    subjects = list(dict.fromkeys(r["picture"] for r in m.records))
    columns = list(
        dict.fromkeys((r["method"], r["model"]) for r in m.records if r["method"] != "truth")
    )
    fig, axes = plt.subplots(
        len(subjects),
        1 + len(columns),
        figsize=(1.3 * (1 + len(columns)), 1.4 * len(subjects) + 1.1),
        squeeze=False,
        layout="constrained",
    )
    for row, name in zip(axes, subjects):
        records = [r for r in m.records if r["picture"] == name]
        picture, known = (
            _picture(c, m, name),
            m.maps[next(r["map"] for r in records if r["method"] == "truth")],
        )
        row[0].imshow(picture)
        row[0].set_ylabel(records[0]["phrase"], fontsize=8)
        for ax, (method, model) in zip(row[1:], columns):
            shown = m.maps[
                next(r["map"] for r in records if (r["method"], r["model"]) == (method, model))
            ]
            overlay(
                ax,
                picture,
                shown,
                Normalize(float(shown.min()), float(shown.max()) or 1.0),
                SEQUENTIAL,
            )
        for ax in row:
            ax.contour(
                known,
                levels=[0.5],
                colors="white" if ax is not row[0] else BLACK,
                linewidths=1.1,
                extent=(0, picture.width, 0, picture.height),
            )
            ax.set_ylim(picture.height, 0)
        _bare(row)
    for ax, (method, model) in zip(axes[0][1:], columns):
        ax.set_title(
            METHOD_NAMES[method].replace(", ", ",\n").replace(" (", "\n(") + f"\n{model}",
            fontsize=6.5,
        )
    finish(
        fig,
        "Scenes whose truth is known; each map from its own least (dark) to its most (bright)",
        c,
        c.data(m.meta).credit,
    )
    return fig, m.records


@figure
def pointing(c: Collection) -> Drawn | None:
    """Pointing game on the scenes by method and model with 95 % intervals; chance is the mask's
    share of the scene.
    """
    groups = truth(c)
    if not groups:
        return None
    fig, ax = plt.subplots(figsize=(8, 1.2 + 0.34 * len(groups)), layout="constrained")
    drawn, area = [], np.mean([r["area"] for records in groups.values() for r in records])
    for y, ((model, method), records) in enumerate(groups.items()):
        own, rival = (
            c.rows[
                f"saliency.{model}.{method}.{c.measured['saliency_truth'].meta['split']}/{metric}"
            ]
            for metric in ("pointing", "rival")
        )
        for made, colour, marker, dy in ((own, BLUE, "o", -0.13), (rival, ORANGE, "s", 0.13)):
            ax.errorbar(
                made["value"],
                y + dy,
                xerr=spans(made),
                fmt=marker,
                color=colour,
                capsize=3,
                ms=5,
                label=(
                    {BLUE: "on the object", ORANGE: "on another object"}[colour] if y == 0 else None
                ),
            )
        drawn += [
            {k: row[k] for k in ("id", "value", "ci_low", "ci_high", "n", "k")}
            for row in (own, rival)
        ]
    ax.axvline(
        100 * area,
        color=GREY,
        ls="--",
        lw=1,
        label=f"chance: the mask's mean area, {100 * area:.1f} %",
    )
    names = [
        METHOD_NAMES[method] + ("" if method in ("centre", "random") else f"\n{model}")
        for model, method in groups
    ]
    ax.set(
        yticks=range(len(groups)),
        yticklabels=names,
        ylim=(len(groups) - 0.5, -0.5),
        xlabel=f"maximum of the map, percent of scenes (95 % interval, n = {own['n']})",
    )
    ax.set_xlim(left=0)
    ax.tick_params(axis="y", labelsize=7.5)
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    finish(fig, "Does the map point at what the phrase means?", c)
    return fig, drawn
