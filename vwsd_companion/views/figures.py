"""Figures: pure functions of the stored facts (and of the set's pictures), saved as PNG and PDF
with their data beside them.

A new figure is one function `<name>_figure` under `@figure` in the module of its notebook
(baseline.py, clipseg.py, ...) that returns a matplotlib figure and the numbers drawn; its words
are an entry `<name>` of figures.yml. Farsi is shaped and runs from right to left (matplotlib shapes
text itself from 3.11 on).
"""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from itertools import repeat
from pathlib import Path

import matplotlib

matplotlib.use("Agg", force=False)
import numpy as np
import yaml
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from vwsdlib import paths
from vwsdlib.data.items import Item
from vwsdlib.data.pictures import load_picture
from vwsdlib.data.sets import VwsdSet
from vwsdlib.errors import VwsdError

from ..facts.collect import Collection
from .base import view_of
from .style import BLUE, GREY, STYLE
from .tables import set_title

TOLD = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8"))
NO_CLOCK = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}

Drawn = tuple[Figure, object]
# a figure and its numbers, with the words of figures.yml and the pictures' credit where it has some
Drawing = Drawn | tuple[Figure, object, dict] | None


def figure(draw: Callable[..., Drawing] | None = None, *, of: str = "", pictures: bool = False):
    """Register the function `<name>_figure` as the figure of the view `<name>`; it returns None
    where the profile has no facts for it.

    of: the measurement that is drawn, which is then the function's second argument. pictures:
    whether a set's pictures are shown, which makes `credit` one of the words.
    """
    if draw is None:
        return partial(figure, of=of, pictures=pictures)
    view = view_of(draw, "figure")

    @wraps(draw)
    def finished(c: Collection) -> Drawn | None:
        if of and of not in c.measured:
            return None
        with plt.rc_context(STYLE):
            drawn = draw(c, c.measured[of]) if of else draw(c)
            return drawn and _finish(c, view.name, *drawn)

    view.figure, view.pictures = finished, pictures
    return finished


def _finish(
    c: Collection, name: str, fig: Figure, numbers: object, words: dict | None = None
) -> Drawn:
    """A figure with its words: its heading, what is set of its axes, and one small line below that
    names data, profile and whose pictures these are."""
    words = words or {}
    told = TOLD[name]
    axes = told.get("axes", [])
    for ax, settings in zip(fig.axes, axes if isinstance(axes, list) else repeat(axes)):
        for key, value in settings.items():
            ax.set(**{key: value.format(**words) if isinstance(value, str) else value})
    title = told["title"].format(**words)
    fig.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    small = (f"{set_title(c)}.", told.get("note"), words.get("credit"))
    wide = round(17 * fig.get_figwidth())  # letters of this size in a line
    small = textwrap.fill(" ".join(filter(None, small)), wide)
    fig.supxlabel(small, x=0.01, ha="left", fontsize=7, color="#555555")
    return fig, numbers


def write_figure(name: str, drawn: Drawn, folder: Path) -> list[Path]:
    """Save `figures/<name>.png`, `.pdf` and `.json` (the numbers drawn) below `folder`; no clock
    goes into the files. VwsdError for a number that is not finite."""
    fig, numbers = drawn
    try:
        stated = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as e:
        raise VwsdError(
            f"a number of the figure '{name}' is not finite",
            where=folder,
            remedy="Look at the stored facts behind it.",
        ) from e
    stem = Path(folder) / "figures" / paths.safe_name(name, "figure")
    written = []
    with plt.rc_context(STYLE):
        for kind, metadata in NO_CLOCK.items():
            with paths.atomic(f"{stem}.{kind}") as temporary:
                fig.savefig(temporary, format=kind, metadata=metadata)
            written.append(Path(f"{stem}.{kind}"))
    plt.close(fig)
    return [*written, paths.write_text(f"{stem}.json", stated)]


def png(fig: Figure, dpi: int = 90) -> bytes:
    """A figure as PNG bytes at screen size; it is closed."""
    out = io.BytesIO()
    with plt.rc_context(STYLE):
        fig.savefig(out, format="png", dpi=dpi, metadata=NO_CLOCK["png"])
    plt.close(fig)
    return out.getvalue()


def panels(rows: int, columns: int, wide: float, high: float, **more) -> tuple[Figure, np.ndarray]:
    """A figure of `wide` x `high` inches and its axes [rows, columns]."""
    size = (wide, high)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **more)


# ---------------------------------------------------------------- dots with intervals


def spans(row: dict) -> list[list[float]]:
    """Lengths of the two arms of an interval; never negative, whatever the last bits say."""
    return [[max(0.0, row["value"] - row["ci_low"])], [max(0.0, row["ci_high"] - row["value"])]]


def numbers_of(row: dict) -> dict:
    """What a figure tells of a row that it draws."""
    return {key: row[key] for key in ("id", "value", "ci_low", "ci_high", "n", "k")}


def dot(ax: plt.Axes, row: dict, y: float, colour: str, marker: str = "o", **more) -> None:
    """A dot at a row's value (value, ci_low, ci_high) and at height y, with its interval."""
    ax.errorbar(row["value"], y, xerr=spans(row), fmt=marker, color=colour, **more)


def dots(ax: plt.Axes, series: Sequence[Series], **more) -> None:
    """Series of dots with intervals beside each other; a row that is None stays empty."""
    for y in range(max(len(one.rows) for one in series)):
        for one in series:
            if one.rows[y] is not None:
                label = one.name if y == 0 else None
                dot(ax, one.rows[y], y + one.beside, one.colour, one.marker, label=label, **more)


@dataclass(frozen=True)
class Series:
    """Rows that look alike: their name in the legend, and how far they stand below their height."""

    name: str
    colour: str
    marker: str
    beside: float
    rows: Sequence[dict | None]


def name_rows(
    ax: plt.Axes, names: Sequence[str], above: float = 0.5, below: float = 0.5, **more
) -> None:
    """Names of rows 0, 1, ... along the y axis, the first at the top, with room above the first and
    below the last; `more` is for the axes."""
    limits = (len(names) - 1 + below, -above)
    ax.set(yticks=range(len(names)), yticklabels=names, ylim=limits, **more)


# ---------------------------------------------------------------- pictures


def small_picture(path: Path, side: int) -> Image.Image:
    """A picture at most `side` pixels wide and high, in its shape; plain grey where it is damaged
    beyond looking at it.
    """
    try:
        picture = load_picture(path, truncated="keep").image
    except VwsdError:
        return Image.new("RGB", (side, side), "#DDDDDD")
    picture.thumbnail((side, side))
    return picture


def picture_grid(
    items: Sequence[Item], data: VwsdSet, scores: Sequence[np.ndarray] | None = None
) -> Figure:
    """A row an item: the phrase, then ten pictures in candidate order, or best first with their
    scores where `scores` are given.

    One axes with unit cells, the phrase in the first two and a half: a layout solver over a hundred
    axes takes seconds.
    """
    height = 1.0 if scores is None else 1.2
    fig = plt.figure(figsize=(12, 0.95 * height * len(items) + 0.8))
    foot, head = 0.3 / fig.get_figheight(), 0.5 / fig.get_figheight()
    ax = fig.add_axes((0, foot, 1, 1 - foot - head))
    ax.set(xlim=(0, 12.6), ylim=(height * len(items), 0))
    ax.set_axis_off()
    middle = {"ha": "center", "va": "center", "fontsize": 8}
    for row, item in enumerate(items):
        top = row * height
        order = np.arange(10) if scores is None else np.argsort(-scores[row], kind="stable")
        phrase = textwrap.fill(item.phrase, 18)
        ax.text(2.42, top + 0.5, phrase, ha="right", va="center", fontsize=11)
        for place, i in enumerate(order):
            name = item.candidates[i]
            _picture(ax, data.path(name), name == item.gold, 2.5 + place, top)
            if scores is not None:
                ax.text(3.0 + place, top + 1.08, f"{scores[row][i]:.2f}", **middle)
    return fig


def _picture(ax: plt.Axes, path: Path, gold: bool, left: float, top: float) -> None:
    """One picture, fitted into the unit cell at (left, top), framed."""
    x, y = left + 0.5, top + 0.5
    if path.exists():
        picture = small_picture(path, 160)
        wide, high = (0.88 * side / max(picture.size) / 2 for side in picture.size)
        place = (x - wide, x + wide, y + high, y - high)
        ax.imshow(picture, extent=place, aspect="auto", zorder=2)
    else:
        ax.text(x, y, "missing", ha="center", va="center", fontsize=8, color=GREY)
    edge = {"edgecolor": BLUE, "lw": 3} if gold else {"edgecolor": "#DDDDDD", "lw": 0.6}
    frame = Rectangle((left + 0.04, top + 0.04), 0.92, 0.92, facecolor="none", zorder=3, **edge)
    ax.add_patch(frame)
