"""Views of notebook 06: where senses look, and where senses and pictures lie."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

from vwsdlib.data.sets import VwsdSet

from ..facts.collect import Collection
from ..facts.measurements import Measurement
from .figures import Drawing, figure, panels, small_picture
from .style import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SEQUENTIAL

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, BLACK, RED)  # of lemmas, in turns
ROOM = np.array([5.3, 5.2])  # inches of each of the two maps


@figure(of="polclip_attention")
def polclip_attention_figure(c: Collection, m: Measurement) -> Drawing:
    """How much each token of a gloss looks at each generated place in the fusion's last layer; one
    scale, rows sum to one."""
    records, shown = m.records[:4], []
    for record in records:
        weights = m.maps[record["map"]]
        last = np.flatnonzero(weights.max(0) > 0).max()  # places of padding get nothing
        shown.append(weights[:, : 1 + last])
    deep, high = -(-len(records) // 2), 1.2 + 0.17 * max(map(len, shown))
    fig, axes = panels(deep, min(2, len(records)), 11, 0.9 + deep * high)
    scale = {"cmap": SEQUENTIAL, "vmin": 0, "vmax": max(weights.max() for weights in shown)}
    for ax, record, weights in zip(axes.flat, records, shown):
        drawn = ax.imshow(weights, **scale, aspect="auto", interpolation="nearest")
        tokens = record["tokens"]
        ax.set(yticks=range(len(tokens)), yticklabels=tokens, xlabel="generated place")
        gloss = textwrap.shorten(record["gloss"], 62, placeholder=" …")
        ax.set_title(f"{record['sense']}\n{gloss}", fontsize=9)
        ax.tick_params(axis="y", labelsize=8)
        ax.grid(visible=False)
    for ax in axes.flat[len(records) :]:
        ax.set_axis_off()
    fig.colorbar(drawn, ax=axes, location="right", shrink=0.7, label="attention, mean over heads")
    return fig, records


@figure(of="polclip_map", pictures=True)
def sense_map_figure(c: Collection, m: Measurement) -> Drawing:
    """Glosses (names) and pictures of a few lemmas' senses in the plain and in the fused space,
    projected to a plane; lemma by colour."""
    data, lemmas = c.data(m.meta), dict.fromkeys(record["lemma"] for record in m.records)
    colours = {lemma: COLOURS[i % len(COLOURS)] for i, lemma in enumerate(lemmas)}
    wide, high = ROOM
    fig = plt.figure(figsize=(2 * wide + 0.4, high + 1.15))
    w, h = fig.get_size_inches()
    for i in range(2):  # plain, fused
        records = [r for r in m.records if r["kind"].startswith("fused") == bool(i)]
        place = ((0.1 + i * (wide + 0.2)) / w, 0.5 / h, wide / w, high / h)
        ax = fig.add_axes(place)
        ax.spines[:].set(visible=True, color="#DDDDDD")
        if records:
            _scatter(ax, records, data, colours)
    for lemma, colour in colours.items():
        ax.plot([], [], "s", color=colour, label=lemma)
    tight = {"handletextpad": 0.1, "columnspacing": 1, "bbox_to_anchor": (1, 1)}
    fig.legend(fontsize=9, loc="upper right", ncol=len(colours), **tight)
    return fig, m.records, {"credit": data.credit}


def _scatter(ax: plt.Axes, records: list[dict], data: VwsdSet, colours: dict[str, str]) -> None:
    """Names and drawings near their places, in inches, moved apart until none covers another."""
    points = np.array([[record["x"], record["y"]] for record in records], float)
    middle = (points.max(0) + points.min(0)) / 2
    scale = max((np.ptp(points, axis=0) / (0.78 * ROOM)).max(), 1e-9)
    points = (points - middle) / scale + ROOM / 2
    sizes = []
    for record in records:
        drawn = record["picture"]
        sizes.append((0.4, 0.4) if drawn else (0.14 + 0.073 * len(record["sense"]), 0.21))
    centres = apart(points, np.array(sizes), ROOM)
    for record, point, (x, y), (w, h) in zip(records, points, centres, sizes):
        colour = colours[record["lemma"]]
        line = {"lw": 0.8, "marker": ".", "markevery": [0], "ms": 4, "zorder": 1}
        ax.plot(*zip(point, (x, y)), color=colour, **line)
        left, right, low, high = x - w / 2, x + w / 2, y - h / 2, y + h / 2
        path = data.path(record["picture"]) if record["picture"] else None
        if path is not None and path.exists():
            place = (left + 0.03, right - 0.03, low + 0.03, high - 0.03)
            ax.imshow(small_picture(path, 96), extent=place, aspect="auto", zorder=3)
        look = {"boxstyle": "round,pad=0.02", "facecolor": "white", "lw": 1.3, "zorder": 2}
        corner = (left + 0.03, low + 0.03)
        ax.add_patch(FancyBboxPatch(corner, w - 0.06, h - 0.06, edgecolor=colour, **look))
        if not record["picture"]:
            ax.text(x, y, record["sense"], ha="center", va="center", fontsize=8, zorder=4)
    ax.set(xlim=(0, ROOM[0]), ylim=(0, ROOM[1]))


def apart(centres: np.ndarray, sizes: np.ndarray, room: np.ndarray, steps: int = 500) -> np.ndarray:
    """Centres [n, 2] of boxes of `sizes` [n, 2], pushed along the axis of least overlap until none
    covers another, inside `room` [2]."""
    centres, places = centres.astype(float), np.arange(len(centres))
    order = np.sign(places[:, None] - places)
    for _ in range(steps):
        gap = centres[:, None] - centres  # [n, n, 2]
        over = (sizes[:, None] + sizes) / 2 - np.abs(gap)
        hit = (over > 1e-6).all(-1) & (order != 0)
        if not hit.any():
            break
        away = np.where(np.abs(gap) > 1e-9, np.sign(gap), order[..., None]) * (over + 0.01) / 4
        centres += (away * (over.argmin(-1)[..., None] == np.arange(2)) * hit[..., None]).sum(1)
        centres = np.clip(centres, sizes / 2, room - sizes / 2)
    return centres
