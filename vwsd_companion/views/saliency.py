"""Views of notebook 05: what saliency methods are worth where the truth is known; maps as published
and as they should be read, masks at one scale.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from PIL import Image

from vwsdlib.analysis.faithfulness import summary

from ..facts.collect import Collection
from ..facts.measurements import Measurement
from ..facts.numbers import TRUTH
from .base import records_of
from .figures import Drawing, Series, dots, figure, name_rows, numbers_of, panels, small_picture
from .style import BLACK, BLUE, DASHED, DIVERGING, ORANGE, SEQUENTIAL
from .tables import TOLD, Rows, interval, spelled, table

METHOD_NAMES = TOLD["methods"]
OPACITY = 0.65
# kinds of crop maps: title, what the colour bar says
KINDS = {
    "total": ("plain sum", "sum of changes in cosine"),
    "mean": ("divided by visits", "mean change in cosine"),
}


# ---------------------------------------------------------------- where the truth is known


def truth(c: Collection) -> Iterator[tuple[str, str, list[dict], dict[str, dict]]]:
    """(model, method, records of scenes, metric -> row), methods and models in the order of every
    table."""
    if "saliency_truth" not in c.measured:
        return
    measured, order = c.measured["saliency_truth"], [*METHOD_NAMES]
    groups = defaultdict(list)
    for record in measured.records:
        groups[order.index(record["method"]), record["model"]].append(record)
    for (place, model), records in sorted(groups.items(), key=lambda group: group[0]):
        run = f"saliency.{model}.{order[place]}.{measured.meta['split']}"
        yield model, order[place], records, {name: c.rows[f"{run}/{name}"] for name in TRUTH}


@table
def saliency_truth_table(c: Collection) -> Rows:
    """Pointing, energy and IoU of every method and model where masks are known, beside chance."""
    rows = []
    for model, method, records, metrics in truth(c):
        area = sum(record["area"] for record in records) / len(records)
        cells = {"method": METHOD_NAMES[method], "model": model, "n": len(records)}
        for name, row in metrics.items():
            cells[name] = row["value"]
            cells[f"{name}_ci"] = interval(row["ci_low"], row["ci_high"])
        rows.append({**cells, "chance": 100 * area})
    return rows


@table
def deletion_insertion_table(c: Collection) -> Rows:
    """Mean cosine while the map's places go (low is good) and come (high is good)."""
    rows = []
    for model, method, records, _ in truth(c):
        some = [record for record in records if record["deletion"] is not None]
        if not some:
            continue
        values = {
            "deletion": [record["deletion"] for record in some],
            "insertion": [record["insertion"] for record in some],
            "gap": [record["insertion"] - record["deletion"] for record in some],
        }
        cells = {"method": METHOD_NAMES[method], "model": model, "n": len(some)}
        for name, numbers in values.items():
            mean = summary(numbers, "mean")
            cells[name] = mean["value"]
            cells[f"{name}_ci"] = spelled(mean["ci_low"], mean["ci_high"], digits=3)
        rows.append(cells)
    return rows


@table
def centre_bias_table(c: Collection) -> Rows:
    """How often random crops visit a pixel, by place: the bias of the plain sum."""
    return records_of(c, "centre_bias")


@table
def masks_shown_table(c: Collection) -> Rows:
    """Mean and area of the masks in the figure, which the published panels hide."""
    names = {True: "matching", False: "other sense"}
    records = records_of(c, "mask_panels")
    return [{**record, "match": names[bool(record["match"])]} for record in records]


# ---------------------------------------------------------------- maps on pictures


def _picture(c: Collection, m: Measurement, name: str) -> Image.Image:
    """A picture of the measurement's set, or a stand-in where it is not at hand."""
    data = c.data(m.meta)
    scene = name.startswith("scene.")
    path = data.images.parent / "scenes" / name if scene else data.path(name)
    return small_picture(path, 240) if path.exists() else Image.new("RGB", (64, 64), "#DDDDDD")


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
    place = (-0.5, picture.width - 0.5, picture.height - 0.5, -0.5)
    ax.imshow(picture.convert("L"), cmap="gray", vmin=0, vmax=255)
    look = {"cmap": colours, "norm": norm, "alpha": OPACITY, "interpolation": "bilinear"}
    ax.imshow(shown, extent=place, **look)


@figure(of="crop_maps", pictures=True)
def crop_maps_figure(c: Collection, m: Measurement) -> Drawing:
    """Random-crop saliency of the study's examples: the plain sum as published, and the map divided
    by visits, at one colour scale each."""
    maps, largest = {}, dict.fromkeys(KINDS, 0.0)
    for record in m.records:
        kind, shown = record["kind"], m.maps[record["map"]]
        maps[record["picture"], record["phrase"], kind, record["model"]] = shown
        largest[kind] = max(largest[kind], np.abs(shown).max())
    norms = {kind: Normalize(-limit, limit) for kind, limit in largest.items()}
    subjects = list(dict.fromkeys((picture, phrase) for picture, phrase, *_ in maps))
    models = list(dict.fromkeys(record["model"] for record in m.records))
    columns = [(kind, model) for kind in KINDS for model in models]
    wide = 1 + len(columns)
    fig, axes = panels(len(subjects), wide, 2.1 * wide + 0.6, 2.2 * len(subjects) + 1.3)
    for row, (name, phrase) in zip(axes, subjects):
        picture = _picture(c, m, name)
        row[0].imshow(picture)
        row[0].set_title(f"“{phrase}”", fontsize=9, loc="left")
        for ax, (kind, model) in zip(row[1:], columns):
            overlay(ax, picture, maps[name, phrase, kind, model], norms[kind], DIVERGING)
            ax.set_title(f"{KINDS[kind][0]}\n{model}", fontsize=8, loc="left")
        _bare(row)
    below = {"location": "bottom", "shrink": 0.9, "aspect": 30}
    for i, (kind, (_, unit)) in enumerate(KINDS.items()):
        own = axes[:, 1 + i * len(models) : 1 + (i + 1) * len(models)]
        fig.colorbar(ScalarMappable(norms[kind], DIVERGING), ax=list(own.flat), label=unit, **below)
    return fig, m.records, {**m.meta, "credit": c.data(m.meta).credit}


@figure(of="crop_seeds", pictures=True)
def crop_seeds_figure(c: Collection, m: Measurement) -> Drawing:
    """How much of a map is chance: the mean over seeds of the first example and the width of the
    range of single runs."""
    first, mean, width = m.records[0], m.maps["mean"], m.maps["high"] - m.maps["low"]
    limit = float(np.abs(mean).max())
    shown = (
        (mean, Normalize(-limit, limit), DIVERGING),
        (width, Normalize(0, float(width.max())), SEQUENTIAL),
    )
    fig, axes = panels(1, 3, 9, 3.3)
    picture = _picture(c, m, first["picture"])
    axes[0][0].imshow(picture)
    axes[0][0].set_title(f"“{first['phrase']}”")
    for ax, look in zip(axes[0][1:], shown):
        overlay(ax, picture, *look)
    axes[0][1].set_title(f"mean of {first['seeds']} seeds")
    axes[0][2].set_title("width of one run's 95 % range", fontsize=10)
    below = {"location": "bottom", "shrink": 0.85, "label": "mean change in cosine"}
    for ax, (_, norm, colours) in zip(axes[0][1:], shown):
        fig.colorbar(ScalarMappable(norm, colours), ax=ax, **below)
    _bare(axes[0])
    return fig, m.records, {**first, "credit": c.data(m.meta).credit}


@figure(of="mask_panels", pictures=True)
def masks_figure(c: Collection, m: Measurement) -> Drawing | None:
    """Masks of a picture under its own phrase and under another sense's, all at the scale 0 to 1,
    with mean and area; none where all these pictures are damaged."""
    if not m.records:
        return None
    # records come in fours: a pair's two pictures, each under its own and under the other phrase
    high = -(-len(m.records) // 4)
    fig, axes = panels(high, 6, 13.6, 2.35 * high + 0.9)
    scale = {"cmap": SEQUENTIAL, "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    for i, record in enumerate(m.records):
        row, place = axes[i // 4], i % 4
        if place == 0:
            row[0].set_ylabel(record["group"], fontsize=9)
        if place % 2 == 0:
            row[place // 2 * 3].imshow(_picture(c, m, record["picture"]))
        ax = row[(1, 2, 4, 5)[place]]
        shown = ax.imshow(m.maps[record["map"]], **scale)
        match = " (match)" if record["match"] else ""
        ax.set_title(f"“{record['phrase']}”{match}", fontsize=8)
        told = f"mean {record['mean']:.2f}, above 0.5: {100 * record['area']:.0f} %"
        ax.set_xlabel(told, fontsize=8)
    _bare(axes.flat)
    fig.colorbar(shown, ax=axes, location="right", shrink=0.6, label="probability")
    return fig, m.records, {**m.meta, "credit": c.data(m.meta).credit}


@figure(of="scene_maps", pictures=True)
def scenes_figure(c: Collection, m: Measurement) -> Drawing:
    """Scenes with known masks under every method of the baseline encoder; the white outline is the
    truth."""
    phrases, maps, known = {}, {}, {}
    for record in m.records:
        name, shown = record["picture"], m.maps[record["map"]]
        phrases.setdefault(name, record["phrase"])
        if record["method"] == "truth":
            known[name] = shown
        else:
            maps[name, record["method"], record["model"]] = shown
    columns = list(dict.fromkeys(key[1:] for key in maps))
    wide = 1 + len(columns)
    fig, axes = panels(len(phrases), wide, 1.3 * wide, 1.4 * len(phrases) + 1.1)
    for row, (name, phrase) in zip(axes, phrases.items()):
        picture = _picture(c, m, name)
        row[0].imshow(picture)
        row[0].set_ylabel(phrase, fontsize=8)
        for ax, column in zip(row[1:], columns):
            shown = maps[name, *column]
            norm = Normalize(float(shown.min()), float(shown.max()) or 1.0)
            overlay(ax, picture, shown, norm, SEQUENTIAL)
        for ax in row:
            colour = BLACK if ax is row[0] else "white"
            place = (0, picture.width, 0, picture.height)
            ax.contour(known[name], levels=[0.5], colors=colour, linewidths=1.1, extent=place)
            ax.set_ylim(picture.height, 0)
        _bare(row)
    for ax, (method, model) in zip(axes[0][1:], columns):
        title = METHOD_NAMES[method].replace(", ", ",\n").replace(" (", "\n(")
        ax.set_title(f"{title}\n{model}", fontsize=6.5)
    return fig, m.records, {"credit": c.data(m.meta).credit}


@figure
def pointing_figure(c: Collection) -> Drawing:
    """Pointing game on the scenes by method and model with 95 % intervals; chance is the mask's
    share of the scene."""
    groups = list(truth(c))
    if not groups:
        return None
    fig, ax = plt.subplots(figsize=(8, 1.2 + 0.34 * len(groups)), layout="constrained")
    names, areas = [], []
    for model, method, records, _ in groups:
        control = method in ("centre", "random")
        names.append(METHOD_NAMES[method] + ("" if control else f"\n{model}"))
        areas += [record["area"] for record in records]
    own = [metrics["pointing"] for *_, metrics in groups]
    rivals = [metrics["rival"] for *_, metrics in groups]
    series = [
        Series("on the object", BLUE, "o", -0.13, own),
        Series("on another object", ORANGE, "s", 0.13, rivals),
    ]
    dots(ax, series, ms=5)
    area = 100 * np.mean(areas)
    ax.axvline(area, label=f"chance: the mask's mean area, {area:.1f} %", **DASHED)
    name_rows(ax, names)
    ax.set_xlim(left=0)
    ax.tick_params(axis="y", labelsize=7.5)
    ax.legend(loc="lower right")
    pairs = itertools.chain(*zip(own, rivals))
    return fig, [numbers_of(row) for row in pairs], {"n": own[0]["n"]}
