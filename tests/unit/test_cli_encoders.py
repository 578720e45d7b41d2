"""evaluate, rank and encode on a user's own pictures: whatever lies there is found or named, and
each text says what it is made of.
"""

import json
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from vwsd_companion import cli
from vwsdlib.analysis.scorers import all_numbers, cosine_scores, texts_of
from vwsdlib.analysis.text_files import definitions_of
from vwsdlib.data.hf import to_dataset
from vwsdlib.data.items import Item
from vwsdlib.data.sets import load_set, user_set
from vwsdlib.encoders.control import RandomEncoder
from vwsdlib.encoders.readable import language_notes
from vwsdlib.encoders.store import VectorStore
from vwsdlib.errors import VwsdError


def run(capsys, *arguments):
    code = cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def evaluate(official, own_folders, capsys):
    """`vwsd evaluate` of the toy set with the control: (code, out, err)."""

    def command(*more, images=official[2], gold=True):
        given = ("--gold", official[1]) if gold else ()
        return run(
            capsys,
            "evaluate",
            "--data",
            official[0],
            *given,
            "--images",
            images,
            "--encoder",
            "random",
            *more,
        )

    return command


# ---------------------------------------------------------------- one rule for pictures


def moved(folder, tmp_path):
    """The same pictures in subfolders, and packed in four ways."""
    deep = tmp_path / "deep" / "a" / "b"
    shutil.copytree(folder, deep)
    with (
        tarfile.open(tmp_path / "set-0.tar", "w") as plain,
        tarfile.open(tmp_path / "p.tar.gz", "w:gz") as squeezed,
        zipfile.ZipFile(tmp_path / "p.zip", "w") as z,
    ):
        for path in sorted(folder.iterdir()):
            (
                plain.add(path, f"x/{path.name}"),
                squeezed.add(path, path.name),
                z.write(path, f"y/{path.name}"),
            )
    return [
        tmp_path / "deep",
        tmp_path / "set-*.tar",
        tmp_path / "p.tar.gz",
        tmp_path / "p.zip",
        f"file://{folder}",
    ]


def test_the_figures_are_the_same_wherever_the_pictures_lie(evaluate, official, tmp_path):
    plain = json.loads(evaluate("--json")[1])
    for place in moved(official[2], tmp_path):
        assert json.loads(evaluate("--json", images=place)[1]) == plain, place


def test_names_with_subfolders_are_found(evaluate, official):
    data, gold, images = official
    plain = json.loads(evaluate("--json")[1])["systems"]
    for path in list(images.iterdir()):
        part = images / str(len(path.name))
        part.mkdir(exist_ok=True)
        path.rename(part / path.name)
    for path in (data, gold):
        names = {f"image.{i}.png": f"{len(f'image.{i}.png')}/image.{i}.png" for i in range(12)}
        lines = [
            [names.get(field, field) for field in line.split("\t")]
            for line in path.read_text().splitlines()
        ]
        path.write_text("".join("\t".join(fields) + "\n" for fields in lines))
    assert json.loads(evaluate("--json")[1])["systems"] == plain


def test_a_name_with_two_pictures_stops_by_name(evaluate, official):
    (official[2] / "a").mkdir(), (official[2] / "b").mkdir()
    (official[2] / "image.3.png").rename(official[2] / "a" / "image.3.png")
    Image.new("RGB", (3, 3)).save(official[2] / "b" / "image.3.png")
    code, _, err = evaluate()
    assert (
        code == 2
        and "image.3.png stands in 2 places with different pictures" in err
        and err.count("\n") == 1
    )
    (official[2] / "image.3.png").write_bytes((official[2] / "a" / "image.3.png").read_bytes())
    code, _, err = evaluate()
    assert (
        code == 0
        and "note: 1 names stand for other pictures further below as well"
        " (image.3.png for b/image.3.png"
        in err.replace("a/image", "b/image")
    )


def test_encode_counts_what_it_leaves_out(official, own_folders, capsys):
    images = official[2]
    (images / "image.0.png").rename(images / "image.0.jfif")
    (images / "image.1.png").rename(images / "no ending")
    (images / "notes.txt").write_text("words")
    (images / "page.jpg").write_text("<html>404</html>")
    code, out, err = run(capsys, "encode", images, "--encoder", "random", "--json")
    found = json.loads(out)
    assert code == 0 and found["pictures"] == 12 and found["left_out"] == 2
    assert (
        err
        == f"note: 2 files of {images} are left out: 1 text (notes.txt); 1 a web page (page.jpg)\n"
    )
    assert run(capsys, "encode", images, "--encoder", "random", "--drift", "0")[0] == 0


@pytest.mark.parametrize("number", ["-1", "1.5", "x", "１"])
def test_odd_numbers_are_refused(official, own_folders, capsys, number):
    with pytest.raises(SystemExit) as e:
        cli.main(["encode", str(official[2]), "--encoder", "random", f"--drift={number}"])
    assert e.value.code == 2


def test_datasets_of_archives_and_urls_hold_the_pictures(official, tmp_path):
    (official[2] / "image.3.png").unlink()
    for place in moved(official[2], tmp_path):
        row = to_dataset(user_set(*official[:2], place))[0]
        assert (
            row["label"] == 0
            and row["images"][0].getpixel((0, 0)) == (0, 255, 90)
            and row["images"][3] is None
        ), place


# ---------------------------------------------------------------- rank


def test_rank_takes_whatever_holds_pictures(official, own_folders, capsys, tmp_path):
    names = sorted(path.name for path in official[2].iterdir())
    for place in (official[2], *moved(official[2], tmp_path)):
        code, out, _ = run(capsys, "rank", "a phrase", place, "--encoder", "random", "--json")
        order = json.loads(out)["ranking"]
        assert (
            code == 0
            and sorted(entry["image"].partition("::")[0].rpartition("/")[2] for entry in order)
            == names
        )
    code, _, err = run(capsys, "rank", "x", "https://example.org/a.jpg", "--encoder", "random")
    assert code == 2 and "https://example.org/a.jpg" in err  # no slash is lost


def test_rank_of_many_phrases_is_that_of_each(official, own_folders, capsys, tmp_path):
    (tmp_path / "phrases.txt").write_text("fruit bat\nbaseball bat\n")
    pictures = sorted(official[2].iterdir())[:4]
    alone = [
        json.loads(run(capsys, "rank", phrase, *pictures, "--encoder", "random", "--json")[1])[
            "ranking"
        ]
        for phrase in ("fruit bat", "baseball bat")
    ]
    expected = {
        "rankings": [
            {"phrase": phrase, "ranking": order}
            for phrase, order in zip(("fruit bat", "baseball bat"), alone)
        ]
    }
    for arguments in (
        ["--phrases", tmp_path / "phrases.txt", *pictures],
        [*pictures, "--phrases", tmp_path / "phrases.txt"],
    ):
        assert (
            json.loads(run(capsys, "rank", *arguments, "--encoder", "random", "--json")[1])
            == expected
        )
    table = run(
        capsys, "rank", "--phrases", tmp_path / "phrases.txt", official[2], "--encoder", "random"
    )[1]  # one place is enough
    assert [part.splitlines()[0] for part in table.split("\n\n")] == ["fruit bat", "baseball bat"]
    assert (
        json.loads(run(capsys, "rank", "fruit bat", "--encoder", "random", *pictures, "--json")[1])[
            "ranking"
        ]
        == alone[0]
    )
    for content, said in (("", "no phrase in the file"), ("a\n\nb\n", "an empty line")):
        (tmp_path / "phrases.txt").write_text(content)
        code, _, err = run(
            capsys, "rank", "--phrases", tmp_path / "phrases.txt", *pictures, "--encoder", "random"
        )
        assert code == 2 and said in err


def test_rank_puts_words_around_the_phrase(official, own_folders, capsys):
    def order(*arguments):
        return json.loads(
            run(capsys, "rank", *arguments, official[2], "--encoder", "random", "--json")[1]
        )

    assert order("bat", "--text", "a photo of {phrase}") == order("a photo of bat") != order("bat")
    assert order("bat", "--text", "this_is") == order("This is bat.")
    assert order("bat", "--definition", "An Animal that flies") == order(
        "bat, an animal that flies"
    )


def test_verbose_names_the_loaders_decisions(official, own_folders, capsys):
    Image.new("RGBA", (8, 8), (255, 0, 0, 100)).save(official[2] / "image.0.png")
    Image.new("L", (8, 8), 3).save(official[2] / "image.1.png")
    for _ in range(2):  # also of pictures whose vectors are known
        _, _, err = run(capsys, "rank", "x", official[2], "--encoder", "random", "--verbose")
        assert (
            "note: 1 of 12 pictures: grey-to-rgb. Grey became RGB." in err
            and "1 of 12 pictures: alpha-over-white" in err
            and "image.0.png" in err
        )
    assert (
        "taken as they are stored"
        in run(capsys, "encode", official[2] / "image.2.png", "--encoder", "random", "--verbose")[2]
    )


def test_languages_that_an_encoder_does_not_read_are_told():
    assert (
        language_notes("lite", "en", ["x"])
        == []
        == language_notes("lite", None, ["x"])
        == language_notes("siglip2-base", "fa", ["x"])
    )
    assert "lite does not read Italian" in language_notes("lite", "it", ["x"])[0]
    assert (
        "lite-multilingual does not read Farsi"
        in language_notes("lite-multilingual", "fa", ["x"])[0]
    )
    assert language_notes("siglip2-base@quick", "fa", ["\u0643\u062a\u0627\u0628", "\u06a9"])[
        0
    ].startswith("1 of 2 texts holds yeh or kaf of an Arabic keyboard")


# ---------------------------------------------------------------- evaluate without gold, and its
# texts


def test_without_gold_scores_and_a_submission_are_written(evaluate, official, capsys, tmp_path):
    assert evaluate("--out", tmp_path / "with.tsv", "--json")[0] == 0
    code, out, _ = evaluate(
        "--out", tmp_path / "s.tsv", "--submission", tmp_path / "sub", gold=False
    )
    assert code == 0 and "hit@1" not in out and out.count("written  ") == 3
    read = [
        np.loadtxt(tmp_path / name, delimiter="\t", skiprows=1, usecols=range(4, 14))
        for name in ("with.tsv", "s.tsv")
    ]
    assert np.array_equal(*read)
    scored = [
        json.loads(
            run(capsys, "score", "--data", official[0], "--gold", official[1], path, "--json")[1]
        )["systems"][0]
        for path in (tmp_path / "s.tsv", tmp_path / "sub" / "prediction.en.txt")
    ]
    assert scored[0]["k"] == scored[1]["k"] and scored[0]["mrr"] == scored[1]["mrr"]
    found = json.loads(evaluate("--out", tmp_path / "s.tsv", "--json", gold=False)[1])
    assert found["systems"] == [] and found["written"] == [str(tmp_path / "s.tsv")]
    code, _, err = evaluate(gold=False)
    assert code == 2 and "without --gold there is nothing to print" in err


ITEM = Item("x.0", "en", "bat", "fruit bat", ())


@pytest.mark.parametrize(
    "variant, text",
    [
        ("word", "bat"),
        ("phrase", "fruit bat"),
        ("this_is", "This is fruit bat."),
        ("a photo of {phrase}", "a photo of fruit bat"),
        ("{word}: {phrase} ({target})", "bat: fruit bat (bat)"),
        ("{{{word}}}", "{bat}"),
    ],
)
def test_texts_by_name_and_by_template(variant, text):
    assert texts_of([ITEM], variant) == [text]
    assert texts_of([ITEM], variant, None, {"x.0": "An Animal."}) == [
        f"{text}, an animal."
    ] and texts_of([ITEM], variant, None, {"x.0": " "}) == [text]


@pytest.mark.parametrize(
    "variant",
    [
        "pharse",
        "a {",
        "}",
        "{}",
        "{phrase!r}",
        "{phrase:>9}",
        "{phrase.__class__}",
        "{0}",
        "{gold}",
        "{{phrase}}",
    ],
)
def test_a_template_that_is_none_is_refused(variant):
    with pytest.raises(VwsdError, match="text variant|template"):
        texts_of([ITEM], variant)


def test_definitions_and_translations_are_put_into_the_texts(evaluate, official, tmp_path):
    ids = [f"en.toy.{i}" for i in range(6)]
    (tmp_path / "d.txt").write_text("".join(f"Meaning {i}\n" for i in range(5)) + "\n")
    (tmp_path / "d.jsonl").write_text(
        "".join(
            json.dumps({"id": i, "definition": f"Meaning {i[-1]}" if i != ids[5] else ""}) + "\n"
            for i in reversed(ids)
        )
    )
    texts = {i: f"a b{i} thing" for i in ids}
    (tmp_path / "t.jsonl").write_text(
        "".join(
            json.dumps({"id": i, "phrase_en": texts[i], "target_en": "thing"}) + "\n" for i in ids
        )
    )
    plain = json.loads(evaluate("--json")[1])
    for name in ("d.txt", "d.jsonl"):
        code, out, err = evaluate(
            "--definitions", tmp_path / name, "--out", tmp_path / f"{name}.tsv", "--json"
        )
        assert (
            code == 0
            and json.loads(out).keys() == plain.keys()
            and "note: 5 of 6 texts have a definition behind them" in err
        )
    assert (tmp_path / "d.txt.tsv").read_text() == (tmp_path / "d.jsonl.tsv").read_text()
    assert (
        evaluate(
            "--translations",
            tmp_path / "t.jsonl",
            "--text",
            "{word}: {phrase}",
            "--out",
            tmp_path / "t.tsv",
        )[0]
        == 0
    )
    data = user_set(*official)
    expected = cosine_scores(
        data, VectorStore(RandomEncoder(), tmp_path / "v"), [f"thing: {texts[i]}" for i in ids]
    )
    assert np.allclose(
        np.loadtxt(tmp_path / "t.tsv", delimiter="\t", skiprows=1, usecols=range(4, 14)),
        expected,
        atol=0,
        rtol=0,
    )


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("d.txt", "one\ntwo\n\n\n\n\n\n\nnine\n", "9 lines for 6 items"),
        ("d.txt", "", "empty"),
        ("d.jsonl", '{"id": "en.toy.0", "definition": "x"}\n', "5 of 6 items have no line"),
        (
            "d.jsonl",
            "".join(f'{{"id": "en.toy.{i}", "definition": "x"}}\n' for i in (0, 1, 2, 3, 4, 5, 9)),
            "1 of 7 lines belong to no item",
        ),
        (
            "d.jsonl",
            "".join(f'{{"id": "en.toy.{i}", "definition": "x"}}\n' for i in (0, 1, 2, 3, 4, 5, 5)),
            "stands twice",
        ),
        ("d.jsonl", "{", "no line of JSON"),
        ("d.jsonl", "[1]\n", "no object with id and definition"),
        ("d.jsonl", '{"id": 1, "definition": "x"}\n', "no object with id and definition"),
    ],
)
def test_definitions_that_do_not_fit_are_named(evaluate, tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    code, _, err = evaluate("--definitions", tmp_path / name)
    assert code == 2 and said in err and name in err


def test_a_plain_translation_has_no_word_of_its_own(evaluate, tmp_path):
    (tmp_path / "t.txt").write_text("".join(f"thing {i}\n" for i in range(6)))
    assert evaluate("--translations", tmp_path / "t.txt")[0] == 0
    code, _, err = evaluate("--translations", tmp_path / "t.txt", "--text", "word")
    assert code == 2 and "has no word of its own" in err


def test_definitions_that_are_the_golds_glosses_are_refused(tmp_path, emojiwsd):
    from vwsd_standins.emojiwsd.senses import senses
    from vwsdlib.data.sets import key

    data = load_set("emojiwsd", "en", "dev").head(3)
    glosses, shown = {sense.id: sense.gloss for sense in senses()}, key(data.images)
    lines = [
        {"id": item.id, "definition": glosses[shown[item.gold]["sense"]].upper()}
        for item in data.items
    ]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(VwsdError, match="is its gold gloss"):
        definitions_of(tmp_path / "d.jsonl", data)


# ---------------------------------------------------------------- NaN


def test_a_nan_is_no_answer(official, own_folders, tmp_path):
    class Diverged(RandomEncoder):
        def encode_texts(self, texts):
            return super().encode_texts(texts) * np.float32(1e38) * np.float32(1e38)

    with pytest.raises(VwsdError, match="no numbers"):
        cosine_scores(user_set(*official), VectorStore(Diverged(), tmp_path / "v"), ["x"] * 6)
    with pytest.raises(VwsdError, match="1 of 3 scores are no numbers"):
        all_numbers(np.array([0.0, np.nan, -np.inf]), "here")
    assert all_numbers(np.array([0.0, -np.inf]), "here").shape == (2,)


def test_an_encoder_that_tells_nothing_apart_is_refused_unless_ties_are_allowed(
    official, own_folders, monkeypatch, capsys
):
    data, gold, images = official
    one_vector = np.eye(1, RandomEncoder.dim, dtype=np.float32)
    monkeypatch.setattr(
        RandomEncoder,
        "encode_images",
        lambda self, pictures: np.repeat(one_vector, len(pictures), axis=0),
    )
    asked = ("evaluate", "--data", data, "--gold", gold, "--images", images, "--encoder", "random")
    code, _, err = run(capsys, *asked)
    assert code == 2 and "all ten scores are equal" in err and "--allow-ties" in err
    code, out, err = run(capsys, *asked, "--allow-ties", "--json")
    assert (
        code == 0
        and "a tie decides 6 of 6 items" in err
        and json.loads(out)["systems"][0]["ties"] == 6
    )


def test_definitions_that_lack_a_line_are_refused_and_empty_ones_at_the_end_count(
    official, own_folders, capsys
):
    data, gold, images = official
    asked = (
        "evaluate",
        "--data",
        data,
        "--gold",
        gold,
        "--images",
        images,
        "--encoder",
        "random",
        "--definitions",
    )
    short, whole = own_folders / "short.txt", own_folders / "whole.txt"
    short.write_text("a\nb\n")
    whole.write_text("a\nb\n\n\n\n\n")
    code, _, err = run(capsys, *asked, short)
    assert code == 2 and "2 lines for 6 items" in err
    code, _, err = run(capsys, *asked, whole)
    assert code == 0 and "2 of 6 texts have a definition" in err


def test_a_pipe_in_place_of_a_text_is_not_waited_for(official, own_folders, capsys):
    import os

    os.mkfifo(own_folders / "pipe")
    code, _, err = run(
        capsys,
        "rank",
        "--phrases",
        own_folders / "pipe",
        official[2] / "image.0.png",
        "--encoder",
        "random",
    )
    assert code == 2 and "named pipe, which is not opened" in err


@pytest.mark.parametrize(
    "arguments",
    [("encode", ""), ("rank", "x", ""), ("evaluate", "--data", "d", "--gold", "g", "--images", "")],
)
def test_an_empty_place_is_not_the_working_folder(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        run(capsys, *arguments)
    assert ended.value.code == 2 and "the path is empty" in capsys.readouterr().err
