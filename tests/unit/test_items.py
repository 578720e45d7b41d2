"""Every trap of the official files: read through, or stopped with file, line and remedy."""

import pytest

from vwsdlib.data import sets
from vwsdlib.data.items import missing_pictures, normalise, read_items, write_items
from vwsdlib.errors import VwsdError


def edit(path, change):
    path.write_bytes(change(path.read_bytes()))


def test_reads_what_is_there(official):
    items = read_items(*official[:2])
    assert [i.id for i in items] == [f"en.toy.{n}" for n in range(6)]
    assert items[2].target == "word2" and items[2].phrase == "word2 thing" and items[2].gold_index == 2 and items[2].language == "en"


@pytest.mark.parametrize("change", [
    lambda b: b.replace(b"\n", b"\r\n"),
    lambda b: b"\xef\xbb\xbf" + b,
    lambda b: b + b"\n\n",
    lambda b: b.rstrip(b"\n"),
], ids=["windows line ends", "byte order mark", "blank lines at the end", "no last line end"])
def test_harmless_differences_change_nothing(official, change):
    before = read_items(*official[:2])
    for path in official[:2]:
        edit(path, change)
    assert read_items(*official[:2]) == before


def test_text_keeps_its_invisible_characters_and_compares_without_them(official):
    edit(official[0], lambda b: b.replace(b"word0\tword0 thing", "برنج\u200e\tفلز\u2028 برنج".encode()))
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
    edit(official[0], lambda b: b"\n".join(line.replace(b"image.", b"image.%d" % i) for i, line in enumerate(b.split(b"\n"))))
    edit(official[1], lambda b: b"\n".join(line.replace(b"image.", b"image.%d" % i) for i, line in enumerate(b.split(b"\n"))))
    edit(official[1], lambda b: b"\n".join([*(lines := b.split(b"\n"))[:2], b"image.99.png", *lines[2:5]]) + b"\n")
    refused(official, "gold.txt:3", "shifted")


def test_gold_of_other_case_names_the_candidate(official):
    edit(official[1], lambda b: b.replace(b"image.0.png", b"image.0.PNG"))
    refused(official, "gold.txt:1", "spelled 'image.0.png'")


def test_gold_not_among_candidates(official):
    edit(official[1], lambda b: b.replace(b"image.0.png", b"image.77.png"))
    refused(official, "gold.txt:1", "not among the candidates", "1 of 6 lines")


def test_duplicate_candidate(official):
    edit(official[0], lambda b: b.replace(b"image.5.png\timage.6.png", b"image.5.png\timage.5.png", 1))
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
    assert missing["en.toy.0"] == ["image.3.png"] and set(missing) == {i.id for i in items if "image.3.png" in i.candidates}
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
    assert row["label"] == 0 and row["images"][0].getpixel((0, 0)) == (0, 255, 90) and row["images"][3] is None


def test_unknown_set_and_part_list_what_there_is():
    with pytest.raises(VwsdError, match="Did you mean 'emojiwsd'"):
        sets.load_set("emojwsd")
    with pytest.raises(VwsdError, match="fa test"):
        sets.load_set("vwsd", "de")


OFFICIAL = [("test/en.test.data.v1.1.txt", "test/en.test.gold.v1.1.txt", 463, 259, 4090), ("test/it.test.data.v1.1.txt", "test/it.test.gold.v1.1.txt", 305, 208, 2726),
            ("test/fa.test.data.txt", "test/fa.test.gold.txt", 200, 154, 1756), ("train/train.data.v1.txt", "train/train.gold.v1.txt", 12869, 12527, 12999),
            ("trial/trial.data.txt", "trial/trial.gold.txt", 16, 16, 160)]


@pytest.mark.parametrize("data, gold, n, targets, images", OFFICIAL, ids=[o[0] for o in OFFICIAL])
def test_official_files_are_whole_and_their_hashes_known(shared, data, gold, n, targets, images):
    folder = shared / "vwsd"
    found = sets.user_set(folder / data, folder / gold, folder)
    assert found.official is True
    assert (len(found.items), len({i.target for i in found.items}), len({c for i in found.items for c in i.candidates})) == (n, targets, images)
    assert all(i.candidates.count(i.gold) == 1 and not i.gold.endswith("\r") for i in found.items)


def test_an_edited_official_file_is_noticed(shared, tmp_path):
    for name in ("fa.test.data.txt", "fa.test.gold.txt"):
        (tmp_path / name).write_bytes((shared / "vwsd" / "test" / name).read_bytes() + b"\n")
    assert sets.user_set(tmp_path / "fa.test.data.txt", tmp_path / "fa.test.gold.txt", tmp_path).official is False
