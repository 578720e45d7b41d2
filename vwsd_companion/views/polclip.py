"""Views of notebook 06: PolCLIP drawn from its configuration, its training, and its scores on words
and on pictures, over seeds, against what was not trained for it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import yaml
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

from vwsdlib.analysis.metrics import mcnemar, paired_interval, percent
from vwsdlib.analysis.wsd_scoring import compare_answers, groups
from vwsdlib.errors import VwsdError

from ..facts.collect import LANGUAGE_NAMES, Collection
from ..facts.measurements import Measurement
from ..facts.numbers import wsd_id
from ..facts.predictions import Predictions
from ..facts.reported import published
from .base import records_of
from .figures import Drawing, dot, figure, name_rows, panels, spans
from .paired import share_cells
from .style import BLACK, BLUE, DASHED, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from .tables import Rows, interval, table

ARCHITECTURE = Path(__file__).with_name("architecture.yml")
COLOURS = dict(grey=GREY, blue=BLUE, orange=ORANGE, green=GREEN, purple=PURPLE, red=RED)
ZERO_SHOT = "sentence encoder"
SYSTEMS = {"first-sense": "first sense", "lesk": "Lesk", ZERO_SHOT: "sentence encoder, zero-shot"}
SCORES = {"plain": "PolCLIP, plain", "fused": "PolCLIP, fused", "sum": "PolCLIP, plain + fused"}
MEASURES = {"t": "Textual F1", "v": "Visual hit@1"}  # prefixes of keys in the table of ablations
FULL = "the full model"
EXAMPLES = 5
System = tuple[str, str]  # (system, score) of textual WSD


def trained_runs(c: Collection, group: str = "main") -> list[dict]:
    """What notebook 06 stored of its trained models; group: main (the full model) or ablation."""
    return [run for run in records_of(c, "polclip_runs") if run["group"] == group]


def trained_as(c: Collection) -> str:
    """What a row of a model that was trained on the published data says of its training, where it
    is less than the paper's; "" elsewhere.
    """
    if not trained_runs(c):
        return ""
    meta = c.measured["polclip_runs"].meta
    trained = meta.get("study", {})
    if trained.get("study") != "published":
        return ""
    from polclip.config import Config

    epochs, corpus = meta["config"]["epochs"], trained["train"]
    if corpus == "all" and epochs >= Config().epochs:
        return ""
    return f" (not the paper's training: {epochs} of {Config().epochs} epochs, on {corpus})"


# ---------------------------------------------------------------- the model


@figure
def architecture_figure(c: Collection) -> Drawing:
    """PolCLIP as it was configured: boxes of one colour share weights, dashed ones get no
    gradient."""
    if not trained_runs(c):
        return None
    config = c.measured["polclip_runs"].meta["config"]
    fig = plt.figure(figsize=(11.4, 7.0))
    ax = fig.add_axes((0.005, 0.07, 0.99, 0.87), xlim=(0, 114), ylim=(0, 100))
    ax.set_axis_off()
    words = _words(config)
    for part in yaml.safe_load(ARCHITECTURE.read_text(encoding="utf-8")):
        text = part.get("text", "").format(**words)
        colour, dashed = part.get("colour", "red"), part.get("dashed", False)
        if "loss" in part and part["loss"] not in config["losses"]:
            text, colour, dashed = f"{text}\n(off)", "grey", True
        if "arrow" in part:
            _arrow(ax, *part["arrow"], text=text, at=part.get("at", 0))
        else:
            _box(ax, part["box"], text, COLOURS[colour], dashed)
    told = (
        f"{len(config['losses'])} softmax losses over the batch, temperature"
        f" {config['temperature']:g}; at test a sense scores u·s + u·m, a picture t·x + t·r  (s, x:"
        " the towers' own vectors; t: the text)"
    )
    ax.text(57, 50, told, ha="center", va="center", fontsize=8.5, color="#444444")
    return fig, config


def _blocks(n: int) -> str:
    return f"{n} blocks" if n > 1 else "block"


def _words(config: dict) -> dict[str, str]:
    """The words of architecture.yml that a configuration decides."""
    towers = {}
    for name in ("text", "vision"):
        opened = config[f"open_{name}"]
        state = f"last {_blocks(opened)} trained" if opened else "blocks frozen"
        towers[f"{name}_tower"] = f"{name} tower\n{state}"
    lent = f"last {_blocks(config['borrowed'])}"
    plural = "s" if config["fusion_layers"] > 1 else ""
    layers = f"{config['fusion_layers']} cross-\nattention layer{plural}"
    caption, span = config["w2i_query"] == "caption", config["context"] == "span"
    as_drawn = config["roles"] == "figure"
    return {
        **towers,
        "target": "target in its\ncontext" if span else "the target's\nsentence",
        "asks": "captions:\nword, gloss" if caption else "target in its\ncontext",
        "asked": "c" if caption else "u",
        "followers": f"following (EMA {config['ema']:g})" if config["ema"] else "stop-gradient",
        "former": f"former\n{_blocks(config['former_layers'])}, shared",
        "lent_text": lent,
        # a convolutional tower has no blocks to lend
        "lent_vision": "the head" if config["backbone"] == "lite" else lent,
        "fusion": f"fusion: {layers},\nread out: {config['readout']}",
        "isg_picture": "Q" if as_drawn else "K, V",
        "isg_sense": "K, V" if as_drawn else "Q",
    }


def _box(ax: plt.Axes, place: Sequence[float], text: str, colour: str, dashed: bool) -> None:
    """A box [x, y, width, height] around its centre (x, y) in the drawing's units."""
    x, y, w, h = place
    shape = {"boxstyle": "round,pad=0,rounding_size=0.8", "ls": "--" if dashed else "-"}
    look = {"facecolor": colour + "22", "edgecolor": colour, "lw": 1.4, **shape}
    ax.add_patch(FancyBboxPatch((x - w / 2, y - h / 2), w, h, **look))
    ax.text(x, y, text, ha="center", va="center", fontsize=9, linespacing=1.25)


def _arrow(ax: plt.Axes, *points: tuple[float, float], text: str = "", at: float = 0) -> None:
    """A line through points to an arrow's head; its name at x = `at`, as high as the last bend."""
    line = {"color": "#444444", "lw": 1.1}
    ax.plot(*zip(*points[:-1]), **line)
    head = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, **line}
    ax.annotate("", points[-1], points[-2], arrowprops=head)
    if text:
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        look = {"ha": "center", "va": "center", "fontsize": 9, "style": "italic"}
        ax.text(at, points[-2][1], text, bbox=white, **look)


@table
def polclip_model_table(c: Collection) -> Rows:
    """Parameters of the parts, and how many of them are trained."""
    runs = trained_runs(c)
    if not runs:
        return None
    whole = runs[0]
    rows = [
        {"part": part, "parameters": n, "trained": trained}
        for part, (n, trained) in whole["parts"].items()
    ]
    rest = whole["parameters"] - sum(row["parameters"] for row in rows)
    if rest:
        name = "followers of what is trained in the towers"
        rows.append({"part": name, "parameters": rest, "trained": 0})
    return [*rows, {**whole, "part": "the model"}]


# ---------------------------------------------------------------- training


SHARES = ("textual", "visual")


@figure(of="polclip_training")
def polclip_training_figure(c: Collection, m: Measurement) -> Drawing:
    """The four losses and the shares right in a batch over training: seeds as light lines, their
    smoothed mean, the dev items as points."""
    records = m.records
    runs, dev = list(dict.fromkeys(r["run"] for r in records)), [r for r in records if "dev" in r]
    steps, levels, numbers = [r for r in records if "dev" not in r], _uniform(c), {}
    fig, axes = panels(2, 3, 11, 5.4, sharex=True)
    for ax, key in zip(axes.flat, ("sig", "w2s", "textual", "isg", "w2i", "visual")):
        lines = {run: {} for run in runs}
        for record in steps:
            if record.get(key) is not None:
                scale = 100 if key in SHARES else 1
                lines[record["run"]][record["step"]] = scale * record[key]
        numbers[key] = {run: list(line.values()) for run, line in lines.items()}
        length = _draw_lines(ax, list(lines.values()))
        title = f"loss {key.upper()}"
        if key in levels:
            label = "knowing nothing, full batch"
            ax.axhline(levels[key], color=RED, ls="--", lw=1.2, label=label)
        if key in SHARES:
            _draw_dev(ax, dev, runs, key, length)
            ax.set(ylim=(0, 103), ylabel="right, percent")
            title = f"{key}: right in the batch, and on dev"
        ax.set(title=title, xlabel="step" if ax in axes[1] else "")
    handles, names = axes[0, 0].get_legend_handles_labels()
    named = dict(zip(names[::-1], handles[::-1]))  # each name once
    handles, names = axes[0, 2].get_legend_handles_labels()
    named |= dict(zip(names, handles))
    fig.legend(named.values(), named, loc="outside upper right", ncol=len(named))
    seeds = f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
    return fig, {**numbers, "dev": dev, "uniform": levels}, {"seeds": seeds}


def _draw_lines(ax: plt.Axes, lines: list[dict[int, float]]) -> int:
    """Draw lines (step -> value), one a seed, and their smoothed mean over the steps that all have;
    returns how many these are."""
    for line in lines:
        label = "a seed, a batch" if line is lines[0] else None
        ax.plot(list(line), list(line.values()), color=SKY, lw=0.7, alpha=0.6, label=label)
    common = sorted(set.intersection(*map(set, lines)))
    window = max(1, len(common) // 25)
    means = [fmean(line[step] for line in lines) for step in common]
    if common:
        means = np.convolve(means, np.ones(window) / window, "valid")
    label = "mean of seeds" + (f" and {window} steps" if window > 1 else "")
    ax.plot(common[window - 1 :], means, color=BLUE, lw=1.8, label=label)
    return len(common)


def _draw_dev(ax: plt.Axes, dev: list[dict], runs: list[str], key: str, length: int) -> None:
    """Marks of the dev items' shares, beside each other, so that none covers another."""
    for i, run in enumerate(runs):
        own = [r for r in dev if r["run"] == run and key in r["dev"]]
        beside = (i - (len(runs) - 1) / 2) * 0.025 * length
        ax.plot(
            [r["step"] + beside for r in own],
            [r["dev"][key] for r in own],
            "os^Dv"[i % 5],
            color=ORANGE,
            mec=BLACK,
            mew=0.6,
            ms=6,
            label="dev, a mark a seed" if i == 0 else None,
        )


def _uniform(c: Collection) -> dict[str, float]:
    """Losses of a full batch where nothing is known; those that sum over a sense's pictures only
    where it does not matter how many these are."""
    from polclip.losses import uniform

    config = c.measured["polclip_runs"].meta["config"] if "polclip_runs" in c.measured else None
    if config is None or config["senses"] * config["per_sense"] != config["pictures"]:
        return {}
    levels = {}
    for name, value in uniform(config["senses"], config["per_sense"]).items():
        if config["normalise_targets"] or name in ("w2s", "isg"):
            levels[name] = value / (config["per_sense"] if name in ("sig", "w2i") else 1)
    return levels


# ---------------------------------------------------------------- cells over seeds


def over_seeds(rows: Sequence[dict], tests: Sequence[dict]) -> dict:
    """Cells of one system under several seeds: the mean, the lowest to the highest, the interval of
    the middle seed (the lower of two).

    rows: of rows.jsonl, one a seed; tests: {difference, ci_low, ci_high, p} a seed, none where it
    is compared with nothing. Keys that are no column are for the figures. Raises VwsdError where
    the seeds were tested on different numbers of items.
    """
    if not rows:
        return {}
    if len({row["n"] for row in rows}) > 1:
        raise VwsdError(
            "seeds were tested on different numbers of items",
            where=rows[0]["id"],
            remedy="Run 06_polclip again with --force.",
        )
    values, middle = [row["value"] for row in rows], _middle(rows, "value")
    cells = {
        "runs": len(rows),
        "n": middle["n"],
        "value": fmean(values),
        "ci": interval(middle["ci_low"], middle["ci_high"]),
        "seeds": values,
        "middle": middle,
    }
    if len(rows) > 1:
        cells["spread"] = interval(min(values), max(values))
    if tests:
        central = _middle(tests, "difference")
        cells |= {
            "difference": fmean(test["difference"] for test in tests),
            "difference_ci": interval(central["ci_low"], central["ci_high"]),
            "p": " / ".join(f"{test['p']:.2g}" for test in tests),
            "each": " / ".join(f"{test['difference']:+.1f}" for test in tests),
            "tests": list(tests),
            "central": central,
        }
    return cells


def _middle(rows: Sequence[dict], key: str) -> dict:
    return sorted(rows, key=lambda row: row[key])[(len(rows) - 1) // 2]


def shown_groups(c: Collection) -> list[str]:
    """Groups of the textual items, the main one first (ALL of the five sets, else all items); one
    that is the whole of another is left out."""
    items = groups(next(iter(c.answered.values()))[0])
    shown = {}
    for name in ("ALL" if "ALL" in items else "items", *items):
        shown.setdefault(frozenset(item.id for item in items[name]), name)
    return list(shown.values())


def textual_cells(
    c: Collection, mine: Sequence[System], others: Sequence[System], group: str
) -> dict:
    """Cells of textual WSD: F1 of `mine`, one a seed, each tested against its one of `others`;
    empty where one did not run."""
    split = c.measured["wsd_answers"].meta["split"] if mine and "wsd_answers" in c.measured else ""
    rows = [c.rows.get(wsd_id(*system, group, split)) for system in mine]
    tests = [_textual_test(c, a, b, group) for a, b in zip(others, mine)]
    return over_seeds(rows, tests if all(tests) else []) if all(rows) else {}


def _textual_test(c: Collection, a: System, b: System, group: str) -> dict | None:
    if a not in c.answered or b not in c.answered:
        return None
    (items, of_a), (_, of_b) = c.answered[a], c.answered[b]
    gold = {item.id: item.golds for item in groups(items).get(group, ())}
    return compare_answers(gold, of_a, of_b) if of_a.keys() == of_b.keys() and gold else None


def visual_cells(
    c: Collection, mine: Sequence[Predictions | None], others: Sequence[Predictions | None]
) -> dict:
    """Cells of visual WSD: hit@1 and MRR of `mine`, one a seed, each tested against its one of
    `others`; empty where one did not run."""
    if not mine or not all(mine):
        return {}
    tests = [_visual_test(a, b) for a, b in zip(others, mine)]
    reciprocal = over_seeds([c.rows[f"{p.run}/mrr"] for p in mine], [])
    cells = over_seeds([c.rows[f"{p.run}/hit@1"] for p in mine], tests if all(tests) else [])
    return {**cells, "mrr": reciprocal["value"], "mrr_ci": reciprocal["ci"]}


def _visual_test(a: Predictions | None, b: Predictions) -> dict | None:
    if a is None or a.meta["data_sha256"] != b.meta["data_sha256"]:
        return None
    lost, won, p = mcnemar(a.ranks == 1, b.ranks == 1)
    low, high = paired_interval(lost, won, len(a.ranks))
    return {"difference": percent(won - lost, len(a.ranks)), "ci_low": low, "ci_high": high, "p": p}


def visual_runs(
    c: Collection, runs: Sequence[str], variant: str, language: str = "en"
) -> list[Predictions | None]:
    """Test predictions of trained models, one a seed."""
    return [c.predictions.get(f"polclip-{run}.{variant}.{language}.test") for run in runs]


# ---------------------------------------------------------------- words


@table
def textual_table(c: Collection) -> Rows:
    """F1 of baselines and of PolCLIP's three scores, by set and part of speech."""
    rows, main = [], [run["run"] for run in trained_runs(c)]
    others = [(ZERO_SHOT, "")] * len(main)
    for group in shown_groups(c) if c.answered else ():
        lines = {name: textual_cells(c, [(key, "")], [], group) for key, name in SYSTEMS.items()}
        for score, name in SCORES.items():
            lines[name + trained_as(c)] = textual_cells(
                c, [(run, score) for run in main], others, group
            )
        title = "all items" if group == "items" else group
        for name, cells in lines.items():
            if cells:
                rows.append({"group": title, "system": name, **cells})
        rows += _published(c, group, rows[-1]["n"])
    return rows


def _published(c: Collection, group: str, n: int) -> list[dict]:
    """Lines of published systems, beside the paper's data alone; intervals of printed shares."""
    if c.profile != "paper" or c.measured["wsd_answers"].meta["limit"]:
        return []
    rows = []
    for entry, f1 in published(group, n):
        system = f"{entry['about']}, reported ({entry['source']})"
        ci = share_cells(f1 * n / 100, n)["ci"]
        rows.append({"group": group, "system": system, "n": n, "value": f1, "ci": ci})
    return rows


# ---------------------------------------------------------------- pictures


def zero_shot(c: Collection, language: str) -> dict[str, Predictions]:
    """Variant -> run of the encoder that was given PolCLIP's text untrained (else the baseline's);
    the bare phrase first."""
    encoder = min((p.encoder for p in c.select(variant="photo")), default=c.baseline)
    runs = c.select(encoder, language=language, split="test") if encoder else []
    runs.sort(key=lambda p: (p.variant != "phrase", p.variant))
    return {p.variant: p for p in runs if p.variant.split("+")[0] in ("phrase", "photo")}


def _text(variant: str) -> str:
    kind, _, definer = variant.partition("+")
    name = {"phrase": "phrase", "photo": "“A photo of …”", **SCORES}[kind]
    return name + (f", definition by {definer.replace('-', ' ')}" if definer else "")


def _defined(c: Collection, main: Sequence[str]) -> list[str]:
    """Variants with a definition in the text: sum+<definer>."""
    encoders = {f"polclip-{run}" for run in main}
    runs = [p for p in c.predictions.values() if p.encoder in encoders]
    return sorted({p.variant for p in runs if p.variant.startswith("sum+")})


@table
def visual_polclip_table(c: Collection) -> Rows:
    """PolCLIP's three scores by language, against the encoder untrained on the same text."""
    rows, main = [], [run["run"] for run in trained_runs(c)]
    for language, name in LANGUAGE_NAMES.items():
        plain = zero_shot(c, language)
        trained = {v: visual_runs(c, main, v, language) for v in (*SCORES, *_defined(c, main))}
        trained = {variant: runs for variant, runs in trained.items() if runs and all(runs)}
        asked = any(variant.startswith("photo") for variant in plain)  # by notebook 06
        for variant, p in plain.items() if trained or (asked and not main) else ():
            system = f"{p.encoder}, zero-shot: {_text(variant)}"
            rows.append({"language": name, "system": system, **visual_cells(c, [p], [])})
        for variant, mine in trained.items():
            same = (p for p in plain.values() if p.texts == mine[0].texts)
            other = next(same, plain.get("phrase"))
            cells = visual_cells(c, mine, [other] * len(mine))
            against = other and _text(other.variant)
            named = {"language": name, "system": _text(variant) + trained_as(c)}
            rows.append({**named, **cells, "against": against})
    return rows


@figure
def polclip_scores_figure(c: Collection) -> Drawing:
    """Textual F1 and visual hit@1: what was not trained in grey, PolCLIP's three scores in blue; a
    circle a seed, the interval of the middle one."""
    words, pictures, parts = textual_table(c), visual_polclip_table(c), {}
    for row in words.rows if words else ():
        if row["group"] == words.rows[0]["group"] and "seeds" in row:
            parts.setdefault((f"Textual, {row['group']}", "F1"), []).append(row)
    for row in pictures.rows if pictures else ():
        parts.setdefault((f"Visual, {row['language']}", "hit@1"), []).append(row)
    if not parts:
        return None
    deep, high = -(-len(parts) // 2), max(map(len, parts.values()))
    fig, axes = panels(deep, min(2, len(parts)), 11, deep * (1.3 + 0.36 * high))
    for ax, ((title, metric), rows) in zip(axes.flat, parts.items()):
        for y, row in enumerate(rows):
            _draw_seeds(ax, row, y)
        systems = [
            row["system"].replace("A photo of …", "A\u00a0photo\u00a0of\u00a0…") for row in rows
        ]
        names = [textwrap.fill(system, 32) for system in systems]
        name_rows(ax, names, 0.6, 0.6, title=f"{title} (n = {rows[0]['n']})")
        ax.set_xlabel(f"{metric}, percent (95 % interval)")
        ax.tick_params(axis="y", labelsize=8.5)
        ax.grid(axis="y", visible=False)
    for ax in axes.flat[len(parts) :]:
        ax.set_axis_off()
    return fig, [{"panel": title, "rows": rows} for (title, _), rows in parts.items()]


def _draw_seeds(ax: plt.Axes, row: dict, y: int) -> None:
    """A bar of the mean, the middle seed's interval and, of what was trained, a circle a seed."""
    trained, middle = "spread" in row or row["system"].startswith("PolCLIP"), row["middle"]
    ax.barh(y, row["value"], height=0.66, color=SKY if trained else "#C8C8C8")
    ax.errorbar(middle["value"], y, xerr=spans(middle), color=BLACK, lw=1)
    seeds = row["seeds"] if trained else []
    places = y + np.linspace(-0.2, 0.2, len(seeds))
    ax.plot(seeds, places, "o", ms=5, mfc="white", mec=BLUE, mew=1.3, zorder=3)
    right = max(middle["ci_high"], *row["seeds"]) + 1.5
    ax.text(right, y, f"{row['value']:.1f}", va="center", fontsize=8)


# ---------------------------------------------------------------- what each part is worth


@table
def polclip_ablations_table(c: Collection) -> Rows:
    """What each part is worth: models trained without it, and other scores of the models as they
    are, against the same seed's full model."""
    main = {run["seed"]: run["run"] for run in trained_runs(c)}
    whole = [(run, run) for run in main.values()]
    changed = {FULL: whole}  # what was trained: (run, full model of its seed) a seed
    for run in trained_runs(c, "ablation"):
        if run["seed"] in main:
            changed.setdefault(run["changed"], []).append((run["run"], main[run["seed"]]))
    lines = [(name, "yes", pairs, "sum") for name, pairs in changed.items()]
    lines += [(f"{score} alone", "no", whole, score) for score in ("plain", "fused")]
    for variant in _defined(c, list(main.values())):
        definer = variant.removeprefix("sum+").replace("-", " ")
        lines.append((f"with definitions by {definer}", "no", whole, variant))
    rows = []
    for name, trained, pairs, score in lines:
        cells = _against_full(c, pairs, score, tested=name != FULL)
        if cells:
            rows.append({"change": name, "trained": trained, **cells})
    return rows if len(rows) > 1 else None


def _against_full(c: Collection, pairs: list[tuple[str, str]], score: str, tested: bool) -> dict:
    """Cells, textual (t_...) and visual (v_...), of runs under a score, each against the full model
    of its seed."""
    mine = [run for run, _ in pairs]
    others = [full for _, full in pairs] if tested else []
    words = {}
    if c.answered:
        systems, rivals = [(run, score) for run in mine], [(run, "sum") for run in others]
        words = textual_cells(c, systems, rivals, shown_groups(c)[0])
    pictures = visual_cells(c, visual_runs(c, mine, score), visual_runs(c, others, "sum"))
    cells = {f"t_{name}": value for name, value in words.items()}
    return cells | {f"v_{name}": value for name, value in pictures.items()}


@figure
def polclip_ablations_figure(c: Collection) -> Drawing:
    """Each change against the full model of the same seed: difference in points with its 95 %
    interval, textual and visual."""
    made = polclip_ablations_table(c)
    rows = [row for row in made.rows if "t_tests" in row or "v_tests" in row] if made else []
    if not rows:
        return None
    fig, axes = panels(1, 2, 11, 1.5 + 0.34 * len(rows), sharey=True)
    for ax, (key, name) in zip(axes[0], MEASURES.items()):
        for y, row in enumerate(rows):
            if f"{key}_central" in row:
                look = (BLUE, "o") if row["trained"] == "yes" else (ORANGE, "s")
                central = row[f"{key}_central"]
                dot(ax, {**central, "value": central["difference"]}, y, *look, ms=6)
                seeds = [test["difference"] for test in row[f"{key}_tests"]]
                ax.plot(seeds, np.full(len(seeds), y - 0.26), "|", color=BLACK, ms=6, mew=1.2)
        ax.axvline(0, **DASHED)
        n = next((row[f"{key}_n"] for row in rows if f"{key}_n" in row), 0)
        name_rows(ax, [row["change"] for row in rows], 0.7, 0.6, title=f"{name} (n = {n})")
        ax.xaxis.set_major_locator(plt.MaxNLocator(6, steps=[1, 2, 5, 10]))
    for marker, colour, name in (
        ("o", BLUE, "trained anew"),
        ("s", ORANGE, "the same models, scored otherwise"),
        ("|", BLACK, "a seed"),
    ):
        axes[0][0].plot([], [], marker, color=colour, label=name)
    fig.legend(loc="outside upper right", ncol=3)
    return fig, rows


# ---------------------------------------------------------------- senses and pictures together


RIGHT = {
    "sense_right": ("best of the senses", "sense"),
    "picture_right": ("best of the pictures", "picture"),
    "first_right": ("first of all, sense or picture", ""),
}


@table
def multimodal_table(c: Collection) -> Rows:
    """One context, its senses and their pictures ranked together: how often the best is right."""
    rows = []
    for key, (name, kind) in RIGHT.items():
        right, chances = [], []
        for record in records_of(c, "multimodal"):
            ranked = [one for one in record["ranking"] if kind in ("", one["kind"])]
            if ranked:
                right.append(record[key])
                chances.append(fmean(one["sense"] == record["gold"] for one in ranked))
        if right:
            k, n = sum(right), len(right)
            cells = {"what": name, "n": n, "k": k, **share_cells(k, n)}
            rows.append({**cells, "chance": 100 * fmean(chances)})
    return rows


@table
def multimodal_examples_table(c: Collection) -> Rows:
    """A few contexts at even steps, with the first three of their rankings."""
    records, rows = records_of(c, "multimodal"), []
    for record in records[:: max(1, len(records) // EXAMPLES)][:EXAMPLES]:
        first = []
        for one in record["ranking"][:3]:
            name = "picture of " * (one["kind"] == "picture") + one["sense"]
            first.append(f"{name} ({one['score']:.2f})")
        right = "yes" if record["first_right"] else "no"
        rows.append({**record, "right": right, "first": "; ".join(first)})
    return rows
