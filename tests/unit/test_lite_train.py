"""How the lite encoder's head is trained: what takes part, the loss, the same bits again."""

import json
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from vwsd_standins import lite, text_tower
from vwsd_standins.emojiwsd.drawings import STYLES, drawable
from vwsd_standins.emojiwsd.senses import sense_emoji
from vwsd_standins.lite import drawings, train
from vwsd_standins.lite.names import code, names_of_senses, squeezed
from vwsdlib.analysis.metrics import wilson
from vwsdlib.errors import VwsdError
from vwsdlib.paths import root

HEAD_PARTS = (
    "centre classes mean deviation gate first.weight first.bias second.weight second.bias".split()
)
BAT, GIRAFFE = "🦇", "🦒"
FEW = train.Recipe(views=2, width=8, steps=6, batch=12, strange=3.0)


def emoji_set(**names: str) -> dict:
    """An emoji set as @iconify/json has it: {name: code points}."""
    icons = {name: {"body": "<path/>"} for name in names}
    return {"icons": icons, "chars": {points: name for name, points in names.items()}}


def taken(rows: dict, *others: dict) -> list[str]:
    codes = drawings._codes_by_id({"it": rows, **{str(i): one for i, one in enumerate(others)}})
    return [one.id for one in drawings._emoji("noto", rows, codes)]


def test_no_emoji_of_a_sense_is_taken_by_code_point_or_by_name():
    assert BAT in sense_emoji() and GIRAFFE not in sense_emoji()
    rows = emoji_set(anything=code(BAT), giraffe=code(GIRAFFE))
    assert taken(rows) == ["giraffe"]
    assert taken(emoji_set(bat=code(GIRAFFE))) == []  # its name is a sense's


def test_an_emoji_whose_code_point_nobody_states_is_not_taken():
    unknown = {"icons": {"giraffe": {"body": ""}, "something": {"body": ""}}}
    assert taken(unknown) == []
    assert taken(unknown, emoji_set(giraffe=code(GIRAFFE))) == ["giraffe"]


def test_aliases_count_as_names():
    rows = emoji_set(grey=code(GIRAFFE)) | {"aliases": {"bat": {"parent": "grey"}}}
    assert taken(rows) == []


def test_the_own_emoji_are_in_no_sense_and_no_variant_of_one():
    own = list(drawings._own_emoji())
    secret = {code(emoji) for emoji in sense_emoji()}
    assert len(own) > 2000 and {one.source for one in own} == set(STYLES)
    assert not [one for one in own if one.id in secret]


def test_names_of_variants_and_aliases_are_known():
    assert {squeezed(name) for name in ("bat", "mouse", "computer mouse")} <= names_of_senses()
    assert squeezed(drawable()[GIRAFFE].name) not in names_of_senses()


def test_the_strict_rule_leaves_out_names_with_a_senses_name_in_them():
    names = ("vampire bat", "two bats", "acrobatics", "giraffe")
    some = [drawings.Named("game-icons", name, name, name, "") for name in names]
    assert [one.name for one in drawings.strict(some)] == ["acrobatics", "giraffe"]


def test_icons_are_named_by_what_they_show():
    icons = {name: {"body": ""} for name in ("steel-door-2", "arrow-up", "fire-fill", "x-1")}
    rows = {"icons": icons, "categories": {"BuildingParts": ["steel-door-2"]}}
    made = {one.id: one for one in drawings._icons("game-icons", rows, {})}
    assert set(made) == {"steel-door-2", "fire-fill"}
    assert made["steel-door-2"].name == "steel door"
    assert made["steel-door-2"].more == "steel door, Building Parts"
    assert made["fire-fill"].name == "fire"


def test_titles_lose_who_drew_them():
    svg = "<dc:title>Dog 06 architetto</dc:title><dc:subject><rdf:li>pet_dog</rdf:li></dc:subject>"
    assert drawings._title(svg, "x") == "dog" and drawings._subjects(svg) == ["pet dog"]
    assert drawings._title("<dc:title>Untitled</dc:title>", "red_car-02") == "red car"


def test_a_package_that_is_missing_or_another_is_said_with_how_to_get_it(tmp_path, capsys):
    with pytest.raises(VwsdError, match="is missing") as missing:
        drawings.source_file(tmp_path, "iconify")
    assert "npm pack" in str(missing.value)
    (tmp_path / drawings.SOURCES["packages"]["iconify"]["file"]).write_bytes(b"other")
    with pytest.raises(VwsdError, match="is not the one"):
        drawings.source_file(tmp_path, "iconify")
    assert train.main(["--sources", str(tmp_path)]) == 2
    assert "npm pack" in capsys.readouterr().err


def test_every_set_has_a_licence_that_lets_weights_be_shipped():
    allowed = {"MIT", "Apache-2.0", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0"}
    assert {about["licence"] for about in drawings.SOURCES["sets"].values()} <= allowed
    assert all(about["by"] for about in drawings.SOURCES["sets"].values())


def test_drawings_are_over_white_and_empty_ones_are_left_out():
    def drawn(body):
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8">{body}</svg>'
        return drawings.render(drawings.Named("noto", "a", "a", "a", svg), 64)

    picture = drawn('<rect width="8" height="8" fill="red"/>')
    assert picture.size == (64, 64) and picture.getpixel((0, 0)) == (255, 255, 255)
    assert picture.getpixel((32, 32)) == (255, 0, 0)
    assert drawn("") is None and drawn("<broken") is None


def test_a_varied_view_is_the_same_again_over_white():
    picture = drawings.render(next(drawings._own_emoji()), 64)
    first, again, other = (drawings.varied(picture, Random(n)) for n in ("a:1", "a:1", "a:2"))
    assert first.tobytes() == again.tobytes() != other.tobytes() and first.size == (64, 64)
    blank = drawings.varied(Image.new("RGB", (64, 64), "white"), Random(0))
    assert blank.getextrema() == ((255, 255),) * 3


# ---------------------------------------------------------------- training


@pytest.fixture(scope="module")
def towers():
    return lite.Towers()


@pytest.fixture(scope="module")
def pairs():
    dice = torch.Generator().manual_seed(0)
    summaries = torch.rand(2, 40, lite.SUMMARY, generator=dice).half()
    names = torch.nn.functional.normalize(torch.randn(20, text_tower.DIM, generator=dice), dim=-1)
    number = torch.arange(40) // 2
    return train.Pairs(summaries, names[number], names[number], number, torch.ones(40))


def test_training_again_gives_the_same_bits_and_another_seed_others(pairs, towers):
    first, again = train.train(pairs, towers, FEW), train.train(pairs, towers, FEW)
    other = train.train(pairs, towers, train.Recipe(**(vars(FEW) | {"seed": 1})))
    assert lite.head_digest(first) == lite.head_digest(again) != lite.head_digest(other)


def test_a_trained_head_is_whole_and_in_half_precision(pairs, towers):
    head = train.train(pairs, towers, FEW)
    assert set(head) == set(HEAD_PARTS)
    assert all(torch.equal(part, part.half().float()) for part in head.values())
    assert head["gate"][2] == FEW.strange
    expected = pairs.names.reshape(20, 2, -1)[:, 0].mean(0)
    torch.testing.assert_close(head["centre"], expected.half().float())


def test_the_loss_equals_its_naive_twin():
    dice = np.random.default_rng(0)
    v, t = dice.normal(size=(2, 5, 8))
    v, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (v, t))
    number = np.array([0, 1, 0, 2, 3])
    t[2], t[4] = t[0], t[1]  # one by number, one by being alike
    total = 0.0
    for a, b in ((v, t), (t, v)):
        for i in range(5):
            logits = [a[i] @ b[j] / 0.1 for j in range(5)]
            right = [j for j in range(5) if number[i] == number[j] or t[i] @ t[j] > train.ALIKE]
            whole = np.log(sum(np.exp(logits)))
            total += sum(whole - logits[j] for j in right) / len(right) / 5 / 2
    given = (torch.from_numpy(v), torch.from_numpy(t), torch.from_numpy(number))
    assert float(train.contrastive(*given, 0.1)) == pytest.approx(total)


def test_ranks_are_counted_against_the_gold(emojiwsd):
    class Blind:
        def encode_images(self, images):
            return np.zeros((len(images), 4), np.float32)

        def encode_texts(self, texts):
            return np.zeros((len(texts), 4), np.float32)

    assert set(train.ranks(Blind(), "dev", "word")) == {10}  # a tie is no hit
    assert train.hit([1, 10]) == "50.0 % of 2"


# ---------------------------------------------------------------- what is told of it


def lines() -> list[dict]:
    return [json.loads(line) for line in train.TRIED.read_text(encoding="utf-8").splitlines()]


def figure(ranked: list[int]) -> str:
    return f"{100 * np.mean(np.array(ranked) == 1):.1f}"


def test_the_shipped_head_is_the_first_line_of_what_was_tried():
    first = lines()[0]
    recipe = train.Recipe(**first["recipe"])
    assert recipe == train.Recipe() and len(first["test phrase"]) == 502
    head = lite.read_head()
    assert head["first.weight"].shape[0] == recipe.width
    assert float(head["gate"][2]) == recipe.strange


def test_the_model_card_tells_what_was_tried(card):
    table = [
        row
        for row in card
        if row.count("|") == 5 and row.split("|")[2].strip().replace(",", "").isdigit()
    ]
    told = [tuple(cell.strip() for cell in row.split("|")[2:5]) for row in table]
    made = [
        (f"{line['drawings']:,}", figure(line["dev phrase"]), figure(line["dev word"]))
        for line in lines()
    ]
    assert told == made


def test_the_model_card_tells_what_both_editions_reach(card):
    told = [row.split("|")[1:6] for row in card if row.count("|") == 6 and "502" in row]
    made = []
    for edition, line in zip(("plain, as shipped", "strict"), lines()):
        for name, ranked in (("bare word", line["test word"]), ("phrase", line["test phrase"])):
            right = ranked.count(1)
            low, high = (f"{end:.1f}" for end in wilson(right, 502))
            share = f"{100 * right / 502:.2f}"
            made.append([name, edition, share, f"{low}–{high}", "502"])
    assert [[cell.strip() for cell in row] for row in told] == made


def test_a_debian_package_needs_its_tool(tmp_path, monkeypatch):
    monkeypatch.setattr(drawings.shutil, "which", lambda name: None)
    with pytest.raises(VwsdError, match="dpkg-deb"):
        drawings._unpacked(tmp_path / "a.deb")
    (tmp_path / "openclipart").mkdir()
    assert drawings._unpacked(tmp_path / "a.deb") == tmp_path / "openclipart"


@pytest.fixture
def card() -> list[str]:
    return (root() / "docs" / "lite-encoder.md").read_text(encoding="utf-8").splitlines()
