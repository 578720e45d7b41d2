"""Every trap of the official files: read through, or stopped with file, line and remedy."""

import json
from dataclasses import replace

import pytest

from vwsdlib.data import sets
from vwsdlib.data.items import (
    language_for,
    language_note,
    missing_pictures,
    normalise,
    read_items,
    write_items,
)
from vwsdlib.data.letters import first_difference
from vwsdlib.errors import VwsdError


def edit(path, change):
    path.write_bytes(change(path.read_bytes()))


def test_reads_what_is_there(official):
    items = read_items(*official[:2])
    assert [i.id for i in items] == [f"en.toy.{n}" for n in range(6)]
    assert (
        items[2].target == "word2"
        and items[2].phrase == "word2 thing"
        and items[2].gold_index == 2
        and items[2].language == "en"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.replace(b"\n", b"\r\n"),
        lambda b: b"\xef\xbb\xbf" + b,
        lambda b: b + b"\n\n",
        lambda b: b.rstrip(b"\n"),
    ],
    ids=["windows line ends", "byte order mark", "blank lines at the end", "no last line end"],
)
def test_harmless_differences_change_nothing(official, change):
    before = read_items(*official[:2])
    for path in official[:2]:
        edit(path, change)
    assert read_items(*official[:2]) == before


def test_text_keeps_its_invisible_characters_and_compares_without_them(official):
    edit(
        official[0],
        lambda b: b.replace(b"word0\tword0 thing", "برنج\u200e\tفلز\u2028 برنج".encode()),
    )
    item = read_items(*official[:2])[0]
    assert item.target == "برنج\u200e" and item.phrase == "فلز\u2028 برنج"
    assert normalise(item.target) == "برنج" and normalise("می\u200cخواهم") == normalise("میخواهم")


def refused(official, words, *more):
    with pytest.raises(VwsdError) as e:
        read_items(*official[:2])
    for word in (words, *more):
        assert word in str(e.value), str(e.value)
    assert e.value.remedy


def test_short_gold(official):
    edit(official[1], lambda b: b.split(b"\n", 1)[1])
    refused(official, "5 gold lines for 6 items", "en.toy.gold.txt")


def test_shifted_gold_is_called_shifted_and_the_line_named(official):
    edit(
        official[0],
        lambda b: b"\n".join(
            line.replace(b"image.", b"image.%d" % i) for i, line in enumerate(b.split(b"\n"))
        ),
    )
    edit(
        official[1],
        lambda b: b"\n".join(
            line.replace(b"image.", b"image.%d" % i) for i, line in enumerate(b.split(b"\n"))
        ),
    )
    edit(
        official[1],
        lambda b: (
            b"\n".join([*(lines := b.split(b"\n"))[:2], b"image.99.png", *lines[2:5]]) + b"\n"
        ),
    )
    refused(official, "gold.txt:3", "shifted")


def test_gold_of_other_case_names_the_candidate(official):
    edit(official[1], lambda b: b.replace(b"image.0.png", b"image.0.PNG"))
    refused(official, "gold.txt:1", "spelled 'image.0.png'")


def test_gold_not_among_candidates(official):
    edit(official[1], lambda b: b.replace(b"image.0.png", b"image.77.png"))
    refused(official, "gold.txt:1", "not among the candidates", "1 of 6 lines")


def test_duplicate_candidate(official):
    edit(
        official[0],
        lambda b: b.replace(b"image.5.png\timage.6.png", b"image.5.png\timage.5.png", 1),
    )
    refused(official, "stands twice", "data.txt:1")


def test_nine_candidates(official):
    edit(official[0], lambda b: b.replace(b"\timage.9.png", b"", 1))
    refused(official, "11 tab-separated fields", "data.txt:1")


def test_empty_phrase(official):
    edit(official[0], lambda b: b.replace(b"word3 thing", b" "))
    refused(official, "an empty field", "data.txt:4")


def test_not_utf8_names_the_line(official):
    edit(official[0], lambda b: b.replace(b"word3 thing", b"word3 th\xe9ing"))
    refused(official, "not UTF-8", "data.txt:4")


def test_missing_file_lists_the_neighbours(official):
    with pytest.raises(VwsdError, match="en.toy.gold.txt"):
        read_items(official[0].with_name("nothing.txt"))


def test_empty_file(official):
    official[0].write_text("\n")
    refused(official, "empty", "data.txt")


def test_missing_pictures_are_named_and_case_counts(official):
    items = read_items(*official[:2])
    (official[2] / "image.3.png").rename(official[2] / "IMAGE.3.PNG")
    missing = missing_pictures(items, official[2])
    assert missing["en.toy.0"] == ["image.3.png"] and set(missing) == {
        i.id for i in items if "image.3.png" in i.candidates
    }
    with pytest.raises(VwsdError, match="no such folder"):
        missing_pictures(items, official[2] / "none")


def test_written_items_read_back_the_same(official, tmp_path):
    items = read_items(*official[:2])
    write_items(items, tmp_path / "en.toy.data.txt", tmp_path / "en.toy.gold.txt")
    assert read_items(tmp_path / "en.toy.data.txt", tmp_path / "en.toy.gold.txt") == items


def test_dataset_carrier(official):
    from vwsdlib.data.hf import to_dataset

    (official[2] / "image.3.png").unlink()
    row = to_dataset(sets.user_set(*official))[0]
    assert (
        row["label"] == 0
        and row["images"][0].getpixel((0, 0)) == (0, 255, 90)
        and row["images"][3] is None
    )


def test_unknown_set_and_part_list_what_there_is():
    with pytest.raises(VwsdError, match="Did you mean 'emojiwsd'"):
        sets.load_set("emojwsd")
    with pytest.raises(VwsdError, match="fa test"):
        sets.load_set("vwsd", "de")


OFFICIAL = [
    ("test/en.test.data.v1.1.txt", "test/en.test.gold.v1.1.txt", 463, 259, 4090),
    ("test/it.test.data.v1.1.txt", "test/it.test.gold.v1.1.txt", 305, 208, 2726),
    ("test/fa.test.data.txt", "test/fa.test.gold.txt", 200, 154, 1756),
    ("train/train.data.v1.txt", "train/train.gold.v1.txt", 12869, 12527, 12999),
    ("trial/trial.data.txt", "trial/trial.gold.txt", 16, 16, 160),
]


@pytest.mark.parametrize("data, gold, n, targets, images", OFFICIAL, ids=[o[0] for o in OFFICIAL])
def test_official_files_are_whole_and_their_hashes_known(shared, data, gold, n, targets, images):
    folder = shared / "vwsd"
    found = sets.user_set(folder / data, folder / gold, folder)
    assert found.official is True
    assert (
        len(found.items),
        len({i.target for i in found.items}),
        len({c for i in found.items for c in i.candidates}),
    ) == (n, targets, images)
    assert all(i.candidates.count(i.gold) == 1 and not i.gold.endswith("\r") for i in found.items)


def test_an_edited_official_file_is_noticed(shared, tmp_path):
    for name in ("fa.test.data.txt", "fa.test.gold.txt"):
        (tmp_path / name).write_bytes((shared / "vwsd" / "test" / name).read_bytes() + b"\n")
    assert (
        sets.user_set(
            tmp_path / "fa.test.data.txt", tmp_path / "fa.test.gold.txt", tmp_path
        ).official
        is False
    )


# ---------------------------------------------------------------- a user's own files


def own(tmp_path, data, gold="", name="it.own"):
    paths = tmp_path / f"{name}.data.txt", tmp_path / f"{name}.gold.txt"
    for path, content in zip(paths, (data, gold)):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return paths


def lines(n=4, candidates=10, suffix=".jpg"):
    return [
        "\t".join(
            [f"parola{i}", f"la parola {i}", *(f"{i}_{j}{suffix}" for j in range(candidates))]
        )
        for i in range(n)
    ]


DATA = "\n".join(lines()) + "\n"
GOLD = "".join(f"{i}_{2 * i}.jpg\n" for i in range(4))
HEADER = "\t".join(["word", "phrase", *(f"image_{j}" for j in range(10))])


def said(paths, *words):
    with pytest.raises(VwsdError) as e:
        read_items(*paths)
    for word in words:
        assert word in str(e.value), str(e.value)
    assert e.value.remedy and "as they were published" not in e.value.remedy
    return e.value


@pytest.mark.parametrize(
    "data, gold, words",
    [
        (HEADER + "\n" + DATA, GOLD, ("header", "data.txt:1")),
        ("target\tcontext\tcandidates\n" + DATA, GOLD, ("header", "data.txt:1")),
        (DATA, "gold\n" + GOLD, ("header", "gold.txt:1")),
        (
            DATA,
            GOLD.replace("1_2.jpg", "1_2.jpg\t1_5.jpg"),
            ("several golds", "gold.txt:2", "1 of 4 lines"),
        ),
        (DATA, GOLD.replace("1_2.jpg", "1_2.jpg, 1_5.jpg"), ("several golds",)),
        (
            "\n".join(lines(candidates=4)),
            GOLD,
            ("6 tab-separated fields", "Every line has 4 candidates", "exactly ten"),
        ),
        (
            "\n".join(lines(candidates=20)),
            GOLD,
            ("22 tab-separated fields", "Every line has 20 candidates"),
        ),
        (
            "\n".join([*lines()[:2], lines(candidates=9)[2], lines()[3]]),
            GOLD,
            ("11 tab-separated fields", "data.txt:3", "1 of 4 lines"),
        ),
        (DATA.replace("\t", ","), GOLD, ("separated by commas",)),
        (DATA.replace("\t", " "), GOLD, ("separated by spaces",)),
        (DATA.replace("\n", "\n\n", 2), GOLD, ("2 empty lines", "data.txt:2")),
        (DATA, GOLD.replace("\n", "\n \n", 1), ("an empty line", "gold.txt:2")),
        (
            DATA,
            "".join(GOLD.splitlines(True)[:3]),
            ("3 gold lines for 4 items", "one image name for each line"),
        ),
        (DATA, "0\n2\n4\n6\n", ("holds numbers",)),
        (DATA, GOLD.replace("0_0", "9_9"), ("not among the candidates", "1 of 4 lines disagree")),
        (DATA.encode("utf-16"), GOLD, ("UTF-16", "Save it as UTF-8")),
        (DATA.encode("utf-16-be"), GOLD, ("UTF-16",)),
        (DATA, GOLD.encode("utf-32"), ("UTF-16 (or UTF-32)",)),
        (
            DATA.replace("la parola 2", "così").encode("latin-1"),
            GOLD,
            ("not UTF-8", "data.txt:3", "Save the file as UTF-8"),
        ),
        (b"PK\x03\x04" + DATA.encode(), GOLD, ("zip archive",)),
        (DATA.replace("parola2", "par\0la2"), GOLD, ("zero byte", "data.txt:3")),
        ('{"a": 1}', GOLD, ("JSON, but no list of items", "list of objects")),
        ('[{"target": "x"}]', GOLD, ("without target, phrase or candidates", "item 0")),
        (
            '[{"target": "x", "text": "x y", "candidates": ["a.jpg"]}]',
            GOLD,
            ("1 candidates, 10 expected",),
        ),
        ('[{"target": "x", ', GOLD, ("not whole JSON",)),
        ('[{"target": "x", "target": "y"}]', GOLD, ("'target' stands twice",)),
        ("[" * 100_000, GOLD, ("JSON",)),
    ],
    ids=range(27),
)
def test_a_users_own_files_get_a_remedy_that_fits(data, gold, words, tmp_path):
    said(own(tmp_path, data, gold), *words)


def test_an_official_name_is_told_to_fetch_again(tmp_path):
    paths = own(tmp_path, "\n".join(lines(candidates=9)), GOLD, "en.test")
    with pytest.raises(VwsdError, match="as they were published"):
        read_items(*paths)


@pytest.mark.parametrize(
    "gold, candidates",
    [
        ("0_0\n1_2\n2_4\n3_6\n", ".jpg"),
        ("0_0.png\n1_2.jpg\n2_4.JPG\n3_6.png\n", ""),
        ('"0_0.jpg"\n"1_2.jpg"\n"2_4.jpg"\n"3_6.jpg"\n', ".jpg"),
    ],
)
def test_golds_spelled_otherwise_are_read_and_counted(gold, candidates, tmp_path):
    with pytest.warns(UserWarning, match="4 of 4 golds are spelled otherwise"):
        items = read_items(*own(tmp_path, "\n".join(lines(suffix=candidates)), gold))
    assert [i.gold for i in items] == [f"{i}_{2 * i}{candidates}" for i in range(4)]


def test_a_gold_that_could_be_two_candidates_is_not_guessed(tmp_path):
    data = DATA.replace("0_1.jpg", "0_0.png")
    assert (
        "'0_0.jpg' or '0_0.png'"
        in said(own(tmp_path, data, GOLD.replace("0_0.jpg", "0_0")), "not among").remedy
    )
    assert (
        "'1_2.jpg'"
        in said(own(tmp_path, DATA, GOLD.replace("1_2.jpg", "1_2.png")), "not among").remedy
    )


def test_a_name_composed_otherwise_is_the_same(tmp_path):
    data, gold = DATA.replace("0_0", "caff\u00e8"), GOLD.replace("0_0", "caffe\u0300")
    with pytest.warns(UserWarning, match="1 of 4 golds"):
        assert read_items(*own(tmp_path, data, gold))[0].gold == "caff\u00e8.jpg"


def test_json_data_and_gold_are_read_as_the_official_layout_is(tmp_path):
    expected = read_items(*own(tmp_path, DATA, GOLD))
    rows = [
        {
            "id": i,
            "target": it.target,
            "text": it.phrase,
            "candidates": it.candidates,
            "label": it.gold.removesuffix(".jpg"),
        }
        for i, it in enumerate(expected)
    ]
    (tmp_path / "it.own.json").write_text(json.dumps(rows))
    (tmp_path / "gold.json").write_text(json.dumps([it.gold for it in expected]))
    for gold in ("it.own.gold.txt", "gold.json"):
        found = read_items(tmp_path / "it.own.json", tmp_path / gold)
        assert [(i.target, i.phrase, i.candidates, i.gold, i.language) for i in found] == [
            (i.target, i.phrase, i.candidates, i.gold, "it") for i in expected
        ]
    assert read_items(tmp_path / "it.own.json")[0].gold is None  # who defines or ranks sees no gold
    rows[1]["label"] = "1_7"
    (tmp_path / "it.own.json").write_text(json.dumps(rows))
    with pytest.raises(VwsdError, match="the label is '1_7' and the gold file has '1_2.jpg'"):
        read_items(tmp_path / "it.own.json", tmp_path / "gold.json")
    rows[1]["id"] = 0
    (tmp_path / "it.own.json").write_text(json.dumps(rows))
    with pytest.raises(VwsdError, match="an id stands twice"):
        read_items(tmp_path / "it.own.json")


def test_a_target_in_brackets_is_no_json_and_a_trailing_tab_no_candidate(tmp_path):
    data = DATA.replace("parola0", '["parola0"]', 1).replace("\n", "\t\n")
    items = read_items(*own(tmp_path, data, GOLD))
    assert items[0].target == '["parola0"]' and len(items[0].candidates) == 10


def test_old_line_ends_are_line_ends(tmp_path):
    assert read_items(
        *own(tmp_path, DATA.replace("\n", "\r"), GOLD.replace("\n", "\r"))
    ) == read_items(*own(tmp_path, DATA, GOLD))


@pytest.mark.parametrize(
    "name, language, how",
    [
        ("en.test.data.v1.1.txt", "en", "named"),
        ("it.test.data.v1.1.txt", "it", "named"),
        ("fa.test.data.txt", "fa", "named"),
        ("train.data.v1.txt", "en", "named"),
        ("trial.data.txt", "en", "named"),
        ("IT.own.data.txt", "it", "named"),
        ("it.own.data.txt", "it", "named"),
        ("de.mine.data.txt", "de", "named"),
        ("my.data.txt", "en", "assumed"),
        ("my.own.data.txt", "en", "assumed"),
        ("own-it.data.txt", "en", "assumed"),
        ("xx.own.data.txt", "en", "assumed"),
        ("it", "en", "assumed"),
    ],
)
def test_language_of_a_name_and_how_it_is_known(name, language, how, tmp_path):
    assert language_for(tmp_path / name) == (language, how)
    assert language_for(name, "FA") == ("fa", "given") == language_for(name, "Persian")
    assert bool(language_note(name)) == (how == "assumed") and not language_note(name, "it")


def test_language_that_json_states_and_codes_that_are_none(tmp_path):
    item = {"target": "x", "text": "x y", "candidates": [f"{j}.jpg" for j in range(10)]}
    path = tmp_path / "own.json"
    for rows, expected in (
        ([item | {"lang": "it"}] * 2, ("it", "stated")),
        ([item], ("en", "assumed")),
        ([item | {"lang": "it"}, item], ("en", "assumed")),
    ):
        path.write_text(json.dumps(rows))
        assert language_for(path) == expected and read_items(path)[0].language == expected[0]
    for wrong in ("", "i", "klingon", "../x", "1t"):
        with pytest.raises(VwsdError, match="no language code"):
            language_for("x.txt", wrong)


@pytest.mark.parametrize(
    "here, there",
    [
        ("كتاب فارسي", "کتاب فارسی"),
        ("l'ora d'oro", "l’ora d‘oro"),
        ('il "box"', "il “box”"),
        ("il box", "il\u00a0box"),
        ("soft\u00adhyphen", "softhyphen"),
        ("ﬁne", "fine"),
        ("ca\u0300", "cà"),
        ("bat–man", "bat-man"),
        ("ＢＯＸ", "box"),
        ("ﻛﺘﺎﺏ", "کتاب"),
        ("مُحَمَّد", "محمد"),
    ],
)
def test_texts_that_print_alike_compare_equal(here, there):
    assert normalise(here) == normalise(there)


@pytest.mark.parametrize(
    "here, there, words",
    [
        ("bаnk", "bank", "U+0430 here, U+0061 in the data"),
        ("bank", "banks", "the end here, U+0073 in the data"),
        ("some words", "other things", ""),
        ("x", "X", ""),
    ],
)
def test_the_first_difference_is_named_by_code_point(here, there, words):
    assert first_difference(here, there) == words


def test_an_item_that_a_line_cannot_hold_is_not_written(tmp_path, official):
    item = read_items(*official[:2])[0]
    for wrong, words in (
        (replace(item, phrase="a\tb"), "a tab"),
        (replace(item, target="a\nb"), "line break"),
        (replace(item, gold=None), "no gold"),
    ):
        with pytest.raises(VwsdError, match=words):
            write_items([wrong], tmp_path / "d.txt", tmp_path / "g.txt")
    assert not (tmp_path / "d.txt").exists()
