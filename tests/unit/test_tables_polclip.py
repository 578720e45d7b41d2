"""Tables and figures of notebook 06 on facts made by hand, against counts made by hand."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest
from test_tables import N, answers, draw_right, made, measure, some

from polclip.batches import photo_text
from polclip.config import make_config
from polclip.losses import uniform
from vwsd_companion.facts.collect import Collection
from vwsd_companion.facts.measurements import write_measurement
from vwsd_companion.facts.numbers import KEYS, wsd_rows
from vwsd_companion.facts.predictions import write_predictions
from vwsd_companion.facts.reported import attainable, entries, published, reported
from vwsd_companion.report import write_report
from vwsd_companion.views.catalogue import FIGURES, TABLES, VIEWS
from vwsd_companion.views.figures import png
from vwsd_companion.views.polclip import SCORES, over_seeds
from vwsd_companion.views.polclip_maps import apart
from vwsd_standins.emojiwsd.senses import senses
from vwsdlib.analysis.metrics import mcnemar, paired_interval, wilson
from vwsdlib.analysis.wsd_scoring import f1_interval
from vwsdlib.encoders.control import RandomEncoder
from vwsdlib.errors import VwsdError

SEEDS = (0, 1, 2)
CHANGES = {
    "no-sig": "without SIG",
    "no-fusion": "without fusion",
    "k2": "2 borrowed blocks",
    "readout-eot": "read-out at the end token",
    "no-ema": "targets do not follow",
}
PARTS = {
    "text tower": [1000, 400],
    "vision tower": [2000, 4],
    "former": [300, 300],
    "to vision": [40, 40],
    "to text": [50, 50],
    "transfer": [6, 6],
    "fusion": [700, 700],
}
TABLES_HERE = [
    "polclip_model",
    "textual",
    "visual_polclip",
    "polclip_ablations",
    "multimodal",
    "multimodal_examples",
]
FIGURES_HERE = [
    "architecture",
    "polclip_training",
    "polclip_scores",
    "polclip_ablations",
    "polclip_attention",
    "sense_map",
]


def write_runs(folder, config=None, changes=CHANGES):
    """Records of three seeds and of one ablation a change, under the demo's configuration."""
    fact = {
        "parameters": sum(n for n, _ in PARTS.values()) + 404,
        "tensors": 99,
        "trained": 1500,
        "trained_tensors": 60,
        "steps": 60,
        "epochs": 3,
        "best_epoch": 2,
        "parts": PARTS,
    }
    records = [
        {"run": f"seed{s}", "label": "PolCLIP", "group": "main", "seed": s, "changed": "", **fact}
        for s in SEEDS
    ]
    records += [
        {
            "run": run,
            "label": f"PolCLIP {about}",
            "group": "ablation",
            "seed": 0,
            "changed": about,
            **fact,
        }
        for run, about in changes.items()
    ]
    measure(
        folder,
        "polclip_runs",
        records,
        config=dataclasses.asdict(config or make_config("demo")),
        backbone=RandomEncoder().identity(),
    )
    return records


def write_training(folder):
    rng, lines = np.random.default_rng(0), []
    start = {"sig": 3.7, "w2s": 3.0, "isg": 3.0, "w2i": 3.7}
    for s in SEEDS:
        for step in range(1, 61):
            down = {
                k: float(v * (0.4 + 0.6 * np.exp(-step / 25)) + rng.normal(0, 0.1))
                for k, v in start.items()
            }
            lines.append(
                {
                    "run": f"seed{s}",
                    "step": step,
                    "epoch": (step - 1) // 20,
                    "rate": 3e-4,
                    "norm": 1.0,
                    "loss": sum(down.values()),
                    **down,
                    "textual": float(min(1, 0.5 + step / 120 + rng.normal(0, 0.08))),
                    "visual": float(min(1, 0.1 + step / 100 + rng.normal(0, 0.06))),
                }
            )
            if step % 20 == 0:
                lines.append(
                    {
                        "run": f"seed{s}",
                        "step": step,
                        "epoch": (step - 1) // 20,
                        "dev": {"textual": 60 + step / 4 + s, "visual": 20 + step / 2 - s},
                    }
                )
    measure(folder, "polclip_training", lines)


def write_answers(
    folder, systems, sets=("emojiwsd",), poses=("NOUN",), n=N, profile="demo", **meta
):
    """systems: (system, score) -> right or wrong [n]; two candidates an item, the gold the second
    one, so that first-sense is always wrong.
    """
    lines = []
    for system in dict.fromkeys(name for name, _ in systems):
        scores = {score: right for (name, score), right in systems.items() if name == system}
        for i in range(n):
            lines.append(
                {
                    "system": system,
                    "id": f"item{i}",
                    "lemma": "bat",
                    "pos": poses[i % len(poses)],
                    "set": sets[i % len(sets)],
                    "golds": ["bat.animal"],
                    "candidates": ["bat.club", "bat.animal"],
                    "scores": {
                        score: [0.0, 0.25 if right[i] else -0.25] for score, right in scores.items()
                    },
                }
            )
    data = some()
    facts = {
        "dataset": "emojiwsd",
        "language": "en",
        "split": "test",
        "limit": 0,
        "seed": 0,
        "data_sha256": data.sha256,
        "profile": profile,
    }
    return write_measurement(folder, "wsd_answers", lines, **{**facts, **meta})


def systems(n=N):
    shares = {"first-sense": 0.5, "lesk": 0.55, "sentence encoder": 0.6}
    right = {(name, ""): draw_right(i, n, share) for i, (name, share) in enumerate(shares.items())}
    for s in SEEDS:
        right |= {
            (f"seed{s}", score): draw_right(10 + 3 * s + i, n, share)
            for i, (score, share) in enumerate((("plain", 0.65), ("fused", 0.6), ("sum", 0.75)))
        }
    return right | {(run, "sum"): draw_right(40 + i, n, 0.7) for i, run in enumerate(CHANGES)}


def predict_text(folder, encoder, variant, right, data, texts, seed=0):
    return write_predictions(
        folder,
        f"{encoder}.{variant}.{data.language}.{data.split}",
        data,
        texts,
        answers(data, right, seed),
        profile="demo",
        variant=variant,
        identity=RandomEncoder().identity(),
        limit=len(data.items),
    )


def write_visual(folder, languages=("en", "it")):
    """Right or wrong of every run: zero-shot phrase and photo template (English alone), three
    scores and definitions of three seeds, ablations.
    """
    right = {}

    def one(encoder, variant, language, share, texts):
        right[encoder, variant, language] = draw_right(len(right) + 100, share=share)
        predict_text(
            folder,
            encoder,
            variant,
            right[encoder, variant, language],
            some(language),
            texts,
            len(right),
        )

    for language in languages:
        data = some(language)
        phrases, photos = [i.phrase for i in data.items], [photo_text(i.phrase) for i in data.items]
        told = [photo_text(i.phrase, f"meaning {i.id}") for i in data.items]
        for variant in ("word", "phrase"):
            one("lite", variant, language, 0.3, phrases)
        english = language == "en"
        if english:
            one("lite", "photo", language, 0.3, photos)
            one("lite", "photo+sentence-encoder", language, 0.3, told)
        for s in SEEDS:
            for score, share in (("plain", 0.35), ("fused", 0.4), ("sum", 0.5)):
                one(f"polclip-seed{s}", score, language, share, photos)
            if english:
                one(f"polclip-seed{s}", "sum+sentence-encoder", language, 0.5, told)
        for run in CHANGES if english else ():
            one(f"polclip-{run}", "sum", language, 0.4, photos)
    return right


def write_shown(folder):
    """Attention, map and multimodal rankings."""
    rng, shown = (
        np.random.default_rng(0),
        [s for s in senses() if s.lemma in ("bat", "crane", "seal", "mouse")],
    )
    tokens = [[f"token{j}" for j in range(5 + i)] for i in range(3)]
    maps = {str(i): rng.dirichlet(np.ones(12), len(some)) for i, some in enumerate(tokens)}
    measure(
        folder,
        "polclip_attention",
        [
            {"map": str(i), "sense": s.id, "gloss": s.gloss, "tokens": some}
            for i, (some, s) in enumerate(zip(tokens, shown))
        ],
        maps,
    )
    files, records = [i.gold for i in some().items], []
    for i, s in enumerate(shown):
        place = rng.normal(size=2)
        for kind in (
            "gloss",
            "picture",
            "picture",
            "fused gloss",
            "fused picture",
            "fused picture",
        ):
            x, y = place + rng.normal(scale=0.15, size=2)
            records.append(
                {
                    "lemma": s.lemma,
                    "sense": s.id,
                    "kind": kind,
                    "x": float(x),
                    "y": float(y),
                    "picture": files[i] if "picture" in kind else "",
                }
            )
    measure(folder, "polclip_map", records)
    lines = []
    for i in range(20):
        first, second = ("bat.animal", "bat.club") if i % 2 else ("bat.club", "bat.animal")
        ranking = [
            {"kind": "picture", "sense": second, "score": 1.5},
            {"kind": "sense", "sense": first, "score": 1.0},
            {"kind": "sense", "sense": second, "score": -1.0},
            {"kind": "picture", "sense": first, "score": -0.5},
            {"kind": "picture", "sense": first, "score": -1.0},
        ]
        lines.append(
            {
                "id": f"item{i}",
                "lemma": "bat",
                "sentence": "A bat flew out of the cave .",
                "gold": "bat.animal",
                "ranking": ranking,
                "sense_right": first == "bat.animal",
                "picture_right": second == "bat.animal",
                "first_right": second == "bat.animal",
            }
        )
    measure(folder, "multimodal", lines)


def write_all(folder):
    write_runs(folder), write_training(folder), write_shown(folder)
    write_answers(folder, systems())
    return write_visual(folder)


def shown(values, form):
    return " / ".join(form.format(v) for v in values)


def expected(mine, others):
    """Cells of seeds against others, both lists of right or wrong [n]: counted here, tested by
    SciPy.
    """
    lost, won = (
        [sum(x > y for x, y in zip(a, b)) for a, b in pairs]
        for pairs in (list(zip(others, mine)), list(zip(mine, others)))
    )
    points = [100 * (gained - gone) / len(mine[0]) for gained, gone in zip(won, lost)]
    p = [binomtest(b, b + c).pvalue if b + c else 1 for b, c in zip(lost, won)]
    return {
        "n": len(mine[0]),
        "value": pytest.approx(100 * np.mean(mine)),
        "difference": pytest.approx(np.mean(points)),
        "each": shown(points, "{:+.1f}"),
        "p": shown(p, "{:.2g}"),
    }


def part(row, wanted, key=""):
    return {name: row.get(f"{key}{name}") for name in wanted}


# ---------------------------------------------------------------- textual


def test_textual_rows_by_hand(emojiwsd, tmp_path):
    right = systems()
    write_answers(tmp_path, right), write_runs(tmp_path)
    rows = {r["system"]: r for r in made(tmp_path, "textual").rows}
    assert list(rows) == [
        "first sense",
        "Lesk",
        "sentence encoder, zero-shot",
        *SCORES.values(),
    ] and {r["group"] for r in rows.values()} == {"all items"}
    for score, name in SCORES.items():
        mine, zero = [right[f"seed{s}", score] for s in SEEDS], right["sentence encoder", ""]
        wanted = expected(mine, [zero] * 3)
        assert part(rows[name], wanted) == wanted
        assert [t["p"] for t in rows[name]["tests"]] == [mcnemar(zero, m)[2] for m in mine]
        for wrong in (
            expected(mine, [right["lesk", ""]] * 3),
            expected([zero] * 3, mine),
            expected(mine[::-1], [zero] * 3),
        ):
            assert (
                part(rows[name], wrong) != wrong
            )  # another reference, the other way round, seeds in another order
        low, middle, high = sorted(mine, key=np.mean)
        ends = f1_interval(
            {str(i): ("x",) for i in range(N)},
            {str(i): ("x" if r else "y",) for i, r in enumerate(middle)},
        )
        assert rows[name]["spread"] == f"{100 * low.mean():.1f}–{100 * high.mean():.1f}" and rows[
            name
        ]["ci"] == "{:.1f}–{:.1f}".format(*ends)
    assert (
        rows["Lesk"]["value"] == pytest.approx(100 * right["lesk", ""].mean())
        and "p" not in rows["Lesk"]
        and "spread" not in rows["Lesk"]
    )


def test_textual_baselines_stand_alone_before_anything_was_trained(emojiwsd, tmp_path):
    write_answers(tmp_path, {k: v for k, v in systems().items() if k[1] == ""})
    assert [r["system"] for r in made(tmp_path, "textual").rows] == [
        "first sense",
        "Lesk",
        "sentence encoder, zero-shot",
    ]
    assert made(tmp_path, "polclip_ablations") is None and made(tmp_path, "visual_polclip") is None


def test_rows_of_textual_wsd(emojiwsd, tmp_path):
    right = systems()
    m = write_answers(tmp_path, right, identities={"seed1": {"model": "polclip", "seed": 1}})
    rows = {r["id"]: r for r in wsd_rows(m)}
    assert len(rows) == 2 * len(right) and all(set(r) == set(KEYS) for r in rows.values())
    row = rows["wsd.seed1.sum.items.test/f1"]
    gold = {str(i): ("x",) for i in range(N)}
    low, high = f1_interval(
        gold, {str(i): ("x" if r else "y",) for i, r in enumerate(right["seed1", "sum"])}
    )
    assert (row["k"], row["n"], row["ci_low"], row["ci_high"]) == (
        right["seed1", "sum"].sum(),
        N,
        low,
        high,
    ) and row["value"] == pytest.approx(100 * row["k"] / N)
    assert (row["model"], row["seed"], row["variant"], row["metric"]) == ("polclip", 1, "sum", "f1")
    assert (rows["wsd.lesk.items.test/f1"]["model"], rows["wsd.lesk.items.test/f1"]["variant"]) == (
        "none",
        "lesk",
    )
    assert (
        Collection("demo", tmp_path).rows["wsd.lesk.NOUN.test/f1"]["k"] == right["lesk", ""].sum()
    )


def test_ties_go_to_the_earlier_candidate_and_an_item_without_any_is_unanswered(tmp_path):
    base = {
        "system": "lesk",
        "lemma": "bat",
        "pos": "NOUN",
        "set": "SE2",
        "candidates": ["x", "y"],
        "scores": {"": [1.0, 1.0]},
    }
    lines = [
        {**base, "id": "a", "golds": ["x"]},
        {**base, "id": "b", "golds": ["y"]},
        {**base, "id": "c", "golds": ["z"], "candidates": [], "scores": {"": []}},
    ]
    row = {
        r["id"]: r
        for r in wsd_rows(
            write_measurement(tmp_path, "wsd_answers", lines, language="en", split="test", seed=0)
        )
    }["wsd.lesk.SE2.test/f1"]
    assert (row["k"], row["n"], row["value"]) == (1, 3, pytest.approx(100 * 2 * 1 / (2 + 3)))


def test_sets_and_parts_of_speech_are_shown_where_they_tell_something(emojiwsd, tmp_path):
    five = ("SE2", "SE3", "SE07", "SE13", "SE15")
    right = systems()
    write_runs(tmp_path)
    write_answers(tmp_path, right, sets=five, poses=("NOUN", "VERB", "ADJ"))
    rows = made(tmp_path, "textual").rows
    assert list(dict.fromkeys(r["group"] for r in rows)) == ["ALL", *five, "NOUN", "VERB", "ADJ"]
    verbs = next(r for r in rows if (r["group"], r["system"]) == ("VERB", SCORES["sum"]))
    its = np.arange(N) % 3 == 1
    wanted = expected(
        [right[f"seed{s}", "sum"][its] for s in SEEDS], [right["sentence encoder", ""][its]] * 3
    )
    assert part(verbs, wanted) == wanted
    write_answers(tmp_path, right, sets=(*five, "SE10"))
    assert [*dict.fromkeys(r["group"] for r in made(tmp_path, "textual").rows)] == [
        "ALL",
        "SE2",
        "SE3",
        "SE07",
        "SE10",
        "SE13",
        "SE15",
        "ALL6",
    ]


SIZES = {"SE2": 2282, "SE3": 1850, "SE07": 455, "SE13": 1644, "SE15": 1022}


def official(folder, profile="paper", **meta):
    sets = [name for name, n in SIZES.items() for _ in range(n)]
    write_answers(
        folder,
        {("first-sense", ""): draw_right(0, len(sets))},
        sets=sets,
        n=len(sets),
        profile=profile,
        **meta,
    )
    return [
        r for r in TABLES["textual"](Collection(profile, folder)).rows if "reported" in r["system"]
    ]


def test_published_systems_stand_beside_official_data_alone(tmp_path):
    rows = official(tmp_path)
    assert len(rows) == 31 and {r["group"]: r["n"] for r in rows} == SIZES | {"ALL": 7253}
    bem = next(r for r in rows if r["system"].startswith("BEM") and r["group"] == "SE07")
    low, high = wilson(0.745 * 455, 455)
    assert (
        bem["value"] == 74.5 and bem["ci"] == f"{low:.1f}–{high:.1f}" and "Blevins" in bem["system"]
    )
    assert (
        official(tmp_path / "a", "demo")
        == official(tmp_path / "b", "rehearsal")
        == official(tmp_path / "c", limit=7253)
        == []
    )
    assert published("SE2", 2281) == [] and len(published("SE2", 2282)) == 6


def test_context_is_no_claim_and_can_be_true():
    context = [e for e in entries() if e["paper"] == "context"]
    assert (
        len(context) == 6
        and not {e["id"] for e in context} & {e["id"] for e in reported()}
        and len(context) + len(reported()) == len(entries())
    )
    for e in context:
        values = e["value"].split()
        assert len(values) == len(e["sets"]) == len(e["n"]) and all(
            attainable(v, n, 1) for v, n in zip(values, e["n"])
        ), e["id"]
        assert dict(zip(e["sets"], e["n"])).items() <= (SIZES | {"ALL": 7253}).items()
    first = dict(zip(context[0]["sets"], map(float, context[0]["value"].split())))
    assert sum(first[name] * n for name, n in SIZES.items()) / 7253 == pytest.approx(
        first["ALL"], abs=0.05
    )  # the sets' mean is ALL


# ---------------------------------------------------------------- visual


def test_visual_runs_are_tested_against_the_same_text(emojiwsd, tmp_path):
    right = write_visual(tmp_path)
    write_runs(tmp_path)
    rows = made(tmp_path, "visual_polclip").rows
    assert [r["language"] for r in rows] == ["English"] * 7 + ["Italian"] * 4
    cases = [("English", "en", score, "photo") for score in SCORES] + [
        ("Italian", "it", score, "phrase") for score in SCORES
    ]
    for name, language, score, other in [
        *cases,
        ("English", "en", "sum+sentence-encoder", "photo+sentence-encoder"),
    ]:
        label = SCORES[score.split("+")[0]] + (
            ", definition by sentence encoder" if "+" in score else ""
        )
        row = next(r for r in rows if (r["language"], r["system"]) == (name, label))
        mine = [right[f"polclip-seed{s}", score, language] for s in SEEDS]
        wanted = expected(mine, [right["lite", other, language]] * 3)
        wrong = expected(
            mine, [right["lite", "phrase" if other != "phrase" else "word", language]] * 3
        )
        assert part(row, wanted) == wanted and part(row, wrong) != wrong
        central = sorted(row["tests"], key=lambda t: t["difference"])[1]
        lost, won, p = mcnemar(right["lite", other, language], mine[row["tests"].index(central)])
        low, high = paired_interval(lost, won, N)
        assert central["p"] == p and row["difference_ci"] == (
            f"{low:.1f} to {high:.1f}" if low < 0 else f"{low:.1f}–{high:.1f}"
        )
    assert rows[1]["system"] == "lite, zero-shot: “A photo of …”" and rows[1][
        "value"
    ] == pytest.approx(100 * right["lite", "photo", "en"].mean())
    assert rows[3]["mrr"] == pytest.approx(
        np.mean(
            [
                Collection("demo", tmp_path).rows[f"polclip-seed{s}.plain.en.test/mrr"]["value"]
                for s in SEEDS
            ]
        )
    )


def test_without_a_trained_model_the_zero_shot_rows_stand_alone(emojiwsd, tmp_path):
    write_visual(tmp_path)
    rows = made(tmp_path, "visual_polclip").rows
    texts = ("phrase", "“A photo of …”", "“A photo of …”, definition by sentence encoder")
    expected = [f"lite, zero-shot: {text}" for text in texts]
    assert [r["system"] for r in rows if r["language"] == "English"] == expected
    assert all("against" not in row for row in rows)


@pytest.mark.parametrize(
    ("study", "epochs", "said"),
    [
        ({"study": "published", "train": "ie_semcor"}, 1, "1 of 20 epochs, on ie_semcor"),
        ({"study": "published", "train": "ie_semcor"}, 20, "20 of 20 epochs, on ie_semcor"),
        ({"study": "published", "train": "all"}, 20, ""),
        ({"study": "emojiwsd"}, 1, ""),
    ],
)
def test_rows_say_what_is_not_the_paper_s_training(emojiwsd, tmp_path, study, epochs, said):
    write_visual(tmp_path)
    records = write_runs(tmp_path)
    config = dataclasses.asdict(make_config("paper", epochs=epochs))
    identity = RandomEncoder().identity()
    measure(tmp_path, "polclip_runs", records, config=config, backbone=identity, study=study)
    rows = made(tmp_path, "visual_polclip").rows
    trained = [row["system"] for row in rows if row["system"].startswith("PolCLIP")]
    told = f" (not the paper's training: {said})" if said else ""
    assert SCORES["sum"] + told in trained
    assert all(system.endswith(told) for system in trained)


def test_the_zero_shot_encoder_is_the_one_that_was_given_the_same_text(emojiwsd, tmp_path):
    write_visual(tmp_path), write_runs(tmp_path)
    data = some()
    for variant, text in (("phrase", "{}"), ("photo", 'A photo of "{}"')):
        predict_text(
            tmp_path,
            "a-larger-one",
            variant,
            np.ones(N, bool),
            data,
            [text.format(i.phrase) for i in data.items],
        )
    rows = made(tmp_path, "visual_polclip").rows
    assert [r["system"] for r in rows[:2]] == [
        "a-larger-one, zero-shot: phrase",
        "a-larger-one, zero-shot: “A photo of …”",
    ] and rows[2]["difference"] < 0
    predict_text(
        tmp_path, "a-larger-one", "photo", np.ones(N, bool), data, ["other" for _ in data.items]
    )
    assert [r["against"] for r in made(tmp_path, "visual_polclip").rows[2:5]] == [
        "phrase"
    ] * 3  # the text is not the same any more


def test_other_items_are_not_compared_and_seeds_not_mixed(emojiwsd, tmp_path):
    write_visual(tmp_path), write_runs(tmp_path)
    data = some(n=30)
    for variant, text in (("phrase", "{}"), ("photo", 'A photo of "{}"')):
        predict_text(
            tmp_path,
            "lite",
            variant,
            draw_right(1, 30),
            data,
            [text.format(i.phrase) for i in data.items],
        )
    assert all(
        "p" not in r
        for r in made(tmp_path, "visual_polclip").rows
        if r["language"] == "English" and r["system"] in SCORES.values()
    )
    predict_text(
        tmp_path, "polclip-seed1", "sum", draw_right(1, 30), data, [i.phrase for i in data.items]
    )
    with pytest.raises(VwsdError, match="different numbers of items"):
        made(tmp_path, "visual_polclip")


def test_over_seeds_of_one_and_of_two():
    rows = [
        {"id": "x", "n": 10, "value": v, "ci_low": v - 1, "ci_high": v + 2} for v in (30.0, 10.0)
    ]
    assert "spread" not in over_seeds(rows[:1], []) and over_seeds([], []) == {}
    assert (
        over_seeds(rows, [])["ci"] == "9.0–12.0"
        and over_seeds(rows, [])["value"] == 20
        and over_seeds(rows, [])["seeds"] == [30, 10]
    )


# ---------------------------------------------------------------- ablations and the rest


def test_ablations_are_tested_against_the_same_seed(emojiwsd, tmp_path):
    seen, told = write_visual(tmp_path), systems()
    records = write_runs(tmp_path, changes={})
    records += [
        {**records[0], "run": run, "group": "ablation", "seed": 1, "changed": about}
        for run, about in CHANGES.items()
    ]
    measure(
        tmp_path,
        "polclip_runs",
        [
            *records,
            {
                **records[0],
                "run": "no-sig",
                "group": "ablation",
                "seed": 9,
                "changed": "without a twin",
            },
        ],
        config={},
        backbone={},
    )
    write_answers(tmp_path, told)
    rows = {r["change"]: r for r in made(tmp_path, "polclip_ablations").rows}
    assert list(rows) == [
        "the full model",
        *CHANGES.values(),
        "plain alone",
        "fused alone",
        "with definitions by sentence encoder",
    ]
    for run, about in CHANGES.items():
        for key, mine, other, wrong in (
            ("t_", told[run, "sum"], told["seed1", "sum"], told["seed0", "sum"]),
            ("v_", *(seen[f"polclip-{name}", "sum", "en"] for name in (run, "seed1", "seed0"))),
        ):
            wanted = expected([mine], [other])
            assert part(rows[about], wanted, key) == wanted and part(
                rows[about], expected([mine], [wrong]), key
            ) != expected([mine], [wrong])
    for score in ("plain", "fused"):
        wanted = expected(
            [told[f"seed{s}", score] for s in SEEDS], [told[f"seed{s}", "sum"] for s in SEEDS]
        )
        assert (
            part(rows[f"{score} alone"], wanted, "t_") == wanted
            and rows[f"{score} alone"]["trained"] == "no"
        )
    defined = rows["with definitions by sentence encoder"]
    wanted = expected(
        *(
            [seen[f"polclip-seed{s}", score, "en"] for s in SEEDS]
            for score in ("sum+sentence-encoder", "sum")
        )
    )
    assert (
        part(defined, wanted, "v_") == wanted
        and "t_value" not in defined
        and "t_p" not in rows["the full model"]
    )


def test_parts_and_rankings(emojiwsd, tmp_path):
    write_runs(tmp_path), write_shown(tmp_path)
    rows = {r["part"]: r for r in made(tmp_path, "polclip_model").rows}
    followers = rows["followers of what is trained in the towers"]
    assert (followers["parameters"], followers["trained"]) == (404, 0) and rows["text tower"][
        "trained"
    ] == 400
    assert (
        rows["the model"]["parameters"] == 4500
        and rows["fusion"]["trained"] == 700
        and rows["the model"]["trained"] == 1500
    )
    senses_, pictures, first = made(tmp_path, "multimodal").rows
    assert [(r["k"], r["n"], r["value"]) for r in (senses_, pictures, first)] == [
        (10, 20, 50.0)
    ] * 3
    assert tuple(r["chance"] for r in (senses_, pictures, first)) == (
        50,
        pytest.approx(50 * (1 / 3 + 2 / 3)),
        pytest.approx(50 * (2 / 5 + 3 / 5)),
    )
    low, high = wilson(10, 20)
    assert (
        first["ci"] == f"{low:.1f}–{high:.1f}"
        and len(made(tmp_path, "multimodal_examples").rows) == 5
    )
    records = Collection("demo", tmp_path).measured["multimodal"].records
    measure(
        tmp_path,
        "multimodal",
        [{**r, "ranking": [e for e in r["ranking"] if e["kind"] == "sense"]} for r in records],
    )
    assert [r["what"] for r in made(tmp_path, "multimodal").rows] == [
        "best of the senses",
        "first of all, sense or picture",
    ]  # nothing was asked of pictures


@pytest.fixture(scope="module")
def everything(emojiwsd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "demo"
    write_all(folder)
    return SimpleNamespace(folder=folder, facts=Collection("demo", folder))


@pytest.mark.parametrize("name", TABLES_HERE)
def test_a_table_has_every_column_and_is_none_without_facts(name, everything, tmp_path):
    table = TABLES[name](everything.facts)
    assert table.name == name and "EmojiWSD" in table.caption and "profile demo" in table.caption
    for column in table.columns:
        assert any(row.get(column.key) is not None for row in table.rows), column.key
    assert TABLES[name](Collection("demo", tmp_path)) is None and "nan" not in table.csv()


@pytest.mark.parametrize("name", FIGURES_HERE)
def test_a_figure_draws_its_facts_and_nothing_without(name, everything, tmp_path):
    drawn = FIGURES[name](everything.facts)
    credited = "OpenMoji" in drawn[0].get_supxlabel().replace("\n", " ")
    assert credited == VIEWS[name].pictures
    assert (
        json.loads(json.dumps(drawn[1]))
        and png(drawn[0])[:4] == b"\x89PNG"
        and FIGURES[name](Collection("demo", tmp_path)) is None
    )


def texts_of(fig):
    return [text.get_text() for ax in fig.axes for text in ax.texts]


def test_the_architecture_is_that_of_the_configuration(emojiwsd, tmp_path):
    write_runs(tmp_path, make_config("paper"))
    paper = texts_of(FIGURES["architecture"](Collection("demo", tmp_path))[0])
    write_runs(tmp_path, make_config("code", losses=("w2s", "isg", "w2i"), w2i_query="target"))
    code = texts_of(FIGURES["architecture"](Collection("demo", tmp_path))[0])
    assert sum("last 4 blocks" in t for t in paper) == sum("last 2 blocks" in t for t in code) == 2
    assert sum("EMA 0.995" in t for t in paper) == sum("stop-grad" in t for t in code) == 2
    assert [t for t in paper if t in ("Q", "K, V")] == ["Q", "K, V", "Q", "K, V"] and [
        t for t in code if t in ("Q", "K, V")
    ] == ["Q", "K, V", "K, V", "Q"]
    assert "SIG\nwhich pictures\n(off)" in code and not any("(off)" in t for t in paper)
    assert any("captions" in t for t in paper) and not any("captions" in t for t in code)


def test_the_map_tells_the_two_spaces_apart(everything, tmp_path):
    records = everything.facts.measured["polclip_map"].records
    measure(
        tmp_path,
        "polclip_map",
        [r for r in records if (r["kind"], r["lemma"]) != ("fused gloss", "bat")],
    )
    plain, fused = FIGURES["sense_map"](Collection("demo", tmp_path))[0].axes
    named = [{text.get_text() for text in ax.texts} for ax in (plain, fused)]
    assert named[0] == {r["sense"] for r in records} and named[1] == {
        r["sense"] for r in records if r["lemma"] != "bat"
    }
    assert (
        len(plain.images)
        == len(fused.images)
        == len([r for r in records if r["kind"] == "picture"])
    )


def test_levels_of_knowing_nothing(emojiwsd, tmp_path):
    def levels(config):
        write_runs(tmp_path, config), write_training(tmp_path)
        return FIGURES["polclip_training"](Collection("demo", tmp_path))[1]["uniform"]

    assert levels(make_config("demo")) == {
        name: pytest.approx(np.log(20 if name in ("w2s", "isg") else 40))
        for name in ("sig", "w2s", "isg", "w2i")
    }
    assert levels(make_config("paper")) == {
        k: v for k, v in uniform(50, 5).items() if k in ("w2s", "isg")
    }  # a sense may have fewer than five pictures
    assert levels(make_config("demo", pictures=30)) == {}


def test_boxes_are_moved_apart_and_stay_inside():
    centres, sizes, room = (
        np.full((12, 2), 2.0),
        np.tile([[0.9, 0.2], [0.4, 0.4]], (6, 1)),
        np.array([5.0, 4.0]),
    )

    def covered(found):
        gap = np.abs(found[:, None] - found) - (sizes[:, None] + sizes) / 2
        return int(((gap < -1e-6).all(-1) & ~np.eye(12, dtype=bool)).sum())

    found = apart(centres, sizes, room)
    assert (
        covered(centres) == 132
        and covered(found) == 0
        and (found >= sizes / 2 - 1e-9).all()
        and (found <= room - sizes / 2 + 1e-9).all()
    )
    assert np.array_equal(apart(centres[:1], sizes[:1], room), centres[:1]) and np.array_equal(
        apart(centres, sizes, room), found
    )


def test_the_report_says_what_was_trained_and_whether_it_is_more_than_noise(
    everything, tmp_path, monkeypatch
):
    monkeypatch.setenv("VWSD_RESULTS", str(everything.folder.parent))
    monkeypatch.setattr("vwsd_companion.report.FIGURES", {})
    text = (write_report("demo", tmp_path) / "report.md").read_text()
    section = text.split("## PolCLIP")[1].split("## Tables")[0]
    assert "3 models of the full configuration (seeds 0, 1, 2), 5 with something changed" in section
    assert "borrowed 1 (there 4)" in section and "roles" not in section
    row = next(r for r in TABLES["textual"](everything.facts).rows if r["system"] == SCORES["sum"])
    better = sum(t["p"] < 0.05 and t["difference"] > 0 for t in row["tests"])
    assert (
        f"all items: F1 {row['value']:.1f} (n = {N}), {row['difference']:+.1f} points against"
        f" zero-shot; better at p < 0.05 in {better} of 3 seeds, worse in 0." in section
    )
    clear = {
        **systems(),
        **{(f"seed{s}", "sum"): np.arange(N) < 4 for s in SEEDS},
        ("sentence encoder", ""): np.arange(N) < 30,
    }
    (
        write_runs(tmp_path / "worse" / "demo"),
        write_visual(tmp_path / "worse" / "demo", ("en",)),
        write_answers(tmp_path / "worse" / "demo", clear, ("SE2", "SE3")),
    )
    monkeypatch.setenv("VWSD_RESULTS", str(tmp_path / "worse"))
    other = (write_report("demo") / "report.md").read_text().split("## Tables")[0]
    assert (
        "-65.0 points against zero-shot; better at p < 0.05 in 0 of 3 seeds, worse in 3." in other
        and other.count(": F1") == 1
    )  # of all sets together
    assert (
        section.count("hit@1") == 2
        and "GlossBERT" not in text
        and "wsd.seed0.sum.items.test/f1" in (tmp_path / "rows.jsonl").read_text()
    )
