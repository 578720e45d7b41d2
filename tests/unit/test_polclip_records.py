"""PolCLIP's records: from textual WSD, as the project's own JSONL, and what is wrong in a file
named with its line.
"""

import json
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polclip.records import Candidate, Record, from_wsd, load_records, save_records
from vwsdlib.data.wsd import WsdItem
from vwsdlib.errors import VwsdError

ITEM = WsdItem(
    "senseval2.d0.s0.t0",
    "en",
    "bat",
    "NOUN",
    ("the", "bat", "flew"),
    (1, 1),
    ("b1", "b2"),
    ("a mammal", "a club"),
    ("b1", "b9"),
)
BAT = Record(
    "r1",
    "en",
    ("the", "bät", "\u2028flew"),
    (1, 1),
    (Candidate("b1", "a mammal"), Candidate("b2", 'a "club"\n')),
    ("b2",),
    "NOUN",
    "SE2",
    "it flies",
)


def test_records_of_wsd_items():
    [record] = from_wsd([ITEM], {"b2": ["x/1.jpg", "x/2.jpg"], "b7": ["no.jpg"]})
    assert (record.target, record.sentence, record.set, record.pos, record.language) == (
        "bat",
        "the bat flew",
        "SE2",
        "NOUN",
        "en",
    )
    assert record.candidates == (
        Candidate("b1", "a mammal"),
        Candidate("b2", "a club", ("x/1.jpg", "x/2.jpg")),
    )
    assert record.golds == ("b1",) and record.definition == ""  # b9 is no candidate
    assert [c.gloss for r in from_wsd([replace(ITEM, glosses=())]) for c in r.candidates] == [
        "",
        "",
    ]
    assert next(from_wsd([replace(ITEM, golds=())])).golds == ()
    with pytest.raises(VwsdError, match="none of the golds"):
        list(from_wsd([replace(ITEM, golds=("b9",))]))


def test_what_is_written_is_read_again(tmp_path):
    bare = Record("r2", "fa", ("خفاش",), (0, 0), (Candidate("s", ""),), ())
    assert save_records(tmp_path / "a" / "r.jsonl", iter([BAT, bare])) == 2
    assert list(load_records(tmp_path / "a" / "r.jsonl")) == [BAT, bare]
    assert len((tmp_path / "a" / "r.jsonl").read_text().split("\n")) == 3


def test_pictures_below_the_folder_move_with_it(tmp_path):
    inside, outside = str(tmp_path / "a" / "p" / "1.jpg"), str(tmp_path / "ab.jpg")
    record = replace(BAT, candidates=(Candidate("b1", "", (inside, outside)), Candidate("b2", "")))
    save_records(tmp_path / "a" / "r.jsonl", [record])
    assert json.loads((tmp_path / "a" / "r.jsonl").read_text())["candidates"][0]["pictures"] == [
        "p/1.jpg",
        outside,
    ]
    (tmp_path / "a").rename(tmp_path / "b")
    [read] = load_records(tmp_path / "b" / "r.jsonl")
    assert read.candidates[0].pictures == (str(tmp_path / "b" / "p" / "1.jpg"), outside)


def line(**change) -> str:
    good = {
        "id": "r",
        "language": "en",
        "words": ["a", "bat"],
        "span": [1, 1],
        "candidates": [{"id": "b", "gloss": "g", "pictures": []}],
        "golds": ["b"],
    }
    return json.dumps(good | change)


FAULTS = {
    "span outside": (line(span=[1, 2]), "outside the 2 words"),
    "span turned": (line(span=[1, 0]), "outside the 2 words"),
    "span negative": (line(span=[-1, 1]), "outside the 2 words"),
    "span of text": (line(span=["1", "1"]), "span.0: .*valid integer"),
    "span of truth": (line(span=[True, True]), "span.0: .*valid integer"),
    "span of three": (line(span=[0, 1, 1]), "span: .*at most 2"),
    "strange gold": (line(golds=["c"]), "'c' is not among the candidates"),
    "candidate twice": (
        line(candidates=[{"id": "b", "gloss": "", "pictures": []}] * 2),
        "'b' stands twice",
    ),
    "words as text": (line(words="a bat"), "words: .*valid tuple|words: .*valid array"),
    "a number among words": (line(words=["a", 1]), "words.1: .*valid string"),
    "a number as id": (line(id=7), "id: .*valid string, not 7"),
    "gloss is null": (
        line(candidates=[{"id": "b", "gloss": None, "pictures": []}]),
        "candidates.0.gloss: .*valid string, not None",
    ),
    "candidate as text": (line(candidates=["b"]), "candidates.0: .*an object"),
    "pos is null": (line(pos=None), "pos: .*valid string"),
    "a field misspelt": (line(defintion="x"), "defintion: unexpected"),
    "no golds": (line().replace('"golds"', '"gold"'), "gold: unexpected|golds: .*required"),
    "a list": ("[1]", "an object"),
    "not JSON": ("{nothing}", "invalid JSON"),
    "blank": ("", "invalid JSON"),
    "nested": ("[" * 100_000, "invalid JSON"),
    "a huge number": (line().replace("[1, 1]", "[1, " + "9" * 5000 + "]"), "number out of range"),
    "half a character": (line().replace('"g"', '"\\ud83d"'), "hex escape"),
    "a zero in a name": (
        line(candidates=[{"id": "b", "gloss": "", "pictures": ["a\0b"]}]),
        "a zero",
    ),
}


@pytest.mark.parametrize("bad, said", FAULTS.values(), ids=FAULTS)
def test_faults_are_named_with_file_and_line(tmp_path, bad, said):
    (tmp_path / "r.jsonl").write_text(f"{line()}\n{line()}\n{bad}\n{line()}\n")
    read = load_records(tmp_path / "r.jsonl")
    assert [next(read).id, next(read).id] == ["r", "r"]
    with pytest.raises(VwsdError, match=said) as e:
        next(read)
    assert e.value.where == f"{tmp_path / 'r.jsonl'}:3" and e.value.remedy


def test_a_last_line_that_is_cut_off(tmp_path):
    whole = f"{line()}\n{line()}"
    for cut in range(1, len(line())):
        (tmp_path / "r.jsonl").write_text(whole[:-cut])
        with pytest.raises(VwsdError, match="last line is cut off") as e:
            list(load_records(tmp_path / "r.jsonl"))
        assert e.value.where.endswith(":2")
    (tmp_path / "r.jsonl").write_text(whole)  # only the line end is missing
    assert len(list(load_records(tmp_path / "r.jsonl"))) == 2


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes(
        line(id="b\u00e4").encode().replace(b"\\u00e4", b"\xe4") + b"\n"
    )
    for path in (tmp_path / "no.jsonl", tmp_path / "latin.jsonl"):
        with pytest.raises(VwsdError, match="cannot be read"):
            list(load_records(path))


def test_a_fault_while_writing_leaves_what_was_there(tmp_path):
    save_records(tmp_path / "r.jsonl", [BAT])
    with pytest.raises(VwsdError, match="'no' is not among"):
        save_records(tmp_path / "r.jsonl", [BAT, BAT, replace(BAT, golds=("no",))])
    assert list(load_records(tmp_path / "r.jsonl")) == [BAT] and [
        p.name for p in tmp_path.iterdir()
    ] == ["r.jsonl"]


def test_reading_and_writing_stream(tmp_path):
    def peak(n: int) -> int:
        tracemalloc.start()
        save_records(tmp_path / "r.jsonl", (replace(BAT, definition="x" * 1000) for _ in range(n)))
        assert sum(1 for _ in load_records(tmp_path / "r.jsonl")) == n
        return (tracemalloc.get_traced_memory()[1], tracemalloc.stop())[0]

    peak(2000)  # what Python holds ready for reuse is there before memory is counted
    assert peak(2000) < peak(100) + 200_000  # 2000 at once would be 2,000,000


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 400),
            st.sampled_from(
                [b"", b"0", b'"', b"[", b"{", b"}", b",", b"\xff", b"null", b"-1", b"\n", b"\\"]
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_mutated_records_give_records_or_a_sentence(tmp_path, changes):
    data = f"{line()}\n{line()}\n".encode()
    for place, new in changes:
        at = place % len(data)
        data = data[:at] + new + data[at + 1 :]
    (tmp_path / "m.jsonl").write_bytes(data)
    try:
        for record in load_records(tmp_path / "m.jsonl"):
            assert isinstance(record, Record) and record.target is not None
    except VwsdError as e:
        assert "m.jsonl" in str(e.where) and e.remedy


def test_a_line_without_an_end_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("polclip.records.LONGEST_LINE", 1000)
    (tmp_path / "r.jsonl").write_text(f"{line()}\n" + "x" * 5000)
    with pytest.raises(VwsdError, match="a line of more than"):
        list(load_records(tmp_path / "r.jsonl"))
