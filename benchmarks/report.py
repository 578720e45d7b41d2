"""Turns become medians with their spread: a table to read, a JSON file and a plot."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from vwsdlib.paths import atomic

BLUE, ORANGE, GREEN, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#8C8C8C",
)  # Okabe and Ito: told apart by colour-blind readers


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of several turns."""
    return {
        "median": float(median(values)),
        "min": float(min(values)),
        "max": float(max(values)),
        "turns": len(values),
    }


def summarise(turns: Sequence[dict], base: str = "") -> dict:
    """Turns of one scenario -> seconds, ratios and facts with their spread.

    turns: dicts of `seconds` and `facts`. A ratio is taken within a turn: seconds of the base by
    those of the side, above 1 where the side is faster. Facts that are no numbers are of the last
    turn.
    """
    sides, last = turns[-1]["seconds"], turns[-1]["facts"]
    ratios = (
        {
            side: spread([t["seconds"][base] / t["seconds"][side] for t in turns])
            for side in sides
            if side != base
        }
        if base
        else {}
    )
    numbers = {key for key, value in last.items() if isinstance(value, (int, float))}
    return {
        "seconds": {side: spread([t["seconds"][side] for t in turns]) for side in sides},
        "ratios": ratios,
        "facts": {
            key: spread([t["facts"][key] for t in turns]) if key in numbers else value
            for key, value in last.items()
        },
    }


def _number(value: float) -> str:
    return (
        f"{value:.1e}"
        if 0 < abs(value) < 0.001
        else f"{value:.3g}"
        if abs(value) < 1000
        else f"{value:,.0f}"
    )


def _line(label: str, found: dict, unit: str) -> str:
    return (
        f"  {label:<58} {_number(found['median']):>9} {unit:<6} ({_number(found['min'])} to"
        f" {_number(found['max'])})"
    )


def table(machine: dict, found: dict[str, dict]) -> str:
    """The whole result as text."""
    lines = [
        (
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB,"
            f" {' '.join(machine['instructions'])}"
        ),
        (
            "Medians over turns (least to greatest). A ratio above 1: faster than the side it is"
            " held against."
        ),
    ]
    for name, its in found.items():
        lines += ["", f"{name} ({next(iter(its['seconds'].values()))['turns']} turns)"]
        lines += [_line(side, value, "s") for side, value in its["seconds"].items()]
        lines += [_line(f"{side}: ratio", value, "x") for side, value in its["ratios"].items()]
        for key, value in its["facts"].items():
            lines += (
                [_line(key, value, "")]
                if isinstance(value, dict)
                else [f"  {key}: {'; '.join(value) or 'none'}"]
            )
    return "\n".join(lines)


def plot(machine: dict, found: dict[str, dict], path: Path) -> None:
    """Ratios with their spread, shares of peak, growth: panels of what was measured; no file where
    it is none of them.
    """
    import matplotlib

    matplotlib.use("Agg")
    import seaborn

    sides = {"axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}
    with matplotlib.rc_context():  # the theme ends with the plot
        seaborn.set_theme(style="whitegrid", rc=sides)
        _plot(machine, found, path)


def _plot(machine: dict, found: dict[str, dict], path: Path) -> None:
    from matplotlib import pyplot as plt

    drawn = [panel for panel in (_ratios, _shares, _growth) if panel(None, found)]
    if not drawn:
        return
    fig, axes = plt.subplots(
        1, len(drawn), figsize=(5.4 * len(drawn), 4.6), layout="constrained", squeeze=False
    )
    for panel, ax in zip(drawn, axes[0]):
        panel(ax, found)
    title = (
        f"{machine['processor']}, {machine['cores']} cores. Dots are medians, bars go from the"
        " least to the greatest turn"
    )
    fig.suptitle(textwrap.fill(title, 58 * len(drawn)), x=0.01, ha="left", fontsize=11)
    with atomic(path) as temporary:
        fig.savefig(temporary, format="png", dpi=130, metadata={"Software": None})
    plt.close(fig)


def _dots(ax, values: list[tuple[str, dict]], colour: str) -> None:
    for at, (_label, value) in enumerate(values):
        ax.plot(
            [value["min"], value["max"]],
            [at, at],
            color=colour,
            lw=3,
            alpha=0.5,
            solid_capstyle="round",
        )
        ax.plot(value["median"], at, "o", color=colour, ms=7)
        ax.annotate(
            _number(value["median"]),
            (value["median"], at),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    ax.set_yticks(range(len(values)), [label for label, _ in values])
    ax.set_ylim(len(values) - 0.4, -0.7)
    ax.grid(axis="y", visible=False)


def _ratios(ax, found: dict) -> list:
    """All but warm runs, hundreds of times the rest: they stand in the table."""
    values = [
        (f"{name}: {side}", value)
        for name, its in found.items()
        for side, value in its["ratios"].items()
        if "warm" not in side
    ]
    if ax and values:
        _dots(ax, values, BLUE)
        ax.axvline(1, color=GREY, ls="--", lw=1)
        ax.set(
            xlim=(0, 1.08 * max(value["max"] for _, value in values)),
            xlabel="times as fast as the plain loop",
            title="Beside the plain loop, nothing stored",
        )
    return values


def _shares(ax, found: dict) -> list:
    mark, facts = "share of peak, ", found.get("encoder", {"facts": {}})["facts"]
    values = [
        (key.removeprefix(mark).removesuffix(" (%)"), value)
        for key, value in facts.items()
        if mark in key
    ]
    if ax and values:
        _dots(ax, values, GREEN)
        ax.set(
            xlim=(0, 108),
            xlabel="% of the measured peak of matrix products",
            title="Picture towers alone",
        )
    return values


def _growth(ax, found: dict) -> list:
    its = found.get("growth") or found.get("growth-large")
    if ax and its:
        sizes = [int(side.split()[0]) for side in its["seconds"]]
        memory = [its["facts"][f"peak memory, {n} pictures (MB)"]["median"] for n in sizes]
        twin = ax.twinx()
        ax.errorbar(sizes, *_bars(list(its["seconds"].values())), color=BLUE, marker="o", capsize=3)
        twin.plot(sizes, memory, color=ORANGE, marker="s", ls="--")
        twin.set_ylim(0, 1.25 * max(memory))
        twin.grid(False)
        ax.set(
            xlabel="pictures",
            title=f"Growth (R² {its['facts']['fit: R²']['median']:.4f})",
            ylim=(0, None),
            xlim=(0, None),
        )
        ax.set_ylabel("seconds (circles, solid)", color=BLUE)
        twin.set_ylabel("peak memory, MB (squares, dashed)", color="#9A6A00")
    return [its] if its else []


def _bars(values: list[dict]) -> tuple[list[float], list[list[float]]]:
    middle = [v["median"] for v in values]
    return middle, [
        [v["median"] - v["min"] for v in values],
        [v["max"] - v["median"] for v in values],
    ]
