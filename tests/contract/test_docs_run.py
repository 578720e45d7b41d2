"""The pages with code work as printed: their Python blocks run one after the other, their `vwsd`
lines through the real command line.
"""

import json
import re
import shlex

import pytest
from PIL import Image

from vwsd_companion import cli
from vwsdlib.paths import PACKAGE

ROOT = PACKAGE.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def play(page: str, answers: list[str], capsys) -> dict:
    """Run a page's blocks in order, Python in one namespace, commands of bare fences as typed;
    returns the namespace.
    """
    found = {"__name__": page}
    for kind, block in BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
        if kind == "python":
            exec(compile(block, page, "exec"), found)
        for line in block.splitlines() if not kind else ():
            code = cli.main(shlex.split(line, comments=True)[1:])
            out, err = capsys.readouterr()
            assert code == 0, f"{line}: {err}"
            answers.append(out)
    return found


@pytest.fixture
def here(own_folders, monkeypatch):
    monkeypatch.chdir(own_folders)
    return own_folders


def test_adding_a_technique(here, emojiwsd, capsys):
    answers = []
    found = play("adding-a-technique.md", answers, capsys)
    block = next(
        b
        for kind, b in BLOCK.findall(
            (ROOT / "docs" / "adding-a-technique.md").read_text(encoding="utf-8")
        )
        if "def contrast" in b
    )
    assert sum(bool(line.strip()) for line in block.splitlines()) < 20
    item, store = found["data"].items[0], found["store"]
    by_hand = [
        float(
            store.images([found["data"].path(c)])[0].astype(float)
            @ (
                store.texts([item.phrase])[0].astype(float)
                - 0.5 * store.texts([item.target])[0].astype(float)
            )
        )
        for c in item.candidates
    ]
    assert found["scores"]["contrast"].shape == (20, 10) and found["scores"]["contrast"][
        0
    ] == pytest.approx(by_hand)
    assert {p.name for p in (here / "results" / "mine" / "predictions").glob("*.jsonl")} == {
        "random.phrase.en.dev.jsonl",
        "random.contrast.en.dev.jsonl",
    }
    meta = json.loads(
        (here / "results" / "mine" / "predictions" / "random.contrast.en.dev.meta.json").read_text()
    )
    assert meta["weight"] == 0.5 and meta["limit"] == 20 and meta["variant"] == "contrast"
    assert "McNemar p" in answers[0] and "phrase.tsv" in answers[0]
    rows = {row["run"]: row for row in found["made"].rows}
    assert (
        rows["random.contrast.en.dev"]["p"]
        == found["difference"](found["runs"]["phrase"], found["runs"]["contrast"])["p"]
    )
    assert (
        "p" not in rows["random.phrase.en.dev"]
        and (here / "results" / "mine" / "tables" / "techniques.csv").exists()
    )
    assert cli.main(["report", "--profile", "mine"]) == 0
    ids = [
        json.loads(line)["id"]
        for line in (here / "results" / "mine" / "rows.jsonl").read_text().splitlines()
    ]
    assert "random.contrast.en.dev/hit@1" in ids


def test_adding_a_language(here, monkeypatch, capsys):
    from vwsdlib.language import translate

    monkeypatch.setattr(
        translate, "TRANSLATORS", dict(translate.TRANSLATORS)
    )  # the page adds a line
    answers = []
    found = play("adding-a-language.md", answers, capsys)
    assert (
        len(answers) == 3
        and "rarest" in answers[0]
        and "random" in answers[1]
        and "translated.tsv" in answers[2]
    )
    assert [item.language for item in found["data"].items] == ["de", "de"] and found["english"] == [
        "old castle on a hill",
        "lock with a key",
    ]
    assert (here / "results-mine" / "translations" / "by-hand.de.mine.jsonl").exists()
    again = found["translate"]("by-hand", [item.phrase for item in found["items"]], "de")
    assert again.replayed == 2 and list(again.texts_out) == found["english"]


def test_letters_without_a_glyph_would_be_seen():
    from matplotlib import font_manager

    letters = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    assert (
        ord("ق") in letters
        and ord("ß") in letters
        and ord("中") not in letters
        and ord("ก") not in letters
    )  # what the page's table says


def test_reading_results(here, monkeypatch, capsys):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", here / "datasets")
    (here / "results").symlink_to(ROOT / "results")
    answers = []
    found = play("results.md", answers, capsys)
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    told = [text for kind, text in BLOCK.findall(page) if kind == "text"]
    assert len(told) == 3
    for text, answer in zip(told, answers):  # of `vwsd why`, hashes of code left out
        pattern = re.escape(text).replace("…", ".*")
        assert re.fullmatch(pattern, answer), answer
    assert (
        len(found["rows"]) == len(found["table"]) == found["report"]["rows"]
        and len(found["items"]) == 502
    )
    assert found["lite"].num_rows % 502 == 0 and set(found["lite"].column_names) == set(
        found["items"].columns
    )
    row = found["rows"].set_index("id").loc["lite.phrase.en.test/hit@1"]
    assert row["value"] == pytest.approx(100 * (found["items"]["rank"] == 1).mean())
    assert found["both"].num_rows == 2 * 502 and sorted(
        p.name for p in (here / "exported").glob("*.*")
    ) == ["prediction.en.txt", "prediction.it.txt", "submission.zip"]
    assert {"only_a", "only_b", "p"} <= found["difference"](found["word"], found["phrase"]).keys()
    assert found["truth"]["pointing"].between(0, 1).all()


def test_a_page_whose_code_fails_would_be_seen(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    for text in (
        "```python\n1 / 0\n```\n",
        "```\nvwsd audit --data none.txt --gold none.txt\n```\n",
    ):
        (tmp_path / "docs" / "broken.md").write_text(text)
        with pytest.raises((ZeroDivisionError, AssertionError)):
            play("broken.md", [], capsys)


# ---------------------------------------------------------------- the errors that people meet first
# are on the page, by their very words


def page_messages() -> list[str]:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([^`]+)`", text.partition("## Words that are not ours")[0], re.M)


def explained(said: str) -> list[str]:
    """Quotations of the page that the words of an error fit; a dot stands for anything."""
    return [m for m in page_messages() if re.search(".+?".join(map(re.escape, m.split("…"))), said)]


def a_line_short(data, gold, images):
    gold.write_text("\n".join(gold.read_text().splitlines()[:-1]))


def shifted(data, gold, images):
    own = [
        [
            line.replace("image.", f"image.{i}")
            for i, line in enumerate(path.read_text().splitlines())
        ]
        for path in (data, gold)
    ]  # no picture in two items
    data.write_text("\n".join(own[0]))
    gold.write_text("\n".join([*own[1][:2], "image.99.png", *own[1][2:5]]))


def of_other_case(data, gold, images):
    gold.write_text(gold.read_text().replace("image.0.png", "image.0.PNG"))


def nine_names(data, gold, images):
    data.write_text(data.read_text().replace("\timage.9.png", "", 1))


def cut_short(data, gold, images):
    Image.effect_noise((256, 256), 80).save(images / "image.3.png")
    whole = (images / "image.3.png").read_bytes()
    (images / "image.3.png").write_bytes(whole[: len(whole) // 2])


def no_picture(data, gold, images):
    (images / "image.3.png").write_text("<html>Sign in</html>")


def elsewhere(data, gold, images):
    for picture in images.iterdir():
        picture.rename(picture.with_suffix(".PNG"))


SET, EVALUATE = (
    ("--data", "DATA", "--gold", "GOLD"),
    (
        "evaluate",
        "--data",
        "DATA",
        "--gold",
        "GOLD",
        "--images",
        "IMAGES",
        "--encoder",
        "random",
    ),
)


@pytest.mark.parametrize(
    "damage, arguments, words",
    [
        (a_line_short, ("audit", *SET), "… gold lines for … items"),
        (shifted, ("audit", *SET), "From here on the gold file is shifted by …"),
        (of_other_case, ("audit", *SET), "The candidate is spelled …"),
        (nine_names, ("audit", *SET), "… tab-separated fields, … expected"),
        (None, ("audit", "--data", "DATA", "--gold", "none.txt"), "no such file"),
        (cut_short, EVALUATE, "the picture is truncated: …"),
        (no_picture, EVALUATE, "not a picture (none of …): the file is …"),
        (elsewhere, EVALUATE, "none of the pictures is in the folder"),
        (None, (*EVALUATE[:-1], "lit"), "no encoder named …"),
        (None, (*EVALUATE[:-1], "lite@bf16"), "… has no variant …"),
        (None, (*EVALUATE, "--text", "prompt"), "no text variant …"),
        (None, (*EVALUATE[:-1], "clip-vit-b32"), "the checkpoint … is not here"),
        (None, ("run", "--set", "encodr=lite"), "unknown parameter '…'"),
        (None, ("run", "--set", "seed=one"), "parameter '…' takes …, not …"),
        (None, ("run", "--profile", "papers"), "unknown profile '…'"),
        (None, ("run", "--only", "2_clip"), "unknown notebook '…'"),
        (None, ("report",), "nothing is stored for this profile"),
        (None, ("score", *SET, "DATA"), "not a ranking of the ten candidates of …"),
        (None, ("score", *SET, "GOLD"), "not a ranking of the ten candidates of …"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else getattr(value, "__name__", None),
)
def test_a_first_error_is_explained(damage, arguments, words, official, here, monkeypatch, capsys):
    monkeypatch.setenv("VWSD_MODELS", str(here / "models"))
    if damage:
        damage(*official)
    places = dict(zip(("DATA", "GOLD", "IMAGES"), official))
    code = cli.main([str(places.get(a, a)) for a in arguments])
    said = capsys.readouterr().err
    assert code == 2 and words in explained(said), said


def test_a_full_disk_is_explained(official, here, monkeypatch, capsys):
    import errno
    import os

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    arguments = [
        *(str(dict(zip(("DATA", "GOLD", "IMAGES"), official)).get(a, a)) for a in EVALUATE),
        "--out",
        "scores.tsv",
    ]
    assert cli.main(arguments) == 0
    (here / "scores.tsv").unlink()
    monkeypatch.setattr(os, "replace", full)
    assert cli.main(arguments) == 2 and "cannot write the file: …" in explained(
        capsys.readouterr().err
    )
    assert not (here / "scores.tsv").exists()


def test_an_error_that_the_page_does_not_have_would_be_seen():
    assert explained("vwsd rank: the moon is full [here].") == []
