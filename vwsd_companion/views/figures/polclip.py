"""Figures of notebook 06: PolCLIP drawn from its configuration, its training, its scores, where
senses look, and where senses and pictures lie.
"""

from __future__ import annotations

import textwrap
from statistics import fmean

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

from vwsdlib.data.pictures import load_picture

from ...facts.collect import Collection
from ..tables import polclip as tables
from . import BLACK, BLUE, GREEN, GREY, ORANGE, RED, SKY, Drawn, figure, finish, spans

PURPLE = "#CC79A7"


def _box(
    ax: plt.Axes,
    x: float,
    y: float,
    w: float,
    h: float,
    text: str,
    colour: str,
    dashed: bool = False,
) -> None:
    """A box around its centre (x, y) in the drawing's units."""
    ax.add_patch(
        FancyBboxPatch(
            (x - w / 2, y - h / 2),
            w,
            h,
            boxstyle="round,pad=0,rounding_size=0.8",
            facecolor=colour + "22",
            edgecolor=colour,
            lw=1.4,
            ls="--" if dashed else "-",
        )
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=9, linespacing=1.25)


def _arrow(ax: plt.Axes, *points: tuple[float, float], text: str = "", at: float = 0) -> None:
    """A line through points with a head at its end; its name stands at x = `at`, as high as the
    last bend.
    """
    ax.plot(*zip(*points[:-1]), color="#444444", lw=1.1)
    ax.annotate(
        "",
        points[-1],
        points[-2],
        arrowprops={"arrowstyle": "-|>", "color": "#444444", "lw": 1.1, "shrinkA": 0, "shrinkB": 0},
    )
    if text:
        ax.text(
            at,
            points[-2][1],
            text,
            ha="center",
            va="center",
            fontsize=9,
            style="italic",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )


def _blocks(n: int) -> str:
    return f"{n} blocks" if n > 1 else "block"


@figure
def architecture(c: Collection) -> Drawn | None:
    """PolCLIP as it was configured: boxes of one colour share weights, dashed ones get no
    gradient."""
    if not tables.trained_runs(c):
        return None
    its = c.measured["polclip_runs"].meta["config"]
    fig = plt.figure(figsize=(11.4, 7.0))
    ax = fig.add_axes((0.005, 0.07, 0.99, 0.87), xlim=(0, 114), ylim=(0, 100))
    ax.set_axis_off()
    _towers(ax, its)
    roles = {
        "SIG": ("Q", "K, V"),
        "ISG": ("Q", "K, V") if its["roles"] == "figure" else ("K, V", "Q"),
    }
    layers = f"{its['fusion_layers']} cross-\nattention layer" + (
        "s" if its["fusion_layers"] > 1 else ""
    )
    for name, y, up, other, colour in (
        ("SIG", 75, 84.5, "vision", ORANGE),
        ("ISG", 25, 15.5, "text", BLUE),
    ):
        _box(ax, 47.5, y, 12, 7.5, f"former\n{_blocks(its['former_layers'])}, shared", GREEN)
        lent = (
            "the head"
            if (its["backbone"], other) == ("lite", "vision")
            else f"last {_blocks(its['borrowed'])}"
        )  # a convolutional tower has no blocks to lend
        _box(
            ax,
            65.5,
            y,
            19,
            9,
            f"{name}: linear map,\nthen {lent} of the\n{other} tower, borrowed",
            colour,
        )
        _box(ax, 88, up, 17, 9, f"fusion: {layers},\nread out: {its['readout']}", PURPLE)
        _arrow(ax, (53.5, y), (56, y))
        _arrow(ax, (40.2, y), (40.2, up), (79.5, up), text=roles[name][0], at=57)
        _arrow(
            ax,
            (75, y),
            (88, y),
            (88, up - 4.5 if up > y else up + 4.5),
            text=roles[name][1],
            at=82.5,
        )
    _losses(ax, its)
    ax.text(
        57,
        50,
        f"{len(its['losses'])} softmax losses over the batch, temperature {its['temperature']:g};"
        " at test a sense scores u·s + u·m, a picture t·x + t·r  (s, x: the towers' own vectors;"
        " t: the text)",
        ha="center",
        va="center",
        fontsize=8.5,
        color="#444444",
    )
    finish(
        fig,
        "PolCLIP: senses get an implicit picture, pictures an implicit sense, each is fused with"
        " what it was made of",
        c,
        "Boxes of one colour share weights; dashed: no gradient. Q asks, K and V are asked. u:"
        " target in its context; a: implicit picture of a sense; m: sense, fused; b: implicit sense"
        " of a picture; r: picture, fused; c: caption; x̃, s̃: targets.",
    )
    return fig, its


def _towers(ax: plt.Axes, its: dict) -> None:
    """What goes in, and the tower that reads it, from the top."""
    asks = "captions:\nword, gloss" if its["w2i_query"] == "caption" else "target in its\ncontext"
    followers = f"following (EMA {its['ema']:g})" if its["ema"] else "stop-gradient"
    opened = {
        name: (
            f"last {_blocks(its[f'open_{name}'])} trained"
            if its[f"open_{name}"]
            else "blocks frozen"
        )
        for name in ("text", "vision")
    }
    text, vision = (f"{name} tower\n{state}" for name, state in opened.items())
    lanes = (
        (
            93,
            "target in its\ncontext" if its["context"] == "span" else "the target's\nsentence",
            text,
            BLUE,
            False,
        ),
        (75, "glosses", text, BLUE, False),
        (56, "pictures", f"vision tower,\n{followers}", ORANGE, True),
        (44, "glosses", f"text tower,\n{followers}", BLUE, True),
        (25, "pictures", vision, ORANGE, False),
        (7, asks, text, BLUE, False),
    )
    for y, given, tower, colour, still in lanes:
        _box(ax, 6, y, 11, 7, given, GREY)
        _box(ax, 21.5, y, 15.5, 7.5, tower, colour, still)
        _arrow(ax, (11.5, y), (13.75, y))
    _box(ax, 35.2, 25, 7.6, 7.5, "places →\ntokens", GREY)
    for start, end, y in ((29.25, 41.5, 75), (29.25, 31.4, 25), (39, 41.5, 25)):
        _arrow(ax, (start, y), (end, y))


def _losses(ax: plt.Axes, its: dict) -> None:
    """The losses with the two vectors that each compares."""
    for name, y, words in (
        ("w2s", 89, "which sense"),
        ("sig", 61, "which pictures"),
        ("isg", 39, "which sense"),
        ("w2i", 11, "which pictures"),
    ):
        on = name in its["losses"]
        _box(
            ax,
            107,
            y,
            12.5,
            14,
            f"{name.upper()}\n{words}" + ("" if on else "\n(off)"),
            RED if on else GREY,
            not on,
        )
    asks = "c" if its["w2i_query"] == "caption" else "u"
    for text, *points in (
        ("u", (29.25, 93)),
        ("m", (96.5, 85.5)),
        ("a", (65.5, 70.5), (65.5, 65)),
        ("x̃", (29.25, 57)),
        ("s̃", (29.25, 43)),
        ("b", (65.5, 29.5), (65.5, 35)),
        ("r", (96.5, 14.5)),
        (asks, (29.25, 7)),
    ):
        _arrow(ax, *points, (100.75, points[-1][1]), text=text, at=98.2 if text in "mr" else 96)


@figure
def polclip_training(c: Collection) -> Drawn | None:
    """The four losses and the shares right in a batch over training: seeds as light lines, their
    smoothed mean, the dev items as points.
    """
    if "polclip_training" not in c.measured:
        return None
    records = c.measured["polclip_training"].records
    runs, drawn = list(dict.fromkeys(r["run"] for r in records)), {}
    steps, dev = [r for r in records if "dev" not in r], [r for r in records if "dev" in r]
    fig, axes = plt.subplots(2, 3, figsize=(11, 5.4), sharex=True, layout="constrained")
    levels = _uniform(c)
    for ax, key in zip(axes.ravel(), ("sig", "w2s", "textual", "isg", "w2i", "visual")):
        share, lines = key in ("textual", "visual"), {}
        for run in runs:
            lines[run] = {
                r["step"]: (100 if share else 1) * r[key]
                for r in steps
                if r["run"] == run and r.get(key) is not None
            }
            ax.plot(
                list(lines[run]),
                list(lines[run].values()),
                color=SKY,
                lw=0.7,
                alpha=0.6,
                label="a seed, a batch" if run == runs[0] else None,
            )
        common = sorted(set.intersection(*map(set, lines.values())))
        window = max(1, len(common) // 25)
        means = (
            np.convolve(
                [fmean(line[s] for line in lines.values()) for s in common],
                np.ones(window) / window,
                "valid",
            )
            if common
            else ()
        )
        ax.plot(
            common[window - 1 :],
            means,
            color=BLUE,
            lw=1.8,
            label="mean of seeds" + (f" and {window} steps" if window > 1 else ""),
        )
        if key in levels:
            ax.axhline(levels[key], color=RED, ls="--", lw=1.2, label="knowing nothing, full batch")
        if share:
            for i, run in enumerate(runs):
                ends = [
                    (r["step"], r["dev"][key]) for r in dev if r["run"] == run and key in r["dev"]
                ]
                beside = (
                    (i - (len(runs) - 1) / 2) * 0.025 * len(common)
                )  # or the seeds' marks would cover each other
                ax.plot(
                    [x + beside for x, _ in ends],
                    [y for _, y in ends],
                    "os^Dv"[i % 5],
                    color=ORANGE,
                    mec=BLACK,
                    mew=0.6,
                    ms=6,
                    label="dev, a mark a seed" if i == 0 else None,
                )
            ax.set(ylim=(0, 103), ylabel="right, percent")
        ax.set(
            title=f"{key}: right in the batch, and on dev" if share else f"loss {key.upper()}",
            xlabel="step" if ax in axes[1] else "",
        )
        drawn[key] = {run: list(line.values()) for run, line in lines.items()}
    named = dict(zip(*(some[::-1] for some in axes[0, 0].get_legend_handles_labels()))) | dict(
        zip(*axes[0, 2].get_legend_handles_labels())
    )
    named = {text: line for line, text in named.items()}  # each name once
    fig.legend(
        named.values(), named, fontsize=8, frameon=False, loc="outside upper right", ncol=len(named)
    )
    finish(fig, f"Training, {len(runs)} seed{'s' if len(runs) > 1 else ''}", c)
    return fig, {**drawn, "dev": dev, "uniform": levels}


def _uniform(c: Collection) -> dict[str, float]:
    """Losses of a full batch where nothing is known; those that sum over a sense's pictures only
    where it does not matter how many these are.
    """
    from polclip.losses import uniform

    its = c.measured["polclip_runs"].meta["config"] if "polclip_runs" in c.measured else None
    if its is None or its["senses"] * its["per_sense"] != its["pictures"]:
        return {}
    found = uniform(its["senses"], its["per_sense"])
    return {
        k: v / (its["per_sense"] if k in ("sig", "w2i") else 1)
        for k, v in found.items()
        if its["normalise_targets"] or k in ("w2s", "isg")
    }


@figure
def polclip_scores(c: Collection) -> Drawn | None:
    """Textual F1 and visual hit@1: what was not trained in grey, PolCLIP's three scores in blue; a
    circle a seed, the interval of the middle one.
    """
    words, pictures = tables.textual(c), tables.visual_polclip(c)
    group = words.rows[0]["group"] if words else ""
    panels = (
        [
            (
                f"Textual, {group}",
                "F1",
                [r for r in words.rows if r["group"] == group and "seeds" in r],
            )
        ]
        if words
        else []
    )
    panels += [
        (f"Visual, {language}", "hit@1", [r for r in pictures.rows if r["language"] == language])
        for language in dict.fromkeys(r["language"] for r in (pictures.rows if pictures else ()))
    ]
    if not panels:
        return None
    deep, high = -(-len(panels) // 2), max(len(rows) for *_, rows in panels)
    fig, axes = plt.subplots(
        deep,
        min(2, len(panels)),
        figsize=(11, deep * (1.3 + 0.36 * high)),
        squeeze=False,
        layout="constrained",
    )
    for ax, (title, metric, rows) in zip(axes.ravel(), panels):
        for y, row in enumerate(rows):
            trained, middle = "spread" in row or row["system"].startswith("PolCLIP"), row["middle"]
            ax.barh(y, row["value"], height=0.66, color=SKY if trained else "#C8C8C8")
            ax.errorbar(middle["value"], y, xerr=spans(middle), color=BLACK, capsize=3, lw=1)
            at = np.linspace(-0.2, 0.2, len(row["seeds"])) if trained else ()
            ax.plot(
                row["seeds"][: len(at)],
                y + np.array(at),
                "o",
                ms=5,
                mfc="white",
                mec=BLUE,
                mew=1.3,
                zorder=3,
            )
            ax.text(
                max(middle["ci_high"], *row["seeds"]) + 1.5,
                y,
                f"{row['value']:.1f}",
                va="center",
                fontsize=8,
            )
        names = [
            textwrap.fill(r["system"].replace("A photo of …", "A\u00a0photo\u00a0of\u00a0…"), 32)
            for r in rows
        ]
        ax.set(
            yticks=range(len(rows)),
            yticklabels=names,
            ylim=(len(rows) - 0.4, -0.6),
            xlim=(0, 112),
            xticks=range(0, 101, 20),
            xlabel=f"{metric}, percent (95 % interval)",
            title=f"{title} (n = {rows[0]['n']})",
        )
        ax.tick_params(axis="y", labelsize=8.5)
        ax.grid(axis="y", visible=False)
    for ax in axes.ravel()[len(panels) :]:
        ax.set_axis_off()
    finish(
        fig,
        "What training brings, and by which score",
        c,
        "Bars: means over seeds; circles: seeds; lines: 95 % interval of the middle seed.",
    )
    return fig, [{"panel": title, "rows": rows} for title, _, rows in panels]


@figure
def polclip_ablations(c: Collection) -> Drawn | None:
    """Each change against the full model of the same seed: difference in points with its 95 %
    interval, textual and visual.
    """
    made = tables.polclip_ablations(c)
    rows = [r for r in made.rows if "t_tests" in r or "v_tests" in r] if made else []
    if not rows:
        return None
    fig, axes = plt.subplots(
        1, 2, figsize=(11, 1.5 + 0.34 * len(rows)), sharey=True, layout="constrained"
    )
    for ax, (key, name) in zip(axes, (("t", "Textual F1"), ("v", "Visual hit@1"))):
        for y, row in enumerate(rows):
            if central := row.get(f"{key}_central"):
                colour, marker = (BLUE, "o") if row["trained"] == "yes" else (ORANGE, "s")
                arms = spans({**central, "value": central["difference"]})
                ax.errorbar(
                    central["difference"], y, xerr=arms, fmt=marker, color=colour, capsize=3, ms=6
                )
                ax.plot(
                    [t["difference"] for t in row[f"{key}_tests"]],
                    np.full(len(row[f"{key}_tests"]), y - 0.26),
                    "|",
                    color=BLACK,
                    ms=6,
                    mew=1.2,
                )
        ax.axvline(0, color=GREY, ls="--", lw=1)
        n = next((r[f"{key}_n"] for r in rows if f"{key}_n" in r), 0)
        ax.set(
            title=f"{name} (n = {n})",
            xlabel="points against the full model (95 % interval)",
            yticks=range(len(rows)),
            yticklabels=[r["change"] for r in rows],
            ylim=(len(rows) - 0.4, -0.7),
        )
        ax.xaxis.set_major_locator(plt.MaxNLocator(6, steps=[1, 2, 5, 10]))
    for marker, colour, name in (
        ("o", BLUE, "trained anew"),
        ("s", ORANGE, "the same models, scored otherwise"),
        ("|", BLACK, "a seed"),
    ):
        axes[0].plot([], [], marker, color=colour, label=name)
    fig.legend(fontsize=8, frameon=False, loc="outside upper right", ncol=3)
    finish(
        fig,
        "What each part is worth",
        c,
        "With several seeds the interval is that of the middle one.",
    )
    return fig, rows


@figure
def polclip_attention(c: Collection) -> Drawn | None:
    """How much each token of a gloss looks at each generated place in the fusion's last layer; one
    scale, rows sum to one.
    """
    if "polclip_attention" not in c.measured:
        return None
    m = c.measured["polclip_attention"]
    some = m.records[:4]
    shown = [m.maps[r["map"]] for r in some]
    shown = [
        a[:, : 1 + np.flatnonzero(a.max(0) > 0).max()] for a in shown
    ]  # places of padding get nothing
    deep, high = -(-len(some) // 2), 1.2 + 0.17 * max(map(len, shown))
    fig, axes = plt.subplots(
        deep,
        min(2, len(some)),
        figsize=(11, 0.9 + deep * high),
        squeeze=False,
        layout="constrained",
    )
    for ax, r, a in zip(axes.ravel(), some, shown):
        drawn = ax.imshow(
            a,
            cmap="viridis",
            vmin=0,
            vmax=max(b.max() for b in shown),
            aspect="auto",
            interpolation="nearest",
        )
        ax.set(yticks=range(len(r["tokens"])), yticklabels=r["tokens"], xlabel="generated place")
        ax.set_title(
            f"{r['sense']}\n" + textwrap.shorten(r["gloss"], 62, placeholder=" …"), fontsize=9
        )
        ax.tick_params(axis="y", labelsize=8)
        ax.grid(visible=False)
    for ax in axes.ravel()[len(some) :]:
        ax.set_axis_off()
    fig.colorbar(drawn, ax=axes, location="right", shrink=0.7, label="attention, mean over heads")
    finish(
        fig,
        "Where a sense looks in the picture that was generated for it",
        c,
        "One over the number of places would be even attention.",
    )
    return fig, some


@figure
def sense_map(c: Collection) -> Drawn | None:
    """Glosses (names) and pictures of a few lemmas' senses in the plain and in the fused space,
    projected to a plane; lemma by colour.
    """
    if "polclip_map" not in c.measured:
        return None
    m, wide, high = c.measured["polclip_map"], 5.3, 5.2
    data, colours = (
        c.data(m.meta),
        dict(
            zip(
                dict.fromkeys(r["lemma"] for r in m.records),
                (BLUE, ORANGE, GREEN, PURPLE, BLACK, RED) * 9,
            )
        ),
    )
    fig = plt.figure(figsize=(2 * wide + 0.4, high + 1.15))
    for i, (title, fused) in enumerate(
        (("plain: the towers' own vectors", False), ("fused with what was generated", True))
    ):
        records = [r for r in m.records if r["kind"].startswith("fused") == fused]
        w, h = fig.get_size_inches()
        ax = fig.add_axes(
            ((0.1 + i * (wide + 0.2)) / w, 0.5 / h, wide / w, high / h),
            xticks=(),
            yticks=(),
            title=title,
        )
        ax.spines[:].set(visible=True, color="#DDDDDD")
        if records:
            _scatter(ax, records, data, colours, np.array([wide, high]))
    for lemma, colour in colours.items():
        ax.plot([], [], "s", color=colour, label=lemma)
    fig.legend(
        fontsize=9,
        frameon=False,
        loc="upper right",
        ncol=len(colours),
        bbox_to_anchor=(1, 1),
        handletextpad=0.1,
        columnspacing=1,
    )
    finish(
        fig,
        "Senses and pictures of a few words",
        c,
        f"A thin line leads from a name or drawing to its place. {data.credit}",
    )
    return fig, m.records


def _scatter(
    ax: plt.Axes, records: list[dict], data, colours: dict[str, str], room: np.ndarray
) -> None:
    """Names and drawings near their places, in inches, moved apart where they would cover each
    other.
    """
    points = np.array([[r["x"], r["y"]] for r in records], float)
    points = (points - (points.max(0) + points.min(0)) / 2) / max(
        (np.ptp(points, axis=0) / (0.78 * room)).max(), 1e-9
    ) + room / 2
    sizes = np.array(
        [(0.4, 0.4) if r["picture"] else (0.14 + 0.073 * len(r["sense"]), 0.21) for r in records]
    )
    for r, point, (x, y), (w, h) in zip(records, points, apart(points, sizes, room), sizes):
        ax.plot(
            *zip(point, (x, y)),
            color=colours[r["lemma"]],
            lw=0.8,
            marker=".",
            markevery=[0],
            ms=4,
            zorder=1,
        )
        path = data.path(r["picture"]) if r["picture"] else None
        if path is not None and path.exists():
            picture = load_picture(path, truncated="keep").image
            picture.thumbnail((96, 96))
            ax.imshow(
                picture,
                extent=(x - w / 2 + 0.03, x + w / 2 - 0.03, y - h / 2 + 0.03, y + h / 2 - 0.03),
                aspect="auto",
                zorder=3,
            )
        ax.add_patch(
            FancyBboxPatch(
                (x - w / 2 + 0.03, y - h / 2 + 0.03),
                w - 0.06,
                h - 0.06,
                boxstyle="round,pad=0.02",
                facecolor="white",
                edgecolor=colours[r["lemma"]],
                lw=1.3,
                zorder=2,
            )
        )
        if not r["picture"]:
            ax.text(x, y, r["sense"], ha="center", va="center", fontsize=8, zorder=4)
    ax.set(xlim=(0, room[0]), ylim=(0, room[1]))


def apart(centres: np.ndarray, sizes: np.ndarray, room: np.ndarray, steps: int = 500) -> np.ndarray:
    """Centres [n, 2] of boxes of `sizes` [n, 2], pushed along the axis of least overlap until none
    covers another, inside `room` [2].
    """
    found, order = (
        centres.astype(float),
        np.sign(np.arange(len(centres))[:, None] - np.arange(len(centres))),
    )
    for _ in range(steps):
        gap = found[:, None] - found  # [n, n, 2]
        over = (sizes[:, None] + sizes) / 2 - np.abs(gap)
        hit = (over > 1e-6).all(-1) & (order != 0)
        if not hit.any():
            break
        away = np.where(np.abs(gap) > 1e-9, np.sign(gap), order[..., None]) * (over + 0.01) / 4
        found += (away * (over.argmin(-1)[..., None] == np.arange(2)) * hit[..., None]).sum(1)
        found = np.clip(found, sizes / 2, room - sizes / 2)
    return found
