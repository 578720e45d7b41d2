"""Figures: pure functions of the stored facts (and of the set's pictures), saved as PNG and PDF
with their data beside them.

A new figure is one function under `@figure`, in the room of its notebook, that returns a matplotlib
figure and the numbers drawn. Colours are Okabe and Ito's, told apart by colour-blind readers; Farsi
is shaped and runs from right to left (matplotlib shapes text itself from 3.11 on).
"""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg", force=False)
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vwsdlib import paths
from vwsdlib.data.items import Item
from vwsdlib.data.pictures import load_picture
from vwsdlib.data.sets import VwsdSet
from vwsdlib.errors import VwsdError

from ...facts.collect import Collection
from ..tables import set_title

BLUE, ORANGE, GREEN, GREY, RED, SKY, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#8C8C8C",
    "#D55E00",
    "#56B4E9",
    "#222222",
)
LANGUAGE_COLOURS = {"en": BLUE, "it": ORANGE, "fa": GREEN}
MARKERS = {"en": "o", "it": "s", "fa": "D"}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "svg.hashsalt": "vwsd",
    "pdf.fonttype": 42,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
}

Drawn = tuple[Figure, object]
FIGURES: dict[str, Callable[[Collection], Drawn | None]] = {}


def figure(function: Callable[[Collection], Drawn | None]) -> Callable[[Collection], Drawn | None]:
    """Register a figure under its function's name; it returns None where the profile has no facts
    for it.
    """

    def styled(c: Collection) -> Drawn | None:
        with plt.rc_context(STYLE):
            return function(c)

    styled.__name__, styled.__doc__ = function.__name__, function.__doc__
    FIGURES[function.__name__] = styled
    return styled


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
    metadata = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    }
    written = []
    with plt.rc_context(STYLE):
        for kind, blank in metadata.items():
            with paths.atomic(f"{stem}.{kind}") as temporary:
                fig.savefig(temporary, format=kind, metadata=blank)
            written.append(Path(f"{stem}.{kind}"))
    plt.close(fig)
    return [*written, paths.write_text(f"{stem}.json", stated)]


def png(fig: Figure, dpi: int = 90) -> bytes:
    """A figure as PNG bytes at screen size; it is closed."""
    out = io.BytesIO()
    with plt.rc_context(STYLE):
        fig.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
    plt.close(fig)
    return out.getvalue()


def spans(row: dict) -> list[list[float]]:
    """Lengths of the two arms of an interval, for matplotlib's error bars; never negative, whatever
    the last bits say.
    """
    return [[max(0.0, row["value"] - row["ci_low"])], [max(0.0, row["ci_high"] - row["value"])]]


def finish(fig: Figure, title: str, c: Collection, credit: str = "") -> None:
    """One heading and one small line that names data, profile and whose pictures these are."""
    fig.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    wide = round(17 * fig.get_figwidth())  # letters of this size in a line
    fig.supxlabel(
        textwrap.fill(f"{set_title(c)}. {credit}".strip(), wide),
        x=0.01,
        ha="left",
        fontsize=7,
        color="#555555",
    )


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
    for row, item in enumerate(items):
        top = row * height
        order = range(10) if scores is None else sorted(range(10), key=lambda i: -scores[row][i])
        ax.text(
            2.42, top + 0.5, textwrap.fill(item.phrase, 18), ha="right", va="center", fontsize=11
        )
        for place, i in enumerate(order):
            _picture(
                ax, data, item.candidates[i], item.candidates[i] == item.gold, 2.5 + place, top
            )
            if scores is not None:
                ax.text(
                    3.0 + place,
                    top + 1.08,
                    f"{scores[row][i]:.2f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                )
    return fig


def _picture(ax: plt.Axes, data: VwsdSet, name: str, gold: bool, left: float, top: float) -> None:
    """One picture, fitted into the unit cell at (left, top), framed."""
    path = data.path(name)
    if path.exists():
        picture = load_picture(path, truncated="keep").image
        picture.thumbnail((160, 160))
        wide, high = (0.88 * side / max(picture.size) / 2 for side in picture.size)
        ax.imshow(
            picture,
            extent=(left + 0.5 - wide, left + 0.5 + wide, top + 0.5 + high, top + 0.5 - high),
            aspect="auto",
            zorder=2,
        )
    else:
        ax.text(left + 0.5, top + 0.5, "missing", ha="center", va="center", fontsize=8, color=GREY)
    edge = (
        {"edgecolor": BLUE, "linewidth": 3} if gold else {"edgecolor": "#DDDDDD", "linewidth": 0.6}
    )
    ax.add_patch(
        Rectangle((left + 0.04, top + 0.04), 0.92, 0.92, facecolor="none", zorder=3, **edge)
    )


from . import baseline, clipseg, multilingual, polclip, saliency  # noqa: E402, F401  (they register their figures)
