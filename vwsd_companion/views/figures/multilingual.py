"""Figures of notebook 04: languages, raw and translated."""

from __future__ import annotations

from matplotlib import pyplot as plt
from matplotlib.transforms import ScaledTranslation

from ...facts.collect import LANGUAGE_NAMES, Collection
from ..tables.multilingual import foreign_runs, marked_runs, text_name, translators
from . import BLUE, GREEN, GREY, ORANGE, RED, SKY, Drawn, figure, finish, spans

COLOURS = (BLUE, GREEN, SKY, RED)
SHOWN = 8  # translations in the figure of a language


@figure
def multilingual(c: Collection) -> Drawn | None:
    """Hit@1 by encoder for each language: the raw phrase and each translation, with 95 %
    intervals."""
    runs = foreign_runs(c) if translators(c) else []
    languages = list(dict.fromkeys(p.meta["language"] for p in runs))
    if not languages:
        return None
    encoders = list(dict.fromkeys(p.encoder for p in runs))
    fig, axes = plt.subplots(
        1,
        len(languages),
        figsize=(5.4 * len(languages), 1.7 + 0.5 * len(encoders)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, language in zip(axes[0], languages):
        texts = list(dict.fromkeys(p.variant for p in runs if p.meta["language"] == language))
        colours = dict(zip(texts, (ORANGE, *COLOURS)))
        for p in (p for p in runs if p.meta["language"] == language):
            row = c.rows[f"{p.run}/hit@1"]
            y = encoders.index(p.encoder) + (texts.index(p.variant) - (len(texts) - 1) / 2) * 0.2
            ax.errorbar(
                row["value"],
                y,
                xerr=spans(row),
                fmt="s" if p.variant == "phrase" else "o",
                color=colours[p.variant],
                capsize=3,
            )
        for variant in texts:
            ax.errorbar(
                [],
                [],
                fmt="s" if variant == "phrase" else "o",
                color=colours[variant],
                label=text_name(variant, language, c),
            )
        ax.axvline(10, color=GREY, ls="--", lw=1)
        n = next(p.meta["n"] for p in runs if p.meta["language"] == language)
        ax.set(
            title=f"{LANGUAGE_NAMES[language]} (n = {n})",
            xlabel="hit@1, percent (95 % interval; dashed: chance)",
            yticks=range(len(encoders)),
            yticklabels=encoders,
            ylim=(len(encoders) - 0.5, -0.5),
        )
        ax.set_xlim(left=0)
        ax.legend(
            fontsize=8,
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            bbox_transform=ax.transAxes + ScaledTranslation(0, -0.55, fig.dpi_scale_trans),
            frameon=False,
        )  # inches: below the axis label
    finish(fig, "A language the encoder knows, and one it does not", c)
    return fig, [c.rows[f"{p.run}/hit@1"] for p in runs]


@figure
def translation_quality(c: Collection) -> Drawn | None:
    """Items with a marked translation against the others: hit@1 with 95 % intervals, the first
    encoder of each translator.
    """
    from ..tables.multilingual import translation_marks

    made = translation_marks(c)
    first = {(name, language): p.encoder for name, language, _, p in reversed(list(marked_runs(c)))}
    rows = (
        [
            r
            for r in made.rows
            if r["mark"] == "any mark"
            and r["n"]
            and r["rest_n"]
            and r["encoder"]
            in {
                e
                for (name, language), e in first.items()
                if name == r["translator"] and LANGUAGE_NAMES[language] == r["language"]
            }
        ]
        if made
        else []
    )
    if not rows:
        return None
    fig, ax = plt.subplots(figsize=(8, 1.5 + 0.6 * len(rows)), layout="constrained")
    for y, r in enumerate(rows):
        for key, n, colour, dy, label in (
            ("value", "n", ORANGE, -0.14, "marked by a rule"),
            ("rest", "rest_n", BLUE, 0.14, "not marked"),
        ):
            ends = r["ci" if key == "value" else "rest_ci"]
            low, high = round(ends.low, 1), round(ends.high, 1)
            ax.errorbar(
                r[key],
                y + dy,
                xerr=[[max(0, r[key] - low)], [max(0, high - r[key])]],
                fmt="o",
                color=colour,
                capsize=3,
                label=label if y == 0 else None,
            )
            ax.text(high + 0.8, y + dy, f"n = {r[n]}", fontsize=8, va="center")
    ax.axvline(10, color=GREY, ls="--", lw=1)
    ax.set(
        yticks=range(len(rows)),
        yticklabels=[f"{r['language']}, {r['translator']}\n{r['encoder']}" for r in rows],
        ylim=(len(rows) - 0.5, -0.5),
        xlabel="hit@1, percent (95 % interval; dashed: chance)",
        xlim=(0, 105),
    )
    ax.legend(fontsize=8, frameon=False, loc="center right")
    finish(fig, "Does a doubtful translation cost the item?", c)
    return fig, rows


@figure
def translations_shown(c: Collection) -> Drawn | None:
    """Phrases as they stand and in English; Farsi shaped and from right to left."""
    stored = {key: records for key, (records, _) in c.translations.items()}
    if not stored:
        return None
    keys = sorted(stored, key=lambda k: (k.rsplit(".", 2)[1] != "it", k))[:4]
    fig, axes = plt.subplots(
        1,
        len(keys),
        figsize=(4.8 * len(keys), 0.9 + 0.32 * SHOWN),
        squeeze=False,
        layout="constrained",
    )
    for ax, key in zip(axes[0], keys):
        name, language, _ = key.rsplit(".", 2)  # nllb-1.3b.it.test
        ax.set_axis_off()
        ax.set(title=f"{LANGUAGE_NAMES[language]}, {name}", xlim=(0, 1), ylim=(SHOWN, 0))
        for y, r in enumerate(stored[key][:SHOWN]):
            ax.text(0.46, y + 0.5, r["phrase"], ha="right", va="center", fontsize=9)
            ax.text(0.5, y + 0.5, "→", ha="center", va="center", fontsize=9, color=GREY)
            ax.text(
                0.54,
                y + 0.5,
                r["phrase_en"][:34] + (" …" if len(r["phrase_en"]) > 34 else ""),
                ha="left",
                va="center",
                fontsize=9,
                color=RED if r["flags"] else "#222222",
            )
    finish(fig, "First translations of each kind; red: marked by a rule", c)
    return fig, {key: stored[key][:SHOWN] for key in keys}
