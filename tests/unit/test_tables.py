"""Tables of notebooks 03 to 05 on facts made by hand, against counts made by hand."""

import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact

from vwsd_companion.facts.collect import Collection
from vwsd_companion.facts.measurements import write_measurement
from vwsd_companion.facts.predictions import write_predictions
from vwsd_companion.views.catalogue import FIGURES, TABLES, VIEWS
from vwsd_companion.views.figures import png
from vwsd_companion.views.tables import write_table
from vwsdlib.analysis import masks
from vwsdlib.analysis.masks import STATISTICS
from vwsdlib.analysis.metrics import paired_interval
from vwsdlib.data.sets import load_set
from vwsdlib.encoders.control import RandomEncoder
from vwsdlib.language.translate import write_translations

N = 40
TABLES_HERE = [
    "ladder",
    "backbones",
    "dtype_drift",
    "decoder",
    "mask_contrast",
    "inner_clip",
    "multilingual",
    "translation_marks",
    "translation_examples",
    "translators_used",
    "saliency_truth",
    "deletion_insertion",
    "centre_bias",
    "masks_shown",
]
FIGURES_HERE = [
    "ladder",
    "decoder_scores",
    "mask_contrast",
    "multilingual",
    "translation_quality",
    "translations_shown",
    "crop_maps",
    "crop_seeds",
    "masks",
    "scenes",
    "pointing",
]


def some(language="en", split="test", n=N):
    return load_set("emojiwsd", language, split).head(n)


def answers(data, right, seed=0):
    """Scores [n, 10] that put the gold first where `right` says so."""
    scores, gold = (
        np.random.default_rng(seed).random((len(data.items), 10)),
        [i.gold_index for i in data.items],
    )
    scores[np.arange(len(gold)), gold] = np.where(right, 2, -1)
    return scores


def predict(folder, encoder, scores, data=None, variant="phrase"):
    data = data or some()
    return write_predictions(
        folder,
        f"{encoder}.{variant}.{data.language}.{data.split}",
        data,
        [i.phrase for i in data.items],
        scores,
        profile="demo",
        variant=variant,
        identity=RandomEncoder().identity(),
        limit=len(data.items),
    )


def measure(folder, name, records, maps=None, data=None, **meta):
    data = data or some()
    facts = {
        "profile": "demo",
        "dataset": data.name,
        "language": data.language,
        "split": data.split,
        "limit": len(data.items),
        "seed": 0,
        "data_sha256": data.sha256,
    }
    return write_measurement(folder, name, records, maps, **facts, **meta)


def draw_right(seed, n=N, share=0.5):
    return np.random.default_rng(seed).random(n) < share


def made(folder, name):
    return TABLES[name](Collection("demo", folder))


def paired(a, b):
    """What the tables should say of b against a: counted one by one, tested by SciPy."""
    lost, won = sum(x and not y for x, y in zip(a, b)), sum(y and not x for x, y in zip(a, b))
    low, high = paired_interval(lost, won, len(a))
    return {
        "only_a": lost,
        "only_b": won,
        "difference": pytest.approx(100 * (won - lost) / len(a)),
        "difference_ci": f"{low:.1f} to {high:.1f}" if low < 0 else f"{low:.1f}–{high:.1f}",
        "p": pytest.approx(binomtest(lost, lost + won).pvalue if lost + won else 1),
    }


def part(row, expected):
    return {key: row.get(key) for key in expected}


# ---------------------------------------------------------------- notebook 03

STEPS = {
    "lite": "the baseline",
    "lite-352": "224 → 352 px",
    "lite-352-imagenet": "own → ImageNet statistics",
}


def ladder_facts(folder):
    right = {
        name: draw_right(seed, share=share)
        for seed, (name, share) in enumerate(zip(STEPS, (0.4, 0.5, 0.7)))
    }
    for seed, (name, r) in enumerate(right.items()):
        predict(folder, name, answers(some(), r, seed))
    predict(folder, "lite", answers(some(), draw_right(9), 9), variant="word")
    measure(
        folder,
        "ladder",
        [{"encoder": name, "change": change, "split": "test"} for name, change in STEPS.items()],
    )
    return right


def test_ladder_tests_each_step_against_the_one_before(emojiwsd, tmp_path):
    right = ladder_facts(tmp_path)
    rows = made(tmp_path, "ladder").rows
    assert [(r["step"], r["change"]) for r in rows] == [
        *enumerate(STEPS.values()),
        (3, "all steps together"),
    ]
    a, b, c = right.values()
    for row, expected in (
        (rows[1], paired(a, b)),
        (rows[2], paired(b, c)),
        (rows[3], paired(a, c)),
    ):
        assert part(row, expected) == expected
    assert (
        "difference" not in rows[0]
        and part(rows[2], paired(a, c)) != paired(a, c)
        and part(rows[1], paired(b, a)) != paired(b, a)
    )
    assert [(r["k"], r["n"], r["value"]) for r in rows[:3]] == [
        (x.sum(), N, pytest.approx(100 * x.mean())) for x in (a, b, c)
    ]


def test_ladder_leaves_out_what_did_not_run_and_compares_no_other_items(emojiwsd, tmp_path):
    right = ladder_facts(tmp_path)
    (tmp_path / "predictions" / "lite-352.phrase.en.test.jsonl").unlink()
    rows = made(tmp_path, "ladder").rows
    expected = paired(right["lite"], right["lite-352-imagenet"])
    assert [r["encoder"] for r in rows[:2]] == ["lite", "lite-352-imagenet"] and part(
        rows[1], expected
    ) == expected
    predict(tmp_path, "lite-352-imagenet", answers(some(n=30), draw_right(4, 30)), some(n=30))
    rows = made(tmp_path, "ladder").rows
    assert (
        rows[1]["n"] == 30
        and "difference" not in rows[1]
        and "–" in made(tmp_path, "ladder").cells()[1]
    )
    (tmp_path / "measured" / "ladder.jsonl").unlink()
    assert made(tmp_path, "ladder") is None


def test_backbones_stand_best_first_against_the_baseline(emojiwsd, tmp_path):
    right = ladder_facts(tmp_path)
    predict(tmp_path, "lite@bf16", answers(some(), draw_right(7)))
    rows = made(tmp_path, "backbones").rows
    assert [r["encoder"] for r in rows] == sorted(right, key=lambda name: -right[name].sum())
    for row in rows:
        expected = paired(right["lite"], right[row["encoder"]])
        assert part(row, expected) == expected if row["encoder"] != "lite" else "p" not in row


def test_dtype_drift_by_hand(emojiwsd, tmp_path):
    base = np.tile(np.arange(10) / 10, (N, 1))  # the last candidate leads by 0.1
    other = base + 0.001
    other[3, 8], other[5, 7] = 1.5, 0.9 + 0.002  # two items get another first
    predict(tmp_path, "clip-vit-b32", base)
    predict(tmp_path, "clip-vit-b32@bf16", other)
    predict(tmp_path, "clip-vit-b16@bf16", other)  # without its fp32 run: nothing to compare
    [row] = made(tmp_path, "dtype_drift").rows
    gold = np.array([i.gold_index for i in some().items])
    assert (row["encoder"], row["n"], row["flips"]) == ("clip-vit-b32@bf16", N, 2)
    assert row["largest"] == pytest.approx(0.7, abs=1e-6) and row["margin"] == pytest.approx(
        0.1, abs=1e-6
    )
    assert row["mean"] == pytest.approx((0.001 * (10 * N - 2) + 0.7 + 0.202) / (10 * N), abs=1e-6)
    first = np.where(np.arange(N) == 3, 8, np.where(np.arange(N) == 5, 7, 9))
    assert (row["k"], row["k_variant"]) == ((gold == 9).sum(), (gold == first).sum())


def test_dtype_drift_without_flips_or_on_other_items(emojiwsd, tmp_path):
    base = np.tile(np.arange(10) / 10, (N, 1))
    predict(tmp_path, "clip-vit-b32", base)
    predict(tmp_path, "clip-vit-b32@fp16", base)
    [row] = made(tmp_path, "dtype_drift").rows
    assert (row["flips"], row["margin"], row["largest"]) == (0, None, 0)
    predict(tmp_path, "clip-vit-b32@fp16", base[:30], some(n=30))
    assert made(tmp_path, "dtype_drift") is None


def decoder_facts(folder, knows="dev"):
    """A cosine and six statistics on dev and test; the statistic logit_mean knows the gold on one
    of the two, the others on neither.
    """
    right = {}
    for seed, split in enumerate(("dev", "test")):
        data = some(split=split)
        right["cosine", split] = draw_right(seed, share=0.6)
        predict(folder, "lite-352", answers(data, right["cosine", split], seed), data)
        for i, name in enumerate(STATISTICS):
            right[name, split] = (
                np.ones(N, bool)
                if (name, split) == ("logit_mean", knows)
                else draw_right(10 + i, share=0.02)
            )
            predict(
                folder,
                "lite-dense",
                answers(data, right[name, split], 20 + 2 * i + seed),
                data,
                name,
            )
    measure(folder, "decoder", [], segmenter="lite-dense", dual="lite-352", dev="dev")
    return right


def test_the_decoders_weight_comes_from_dev(emojiwsd, tmp_path):
    right = decoder_facts(tmp_path / "a", knows="dev")
    rows = made(tmp_path / "a", "decoder").rows
    assert len(rows) == 1 + 2 * len(STATISTICS) and rows[0]["k"] == right["cosine", "test"].sum()
    alone = {r["score"]: r for r in rows}[STATISTICS["logit_mean"]]
    mixed = rows[rows.index(alone) + 1]
    expected = paired(right["cosine", "test"], right["logit_mean", "test"])
    assert (
        part(alone, expected) == expected and mixed["weight"] >= 0.3
    )  # dev says trust it, though on test it knows nothing
    by_hand = masks.mix(
        *(
            Collection("demo", tmp_path / "a").predictions[run].scores
            for run in ("lite-352.phrase.en.test", "lite-dense.logit_mean.en.test")
        ),
        mixed["weight"],
    )
    hit = by_hand.argmax(1) == [i.gold_index for i in some().items]
    assert mixed["k"] == hit.sum() < rows[0]["k"] and part(
        mixed, paired(right["cosine", "test"], hit)
    ) == paired(right["cosine", "test"], hit)


def test_test_items_have_no_say_in_the_weight(emojiwsd, tmp_path):
    right = decoder_facts(tmp_path, knows="test")
    rows = made(tmp_path, "decoder").rows
    alone = {r["score"]: r for r in rows}[STATISTICS["logit_mean"]]
    mixed = rows[rows.index(alone) + 1]
    assert (
        alone["k"] == N and mixed["weight"] <= 0.2
    )  # the mask is right on all of test, and dev never saw it
    assert mixed["k"] < N and f"{N} dev items" in made(tmp_path, "decoder").caption
    (tmp_path / "predictions" / "lite-dense.prob_top.en.dev.jsonl").unlink()
    assert right and made(tmp_path, "decoder") is None


def contrast_facts(folder, effect=0.3):
    right, rng = draw_right(0), np.random.default_rng(0)
    predict(folder, "lite-352", answers(some(), right))
    items = list(
        zip(some().items, right, np.arange(N) // 4)
    )  # four items a target, so twelve pairs
    records = [
        {
            "id": a.id,
            "other": b.id,
            "target": f"t{t}",
            "own": float(rng.normal(effect * r, 0.2)),
            "foreign": 0.0,
            "own_cosine": float(rng.normal()),
            "foreign_cosine": 0.1,
        }
        for a, r, t in items
        for b, _, u in items
        if t == u and b is not a
    ]
    measure(folder, "contrast", records, segmenter="lite-dense", dual="lite-352")
    return right, records


def test_contrasts_are_means_over_an_items_pairs(emojiwsd, tmp_path, monkeypatch):
    monkeypatch.setattr(masks, "BOOTSTRAP", 200)
    right, records = contrast_facts(tmp_path)
    mask, cosine = made(tmp_path, "mask_contrast").rows
    ids = list(dict.fromkeys(r["id"] for r in records))
    solved = {i.id: bool(r) for i, r in zip(some().items, right)}
    for row, own, foreign in ((mask, "own", "foreign"), (cosine, "own_cosine", "foreign_cosine")):
        values = {i: np.mean([r[own] - r[foreign] for r in records if r["id"] == i]) for i in ids}
        pairs = [
            (values[i] > values[j]) + (values[i] == values[j]) / 2
            for i in ids
            for j in ids
            if solved[i] and not solved[j]
        ]
        assert row["auc"] == pytest.approx(np.mean(pairs)) and row["positive"] == pytest.approx(
            100 * np.mean([v > 0 for v in values.values()])
        )
        assert (row["n"], row["pairs"], row["k"]) == (
            len(ids),
            len(records),
            sum(solved[i] for i in ids),
        )
        assert (row["targets"], len(ids), len(records)) == (10, 40, 120)
    assert mask["auc"] > 0.7 and mask["p"] < 0.05 and mask["auc"] != cosine["auc"]


def test_contrasts_need_items_of_both_kinds(emojiwsd, tmp_path):
    contrast_facts(tmp_path)
    predict(tmp_path, "lite-352", answers(some(), np.ones(N, bool)))
    assert made(tmp_path, "mask_contrast") is None


def inner_facts(folder):
    tensors = [
        ("text_model.a", True, 0.0),
        ("text_model.b", False, 1e-3),
        ("vision_model.c", False, None),
        ("vision_model.d", True, 0.0),
        ("vision_model.e", False, 0.5),
        ("logit_scale", False, None),
    ]
    measure(
        folder,
        "inner_clip",
        [{"name": n, "shape": [2], "equal": e, "max_abs_difference": d} for n, e, d in tensors],
    )


def test_inner_clip_is_counted_by_part(emojiwsd, tmp_path):
    inner_facts(tmp_path)
    found = {
        r["part"]: (r["tensors"], r["equal"], r["largest"])
        for r in made(tmp_path, "inner_clip").rows
    }
    assert found == {
        "text_model": (2, 1, 1e-3),
        "vision_model": (3, 1, 0.5),
        "logit_scale": (1, 0, None),
    }
    measure(tmp_path, "inner_clip", [])
    assert made(tmp_path, "inner_clip") is None


# ---------------------------------------------------------------- notebook 04

USED = {
    ("translated", "it"): "reference",
    ("translated", "fa"): "reference",
    ("translated-nllb-1.3b", "it"): "nllb-1.3b",
}


def flagged(data, name):
    """A record an item: every third is copied, every fifth has its target lost."""
    flags = [
        (
            [rule for rule, every in (("copied", 3), ("target_lost", 5)) if i % every == 0]
            if name != "reference"
            else []
        )
        for i in range(len(data.items))
    ]
    return [
        {
            "id": i.id,
            "language": i.language,
            "target": i.target,
            "phrase": i.phrase,
            "phrase_en": f"{name} {i.id}",
            "target_en": "x",
            "flags": f,
        }
        for i, f in zip(data.items, flags)
    ]


def multilingual_facts(folder):
    right, seed = {}, 0
    for language in ("it", "fa"):
        data = some(language)
        for encoder in ("lite", "a-multilingual"):  # by name before the baseline
            for variant in ("word", "phrase", *(v for v, lang in USED if lang == language)):
                if (encoder, variant) != ("a-multilingual", "word"):
                    seed += 1
                    right[encoder, variant, language] = draw_right(
                        seed, share=0.3 + 0.05 * (seed % 7)
                    )
                    predict(
                        folder,
                        encoder,
                        answers(data, right[encoder, variant, language], seed),
                        data,
                        variant,
                    )
    for (_, language), name in USED.items():
        facts = {"translator": name, "source": language, "model": "toy", "revision": "r" * 40}
        write_translations(folder, flagged(some(language), name), facts, "test")
    measure(
        folder,
        "translators",
        [{"variant": v, "language": lang, "translator": name} for (v, lang), name in USED.items()],
    )
    return right


def test_multilingual_runs_are_tested_against_the_right_ones(emojiwsd, tmp_path):
    right = multilingual_facts(tmp_path)
    rows = made(tmp_path, "multilingual").rows
    assert [r["language"] for r in rows] == ["Italian"] * 6 + ["Farsi"] * 4 and [
        r["encoder"] for r in rows[:6]
    ] == ["lite"] * 3 + ["a-multilingual"] * 3
    texts = {
        "as it is": "phrase",
        "reference translation (upper bound)": "translated",
        "translated by nllb-1.3b": "translated-nllb-1.3b",
    }
    for row in rows:
        encoder, variant, language = (
            row["encoder"],
            texts[row["text"]],
            {"Italian": "it", "Farsi": "fa"}[row["language"]],
        )
        assert row["k"] == right[encoder, variant, language].sum()
        if (encoder, variant) == ("lite", "phrase"):
            assert "against" not in row and "p" not in row
            continue
        other = (
            encoder if variant != "phrase" else "lite"
        )  # itself untranslated; else the baseline untranslated
        expected = {
            "against": f"{other}, as it is",
            **paired(right[other, "phrase", language], right[encoder, variant, language]),
        }
        assert part(row, expected) == expected
    assert len({r["text"] for r in rows}) == 3


def test_no_multilingual_table_before_the_notebook_ran(emojiwsd, tmp_path):
    multilingual_facts(tmp_path)
    (tmp_path / "measured" / "translators.jsonl").unlink()
    assert made(tmp_path, "multilingual") is None and made(tmp_path, "translation_marks") is None


def test_translation_marks_by_hand(emojiwsd, tmp_path):
    right = multilingual_facts(tmp_path)
    rows = made(tmp_path, "translation_marks").rows
    index = np.arange(N)
    marks = {
        "copied": index % 3 == 0,
        "target lost": index % 5 == 0,
        "any mark": (index % 3 == 0) | (index % 5 == 0),
    }
    found = {(r["encoder"], r["mark"]): r for r in rows if r["translator"] == "nllb-1.3b"}
    assert (
        len(found) == 2 * len(marks) and len(rows) == len(found) + 4
    )  # a rule that marks nothing has no line
    for (encoder, mark), row in found.items():
        hit, marked = right[encoder, "translated-nllb-1.3b", "it"], marks[mark]
        assert (row["n"], row["rest_n"]) == (marked.sum(), (~marked).sum()) and row[
            "rest"
        ] == pytest.approx(100 * hit[~marked].mean())
        table = [
            [(hit & marked).sum(), (~hit & marked).sum()],
            [(hit & ~marked).sum(), (~hit & ~marked).sum()],
        ]
        assert row["value"] == pytest.approx(100 * hit[marked].mean()) and row[
            "p"
        ] == pytest.approx(fisher_exact(table)[1])
    assert all(
        (r["mark"], r["n"], r["value"], r["p"], r["rest_n"]) == ("any mark", 0, None, None, N)
        for r in rows
        if r["translator"] == "reference"
    )


def test_marks_are_not_laid_on_other_items(emojiwsd, tmp_path):
    multilingual_facts(tmp_path)
    write_translations(
        tmp_path,
        flagged(some("it", n=30), "nllb-1.3b"),
        {"translator": "nllb-1.3b", "source": "it"},
        "test",
    )
    assert "nllb-1.3b" not in {r["translator"] for r in made(tmp_path, "translation_marks").rows}


def test_examples_are_marked_ones_italian_first_also_of_a_name_with_dots(emojiwsd, tmp_path):
    multilingual_facts(tmp_path)
    rows = made(tmp_path, "translation_examples").rows
    assert [(r["language"], r["translator"]) for r in rows] == [("Italian", "nllb-1.3b")] * 8 + [
        ("Italian", "reference")
    ] * 8 + [("Farsi", "reference")] * 8
    assert [r["phrase"] for r in rows[:3]] == [
        some("it").items[i].phrase for i in (0, 3, 5)
    ] and rows[0]["flags"] == "copied, target lost"
    assert {r["flags"] for r in rows[8:]} == {"none"}
    used = [
        (r["translator"], r["language"], r["n"], r["revision"])
        for r in made(tmp_path, "translators_used").rows
    ]
    assert sorted(used) == [
        ("nllb-1.3b", "Italian", N, "r" * 12),
        ("reference", "Farsi", N, "r" * 12),
        ("reference", "Italian", N, "r" * 12),
    ]


# ---------------------------------------------------------------- notebook 05


def saliency_facts(folder, n=12):
    rng, records = np.random.default_rng(0), []
    for model, method in (
        ("lite", "occlusion"),
        ("lite-dense", "mask"),
        ("lite", "crops_sum"),
        ("no model", "random"),
    ):
        for i in range(n):
            gone = (
                {"deletion": float(rng.random()), "insertion": float(rng.random())}
                if method != "mask" and i % 2 == 0
                else {"deletion": None, "insertion": None}
            )
            records.append(
                {
                    "scene": f"scene.{i}.png",
                    "phrase": "x",
                    "model": model,
                    "method": method,
                    "area": 0.05 + i / 1000,
                    "pointing": float(rng.integers(2)),
                    "rival": float(rng.random()),
                    "energy": float(rng.random()),
                    "iou": float(rng.random()),
                    **gone,
                }
            )
    measure(
        folder,
        "saliency_truth",
        records,
        identities={"lite": {**RandomEncoder().identity(), "model": "lite"}},
    )
    data = some(n=4)
    pictures = [i.gold for i in data.items]
    maps = {f"{i}": rng.normal(size=(12, 12)) for i in range(8)}
    measure(
        folder,
        "crop_maps",
        [
            {
                "map": str(2 * i + j),
                "picture": pictures[i],
                "phrase": "x",
                "model": "lite",
                "kind": kind,
            }
            for i in range(2)
            for j, kind in enumerate(("total", "mean"))
        ],
        maps,
        data,
        crops=300,
    )
    measure(
        folder,
        "crop_seeds",
        [{"picture": pictures[0], "phrase": "x", "model": "lite", "seeds": 4, "crops": 300}],
        {"mean": maps["0"], "low": maps["0"] - 1, "high": maps["0"] + 1},
        data,
    )
    measure(
        folder,
        "mask_panels",
        [
            {
                "map": str(i),
                "group": "pair",
                "picture": pictures[i // 2],
                "phrase": "x",
                "match": i % 2 == 0,
                "mean": i / 10,
                "area": 0.5,
                "low": 0.0,
                "high": 0.9,
            }
            for i in range(4)
        ],
        maps,
        data,
        segmenter="lite-dense",
    )
    measure(
        folder,
        "centre_bias",
        [
            {
                "picture": "x",
                "size": "472 × 554",
                "centre": 520.4,
                "top": 12.3,
                "corner": 0.05,
                "ratio": 42.3,
            }
        ],
    )
    scene = [
        {
            "map": f"{s}{m}",
            "picture": f"scene.{s}.png",
            "phrase": "x",
            "method": m,
            "model": "" if m == "truth" else "lite",
        }
        for s in (0, 1)
        for m in ("truth", "occlusion")
    ]
    shown = np.pad(np.ones((6, 6)), 12)
    measure(folder, "scene_maps", scene, {r["map"]: shown for r in scene}, data)
    return records


def test_saliency_truth_against_means_by_hand(emojiwsd, tmp_path):
    records = saliency_facts(tmp_path)
    rows = made(tmp_path, "saliency_truth").rows
    assert [r["model"] for r in rows] == ["lite", "lite", "lite-dense", "no model"] and rows[0][
        "method"
    ].startswith("random crops, plain sum")
    for row, (model, method) in zip(
        rows,
        [
            ("lite", "crops_sum"),
            ("lite", "occlusion"),
            ("lite-dense", "mask"),
            ("no model", "random"),
        ],
    ):
        its = [r for r in records if (r["model"], r["method"]) == (model, method)]
        for name in ("pointing", "rival", "energy", "iou"):
            mean = 100 * sum(r[name] for r in its) / 12
            low, high = map(float, row[f"{name}_ci"].split("–"))
            assert row[name] == pytest.approx(mean) and low <= mean <= high and high - low > 5
        assert row["n"] == 12 and row["chance"] == pytest.approx(100 * (0.05 + 5.5 / 1000))
    assert len({r["energy"] for r in rows}) == 4
    found = Collection("demo", tmp_path).rows
    assert (
        len(found) == 16
        and found["saliency.lite.occlusion.test/iou"]["value"] == rows[1]["iou"]
        and found["saliency.lite.occlusion.test/iou"]["model"] == "lite"
    )
    assert (
        found["saliency.no model.random.test/energy"]["model"] == "none"
        and found["saliency.lite-dense.mask.test/rival"]["variant"] == "mask"
    )


def test_deletion_and_insertion_are_means_of_the_scenes_that_have_them(emojiwsd, tmp_path):
    records = saliency_facts(tmp_path)
    rows = made(tmp_path, "deletion_insertion").rows
    assert [(r["model"], r["n"]) for r in rows] == [("lite", 6), ("lite", 6), ("no model", 6)]
    its = [r for r in records if r["method"] == "occlusion" and r["deletion"] is not None]
    mean = {k: np.mean([r[k] for r in its]) for k in ("deletion", "insertion")}
    assert (rows[1]["deletion"], rows[1]["insertion"]) == (
        pytest.approx(mean["deletion"]),
        pytest.approx(mean["insertion"]),
    )
    assert (
        rows[1]["gap"] == pytest.approx(mean["insertion"] - mean["deletion"])
        and rows[1]["gap"] != rows[0]["gap"]
    )


def test_masks_and_visits_are_shown_as_measured(emojiwsd, tmp_path):
    saliency_facts(tmp_path)
    assert [(r["match"], r["mean"]) for r in made(tmp_path, "masks_shown").rows] == [
        (k, i / 10) for i, k in enumerate(("matching", "other sense") * 2)
    ]
    assert made(tmp_path, "centre_bias").cells() == [
        ["x", "472 × 554", "520", "12.3", "0.05", "42"]
    ]


# ---------------------------------------------------------------- all of them


@pytest.fixture(scope="module")
def everything(emojiwsd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("facts")
    for write in (
        ladder_facts,
        decoder_facts,
        contrast_facts,
        inner_facts,
        multilingual_facts,
        saliency_facts,
    ):
        write(folder)
    predict(folder, "lite@bf16", answers(some(), draw_right(7)))
    return SimpleNamespace(folder=folder, facts=Collection("demo", folder))


def test_the_list_of_new_tables_is_whole():
    assert set(TABLES_HERE) == {
        name
        for name, function in TABLES.items()
        if function.__module__.rsplit(".", 1)[1] not in ("baseline", "polclip")
    }


@pytest.mark.parametrize("name", TABLES_HERE)
def test_a_table_is_written_with_every_number_and_none_without_facts(name, everything, tmp_path):
    table = TABLES[name](everything.facts)
    assert table.name == name and "EmojiWSD" in table.caption or name == "centre_bias"
    written = write_table(table, tmp_path)
    header, *lines = csv.reader(io.StringIO(written[0].read_text()))
    keys = [name.removesuffix("_low") for name in header if not name.endswith("_high")]
    assert (
        [c.key for c in table.columns] in (keys, header)
        and len(lines) == len(table.rows)
        and all(any(line) for line in lines)
    )
    for column in table.columns:  # no column of a misspelt key
        assert any(row.get(column.key) is not None for row in table.rows), column.key
    assert (
        TABLES[name](everything.facts).csv() == table.csv()
        and TABLES[name](Collection("demo", tmp_path / "nothing")) is None
    )


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


def test_the_list_of_new_figures_is_whole():
    others = {
        "ambiguity",
        "audit",
        "examples_en",
        "examples_it",
        "examples_fa",
        "baseline",
        "reliability",
        "best_and_worst",
        "architecture",
        "polclip_training",
        "polclip_scores",
        "polclip_ablations",
        "polclip_attention",
        "sense_map",
    }
    assert set(FIGURES_HERE) | others == set(FIGURES)


def test_translations_are_headed_by_their_own_names(everything):
    drawn = FIGURES["translations_shown"](everything.facts)
    assert [ax.get_title("left") for ax in drawn[0].axes] == [
        "Italian, nllb-1.3b",
        "Italian, reference",
        "Farsi, reference",
    ]


def test_a_users_theme_moves_no_figure(tiny_results):
    import matplotlib
    import seaborn

    from vwsd_companion.facts.collect import Collection
    from vwsd_companion.views.catalogue import FIGURES

    facts = Collection("demo", tiny_results / "demo")
    plain = png(FIGURES["baseline"](facts)[0])
    with matplotlib.rc_context():
        seaborn.set_theme(style="darkgrid", font_scale=2)
        themed = png(FIGURES["baseline"](facts)[0])
    assert themed == plain
