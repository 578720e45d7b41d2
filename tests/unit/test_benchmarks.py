"""The benchmarks' inputs, counts and statistics. No time is asserted: what a machine does while
tests run says nothing.
"""

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from benchmarks import __main__ as command
from benchmarks import capacity, inputs, machine, models, plain, report, scenarios
from vwsdlib.analysis.scorers import cosine_scores, texts_of
from vwsdlib.encoders.store import VectorStore
from vwsdlib.errors import VwsdError
from vwsdlib.paths import PACKAGE

MEGAPIXELS = (0.01, 0.05)
ROOT = PACKAGE.parent


@pytest.fixture(scope="module")
def bases():
    return [inputs.base(number, (400, 300)) for number in range(2)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Small pictures and the tiny checkpoints, in a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VWSD_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("VWSD_MODELS", "")
        models.encoder.cache_clear(), plain.load.cache_clear()
        yield inputs.small_pictures(25)
        (
            models.encoder.cache_clear(),
            plain.load.cache_clear(),
            scenarios.models.load_encoder.cache_clear(),
        )


# ---------------------------------------------------------------- pictures


def test_pictures_are_the_same_each_time_and_of_the_sizes_asked_for(bases):
    files = [inputs.picture(number, bases, MEGAPIXELS) for number in range(25)]
    assert (
        files == [inputs.picture(number, bases, MEGAPIXELS) for number in range(25)]
        and len(set(files)) == 25
    )
    opened = [Image.open(io.BytesIO(data)) for data in files]
    pixels = np.array([image.width * image.height / 1e6 for image in opened])
    assert (
        pixels.min() > 0.99 * MEGAPIXELS[0]
        and pixels.max() < 1.01 * MEGAPIXELS[1]
        and pixels.std() > 0.005
    )
    assert len({round(image.width / image.height, 1) for image in opened}) > 4 and {
        image.mode for image in opened
    } == {"RGB"}
    assert [image.format for image in opened] == [
        "PNG" if inputs.name(n).endswith("png") else "JPEG" for n in range(25)
    ]


def test_eight_percent_are_png_and_the_largest_fit_into_a_base():
    assert sum(inputs.name(n).endswith("png") for n in range(1700)) == 0.08 * 1700
    most, (w, h) = 1e6 * inputs.MEGAPIXELS[1], inputs.BASE_SIZE
    assert all(
        (most * aspect) ** 0.5 <= w and (most / aspect) ** 0.5 <= h for aspect in inputs.ASPECTS
    )


def slope(plane):
    """Of the amplitude over frequency, both as logarithms."""
    amplitude = np.abs(np.fft.fft2(plane - plane.mean()))[:64, 0:64]
    y, x = np.mgrid[:64, :64]
    keep = (np.hypot(x, y) > 3) & (np.hypot(x, y) < 60)
    return np.polyfit(np.log(np.hypot(x, y)[keep]), np.log(amplitude[keep]), 1)[0]


def test_amplitudes_fall_as_one_over_frequency():
    planes = {
        power: inputs._plane(np.random.default_rng(3), (256, 256), power) for power in (0.0, 1.0)
    }
    assert (
        -1.15 < slope(planes[1.0]) < -0.85 and abs(slope(planes[0.0])) < 0.15
    )  # white noise is the twin that does not


def test_brightness_and_colour_are_correlated_as_in_photographs(bases):
    pixels = np.asarray(bases[0], float).reshape(-1, 3)
    assert np.corrcoef(pixels.T)[np.triu_indices(3, 1)].min() > 0.3


def test_small_pictures_differ_as_files_and_decode_alike():
    files = [inputs.small(number, inputs._small_files()) for number in (0, 48, 96, 1)]
    assert len(set(files)) == 4
    a, b, c, other = (np.asarray(Image.open(io.BytesIO(data))) for data in files)
    assert (a == b).all() and (a == c).all() and (a != other).any() and a.shape == (240, 320, 3)
    assert max(map(len, inputs._small_files())) * 32000 < 2e9


def test_a_killed_build_goes_on_and_leaves_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("VWSD_CACHE", str(tmp_path))
    folder, names = inputs.small_pictures(5)
    (folder / names[0]).write_bytes(b"kept as it is")
    (folder / names[3]).unlink()
    assert inputs.small_pictures(8)[0] == folder and len(list(folder.iterdir())) == 8
    assert (folder / names[0]).read_bytes() == b"kept as it is" and (
        folder / names[3]
    ).stat().st_size > 1000
    monkeypatch.setattr(inputs, "SEED", 1)
    assert inputs.small_pictures(1)[0] != folder


# ---------------------------------------------------------------- items


def test_items_show_every_picture_and_some_again():
    names = [f"image.{n}.jpg" for n in range(1700)]
    data, _ = inputs.deal("en", 200, names, inputs.Path())
    shown = [c for item in data.items for c in item.candidates]
    assert len(data.items) == 200 and set(shown) == set(names) and len(shown) == 2000
    assert all(
        len(set(item.candidates)) == 10 and item.gold in item.candidates for item in data.items
    )
    assert (
        len({item.phrase for item in data.items}) == 200
        and data == inputs.deal("en", 200, names, inputs.Path())[0]
    )


@pytest.mark.parametrize("language", ["en", "it", "fa"])
def test_phrases_are_real_and_each_once(language):
    found = inputs.phrases(language)
    english = {phrase for _, phrase, _ in inputs.phrases("en")}
    assert len(found) >= inputs.STUDY[language][0] and len(
        {phrase for _, phrase, _ in found}
    ) == len(found)
    assert {translation for _, _, translation in found} <= english and (
        language == "en" or not {phrase for _, phrase, _ in found} <= english
    )


@pytest.mark.parametrize("n", [None, 20, 1])
def test_the_studys_sets_have_the_official_sizes_or_their_rates(n):
    counts, total = inputs.study_counts(n)
    names = [f"image.{i}.jpg" for i in range(total)]
    sets = inputs.study(names, inputs.Path(), n)
    used = {
        language: {c for item in data.items for c in item.candidates}
        for language, (data, _) in sets.items()
    }
    assert {
        language: (len(data.items), len(used[language])) for language, (data, _) in sets.items()
    } == counts
    assert len(set().union(*used.values())) == total and len(used["en"] & used["it"]) > 0
    assert n is not None or (counts, total) == (inputs.STUDY, 8100)
    work = scenarios.jobs(sets)
    assert [data.language for _, data, _ in work] == ["en", "en", "it", "it", "fa", "fa"] and [
        key for key, _, _ in work
    ].count("clipseg-rd64") == 5
    assert work[2][2] != work[3][2] and work[4][2] != work[5][2]  # as they are, and translated


# ---------------------------------------------------------------- models and the plain loop


def test_architectures_have_their_published_sizes():
    import torch
    import transformers

    with torch.device("meta"):
        b32, b16 = (
            transformers.CLIPModel(models.config(key)) for key in ("clip-vit-b32", "clip-vit-b16")
        )
        clipseg = transformers.CLIPSegForImageSegmentation(models.config("clipseg-rd64"))
    count = lambda *modules: sum(p.numel() for module in modules for p in module.parameters())  # noqa: E731
    assert (
        count(b32.vision_model, b32.visual_projection) == 87_849_216
        and count(b16) == 149_620_737
        and count(clipseg) == 150_747_746
    )


def test_work_is_counted_as_by_hand():
    def by_hand(side, patch, width=768, inner=3072, layers=12, dim=512):
        n = (side // patch) ** 2 + 1
        layer = 2 * n * (4 * width**2 + 2 * width * inner) + 4 * n * n * width
        return (2 * (n - 1) * 3 * patch**2 * width + layers * layer + 2 * width * dim) / 1e9

    assert (
        models.gflop("clip-vit-b32")
        == pytest.approx(by_hand(224, 32))
        != pytest.approx(by_hand(224, 16))
    )
    assert models.gflop("clipseg-rd64") == pytest.approx(by_hand(352, 16), rel=1e-4)


def test_common_words_are_one_token_and_any_text_is_read(tmp_path):
    import transformers

    special = {
        "bos_token": "<|startoftext|>",
        **dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
    }
    models.write_text(
        tmp_path / "tokenizer_config.json",
        json.dumps({"tokenizer_class": "CLIPTokenizer"} | special),
    )
    models._learn_words(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (
        len(tokenizer("river bank")["input_ids"]) <= 6 < len(tokenizer("ساحل رودخانه")["input_ids"])
    )
    assert max(tokenizer("river bank")["input_ids"]) == len(tokenizer) - 1 < models.VOCABULARY


@pytest.mark.parametrize("key", ["clip-vit-b32", "clipseg-rd64"])
def test_the_plain_loop_and_ours_give_the_same_scores(tiny, tmp_path, key):
    folder, names = tiny
    data, _ = inputs.deal("it", 3, names, folder)
    texts = texts_of(data.items, "phrase")
    theirs = plain.scores(plain.load(key, tiny=True), data, texts)
    ours = cosine_scores(data, VectorStore(models.encoder(key, tiny=True), tmp_path), texts)
    assert np.abs(ours - theirs).max() < 1e-4 < np.abs(ours - theirs[::-1]).max()


def test_unequal_work_is_no_comparison():
    turn = scenarios.Turn()
    scenarios._agree("scores", 1e-5, 1e-4, turn)
    assert turn.facts == {"largest difference of scores": 1e-5}
    for difference in (1e-3, float("nan")):
        with pytest.raises(VwsdError, match="scores differ"):
            scenarios._agree("scores", difference, 1e-4, turn)


def test_crops_of_both_sides_give_one_map(tiny):
    turn = scenarios.crops(12, tiny=True)
    assert (
        list(turn.seconds) == ["plain", "ours"]
        and turn.facts["largest difference of maps, mean change of the cosine"] < 1e-5
    )


def test_flips_name_the_items_that_change_with_their_margin():
    data, _ = inputs.deal("en", 2, [f"image.{n}.jpg" for n in range(20)], inputs.Path())
    data = replace(data, items=tuple(replace(item, gold=item.candidates[0]) for item in data.items))
    reference = np.tile(np.arange(10, 0, -1.0), (2, 1)) / 10
    other = reference.copy()
    other[1, 1] = 1.5
    found = scenarios.flips(data, reference, other)
    assert found["hit@1 flips (%)"] == found["first choices that change (%)"] == 50 and found[
        "largest margin of a change"
    ] == pytest.approx(0.1)
    assert (
        found["changes"] == ["en.bench.1: margin 1.0e-01, hit@1 too"]
        and scenarios.flips(data, reference, reference)["changes"] == []
    )


def test_the_stand_in_card_gives_every_picture_a_row_in_order(tiny, tmp_path):
    folder, names = tiny
    card = scenarios.StandIn(1e6)
    rows = VectorStore(card, tmp_path).images([folder / name for name in names])
    assert rows.shape == (25, card.dim) and np.allclose((rows**2).sum(1), 1)


# ---------------------------------------------------------------- machine, statistics, turns


def test_the_machine_is_described_and_its_memory_seen():
    found = machine.describe()
    assert (
        found["cores"] >= 1
        and found["memory_gb"] > 0.5
        and found["processor"]
        and found["versions"]["torch"]
    )
    assert machine.slug({"processor": "AMD EPYC(tm) 9 ", "cores": 2}) == "amd-epyc-tm-9-2-cores"
    before, holds = (
        machine.memory(os.getpid()),
        "held = bytearray(60_000_000); print('ready', flush=True); input()",
    )
    with subprocess.Popen(
        [sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "ready\n" and before > 20
        assert machine.memory(child.pid) > 60 and machine.memory(os.getpid()) - before > 50
        child.stdin.write("\n")
    assert machine.memory(child.pid) == 0


def test_the_peak_takes_both_ways(monkeypatch):
    monkeypatch.setattr(machine, "SIDES", (64,))
    assert machine.peak("fp32") > 0
    monkeypatch.setattr(machine, "_side_by_side", lambda side, dtype: 1e9)
    assert machine.peak("fp32") == 1e9


TURNS = [
    {"seconds": {"plain": p, "ours": o}, "facts": {"rate": r, "names": [str(r)]}}
    for p, o, r in ((8, 2, 1), (9, 1, 3), (10, 5, 2))
]


def test_ratios_are_taken_within_a_turn():
    found = report.summarise(TURNS, "plain")
    assert found["ratios"] == {
        "ours": {"median": 4.0, "min": 2.0, "max": 9.0, "turns": 3}
    }  # of medians it would be 4.5
    assert (
        found["seconds"]["plain"]["median"] == 9
        and found["facts"]["rate"]["max"] == 3
        and found["facts"]["names"] == ["2"]
    )
    assert report.summarise(TURNS)["ratios"] == {}


def test_the_table_and_the_plot_show_what_was_found(tmp_path):
    facts = {
        "peak memory, 10 pictures (MB)": 5.0,
        "peak memory, 20 pictures (MB)": 5.1,
        "fit: R²": 1.0,
    }
    growth = [{"seconds": {"10 pictures": 1.0, "20 pictures": 2.0}, "facts": facts}]
    found = {"cold": report.summarise(TURNS, "plain"), "growth": report.summarise(growth)}
    text = report.table(machine.describe(), found)
    assert "ours: ratio" in text and "(2 to 9)" in text and "names: 2" in text
    report.plot(machine.describe(), found, tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").size[0] > 1000


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    ran = []

    def turn(name, fails=False):
        def run():
            ran.append(name)
            if fails and len(ran) == 4:
                raise KeyboardInterrupt
            return scenarios.Turn({"x": float(len(ran))})

        return run

    with pytest.raises(KeyboardInterrupt):
        command.collect({name: (turn(name, True), 1, tmp_path / name) for name in "ab"}, 2)
    assert ran == ["a", "b", "a", "b"]
    found = command.collect({name: (turn(name), 1, tmp_path / name) for name in "ab"}, 2)
    assert ran == ["a", "b", "a", "b", "b"] and [
        t["seconds"]["x"] for t in found["a"] + found["b"]
    ] == [1, 3, 2, 5]
    command.collect({name: (turn(name), 1, tmp_path / name) for name in "ab"}, 2, fresh=True)
    assert len(ran) == 9


def test_options_change_the_sizes():
    full = command.parse(["--items", "40", "--plain-every", "2"])
    assert command.sizes("cold", scenarios.SCENARIOS["cold"], full) == {
        "items": 40,
        "pictures": 340,
    }
    assert command.sizes("rows", scenarios.SCENARIOS["rows"], full) == {
        "items": 40,
        "plain_every": 2,
    }
    assert command.sizes("growth", scenarios.SCENARIOS["growth"], full)["pictures"] == (
        1000,
        8000,
        32000,
    )
    assert (
        max(
            command.sizes("growth", scenarios.SCENARIOS["growth"], command.parse(["--quick"]))[
                "pictures"
            ]
        )
        <= 1000
    )


def test_benchmarks_are_no_part_of_a_results_fingerprint():
    from tree import SOURCES

    assert command.Path(command.__file__).resolve() not in SOURCES


# ---------------------------------------------------------------- the plan for large sets


def test_the_slowest_part_decides_how_long_a_set_takes():
    one = capacity.hours(8_000_000, 1.0, "CLIP B/32", "T4", 1, 36.0)
    assert one == (pytest.approx(8e6 * 0.036 / 8 / 3600), "decoding")
    assert capacity.hours(8_000_000, 1.0, "CLIP B/32", "T4", 8, 36.0)[0] == pytest.approx(
        one[0] / 8
    )
    assert capacity.hours(1000, 36_000.0, "CLIP L/14", "A100", 8, 1.0) == (
        pytest.approx(20.0),
        "reading",
    )
    assert capacity.hours(1000, 0.0, "CLIP L/14", "T4", 1, 0.0) == (
        pytest.approx(1000 * 162.0 / (65_000 * 0.35) / 3600),
        "the network",
    )


def test_the_work_that_the_plan_supposes_is_what_is_counted():
    for key, name in (("clip-vit-b32", "CLIP B/32"), ("clipseg-rd64", "CLIPSeg, 352 px")):
        assert models.gflop(key) == pytest.approx(capacity.PATCH_GFLOP[name], rel=0.02)


def test_the_plan_in_the_docs_is_the_one_of_the_results():
    text = (ROOT / "docs" / "large-sets.md").read_text(encoding="utf-8")
    file, table = re.search(
        r"<!-- python -m benchmarks.capacity (\S+) -->\n(.*)\n<!-- end -->", text, re.S
    ).groups()
    assert table == capacity.tables(json.loads((ROOT / file).read_text()))
