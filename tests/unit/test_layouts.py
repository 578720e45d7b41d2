"""Every layout of the official files ends as tests/layouts.py says; a set that comes in pieces, or
was interrupted, keeps what it has.
"""

import pytest

from tests import layouts
from vwsdlib.data import fetch, official
from vwsdlib.errors import VwsdError


@pytest.mark.parametrize("one", layouts.LAYOUTS, ids=lambda one: one.name)
def test_a_layout_ends_as_expected(one, tmp_path):
    outcome = layouts.drive(one, tmp_path)
    assert outcome.as_expected, outcome.fetch
    if one.outcome == layouts.COMPLETE:
        assert (outcome.doctor, outcome.evaluate) == (layouts.COMPLETE, "2 items")
        assert outcome.audit == "2 items"
    else:
        assert outcome.doctor != layouts.COMPLETE


def test_there_are_at_least_twelve_that_are_complete():
    assert sum(one.outcome == layouts.COMPLETE for one in layouts.LAYOUTS) >= 12


@pytest.fixture
def home(tmp_path):
    (tmp_path / "host").mkdir()
    with layouts.world(tmp_path):
        yield tmp_path


def images(home):
    return home / "data" / "vwsd" / "test" / "test_images"


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_what_came_before_is_neither_lost_nor_written_again(home):
    first, *others = layouts.pieces(home)
    fetch.fetch_vwsd(source=first[1])
    before = times(images(home))
    assert len(before) == len(layouts.pictures("test"))
    for arguments in others:
        states = fetch.fetch_vwsd(source=arguments[1])
    assert {row["state"] for row in states} == {"OK"} and times(images(home)) == before


@pytest.mark.parametrize("with_text", [True, False])
def test_an_interrupted_fetch_goes_on(home, monkeypatch, with_text):
    files = layouts.TESTS if with_text else layouts.below(layouts.RESIZED, layouts.pictures("test"))
    mine = layouts.as_zip(files, home / "mine.zip")
    place, placed = fetch._place, []

    def interrupted(content, target):
        if len(placed) == 5:
            raise KeyboardInterrupt
        placed.append(target.name)
        place(content, target)

    monkeypatch.setattr(fetch, "_place", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch_vwsd(source=mine)
    before = times(images(home))
    assert len(before) == 5 and official.image_variant(images(home).parent) == "resized"
    placed.extend([""] * 99)  # none is interrupted any more
    fetch.fetch_vwsd(source=mine)
    after = times(images(home))
    assert set(after) == set(layouts.pictures("test"))
    assert {name: after[name] for name in before} == before


def test_a_dropped_download_is_asked_for_from_where_it_broke(home):
    layouts.as_zip(layouts.TESTS, home / "host" / "all.zip")
    size = (home / "host" / "all.zip").stat().st_size
    with layouts.hosted(home / "host", drops=2) as (address, host):
        states = fetch.fetch_vwsd(source=f"{address}/all.zip")
    assert {row["state"] for row in states} == {"OK"}
    assert len(host.sent) == 3 and sum(sent for _, sent in host.sent) == size
    assert not any(path.is_file() for path in fetch._downloads().rglob("*"))


def test_two_addresses_with_one_name_are_two_downloads(home):
    for folder, split in (("a", "test"), ("b", "trial")):
        files = layouts.texts(split)
        layouts.as_zip(files, home / "host" / folder / "download.zip")
    with layouts.hosted(home / "host") as (address, _):
        fetch.fetch_vwsd(source=f"{address}/a/download.zip")
        states = fetch.fetch_vwsd("trial", source=f"{address}/b/download.zip?x=1")
    assert [row["state"] for row in states] == ["OK", "OK", "MISSING"]


def test_what_lies_beside_is_only_read_for_text_and_never_stops_the_rest(home):
    given = layouts.as_folder(layouts.below("text", layouts.queries("test")), home / "x" / "mine")
    (home / "x" / "gold.zip").write_bytes(b"PK no zip")
    (home / "x" / "gold.tar.gz").write_bytes(b"")
    layouts.as_folder(layouts.below(layouts.RESIZED, layouts.pictures("test")), home / "x")
    layouts.as_folder(layouts.below("holiday", layouts.golds("test")), home / "x")
    states = {row["check"]: row["state"] for row in fetch.fetch_vwsd(source=given)}
    assert states["en.test.data.v1.1.txt"] == "OK"
    assert states["en.test.gold.v1.1.txt"] == "MISSING" == states["pictures test en"]
    layouts.as_zip(layouts.golds("test"), home / "x" / "the gold.zip")
    states = {row["check"]: row["state"] for row in fetch.fetch_vwsd(source=given)}
    assert states["en.test.gold.v1.1.txt"] == "OK"


def test_pictures_of_a_package_with_another_text_are_left_alone(home):
    (given,) = layouts.another_trial(home)
    states = [row["state"] for row in fetch.fetch_vwsd("trial", source=given[1])]
    assert states == ["DIFFERENT", "OK", "MISSING"]
    assert not (home / "data" / "vwsd" / "trial" / "all_images").exists()


def test_gold_alone_is_named_with_its_own_source(home):
    from vwsdlib.data.sets import load_set

    files = layouts.as_folder(layouts.below("text", layouts.queries("test")), home / "mine")
    states = fetch.fetch_vwsd(source=files)
    gold = next(row for row in states if row["check"] == "it.test.gold.v1.1.txt")
    assert gold["remedy"].startswith(f"download {official.GOLD_PACKAGE} from {official.PAGE}")
    with pytest.raises(VwsdError, match="en.test.gold.v1.1.txt .*is not here") as e:
        load_set("vwsd", "en")
    assert official.GOLD_PACKAGE in e.value.remedy and "--from DIR" in e.value.remedy


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_a_text_is_known_by_its_bytes_whatever_the_line_ends(ends):
    lines = b"one\ntwo\n"
    published = {official.sha256_bytes(lines.replace(b"\n", ends))}
    for other in (b"\n", b"\r\n"):
        written = official.published_bytes(lines.replace(b"\n", other), published)
        assert written == lines.replace(b"\n", ends)
    assert official.published_bytes(lines[:-1], published) is None
