"""Readers of textual WSD on small files made by hand and on the real ones; what is wrong in a file
is named.
"""

import json
import tracemalloc
from collections import Counter
from itertools import islice
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vwsdlib.data.wsd import (
    WsdItem,
    read_emojiwsd,
    read_inventory,
    read_key,
    read_uef,
    read_xlwsd,
    unanswerable,
    write_key,
)
from vwsdlib.errors import VwsdError

XML = """<?xml version="1.0" encoding="UTF-8" ?>
<corpus lang="en" source="senseval2">
<text id="d000">
<sentence id="d000.s000">
<wf lemma="he" pos="PRON">He</wf>
<instance id="d000.s000.t000" lemma="bat" pos="VERB">batted</instance>
<wf lemma="the" pos="DET">the</wf>
<instance id="d000.s000.t001" lemma="bat" pos="NOUN">bat</instance>
<wf lemma="&apos;s" pos="PRT">&apos;s</wf>
<instance id="d000.s000.t002" lemma="bat" pos="NOUN">bat</instance>
</sentence>
<sentence id="d000.s001">
<instance id="d000.s001.t000" lemma="outback" pos="ADJ">Outback</instance>
</sentence>
</text>
</corpus>
"""
KEY = """d000.s000.t000 bat%2:35:00::
d000.s000.t001 bat%1:05:00:: bat%1:06:00::
d000.s000.t002 bat%1:06:00::
d000.s001.t000 outback%5:00:00:inaccessible:00
"""
INVENTORY = (
    "bat#NOUN\tbn:00000002n\tbn:00000001n\nbat#v\tbn:00000003v\nbat#n\tbn:00000001n\tbn:00000004n\n\nice"
    " cream#NOUN\tbn:00000005n\nlone#NOUN\n"
)


@pytest.fixture
def files(tmp_path):
    def write(xml=XML, key=KEY):
        (tmp_path / "x.data.xml").write_text(xml)
        (tmp_path / "x.gold.key.txt").write_bytes(key.encode())
        return tmp_path / "x.data.xml", tmp_path / "x.gold.key.txt"

    return write


def test_items_of_the_unified_evaluation_framework(files, toy_wordnet):
    items = list(read_uef(*files(), toy_wordnet))
    assert [item.id[-9:] for item in items] == ["s000.t000", "s000.t001", "s000.t002", "s001.t000"]
    verb, first, second, adjective = items
    assert (
        verb.sentence == "He batted the bat 's bat"
        and {item.language for item in items} == {"en"}
        and {item.set for item in items} == {"SE2"}
    )
    assert [item.span for item in items] == [
        (1, 1),
        (3, 3),
        (5, 5),
        (0, 0),
    ]  # by index: the same word twice is told apart
    assert [item.tokens[item.span[0]] for item in items] == ["batted", "bat", "bat", "Outback"]
    assert first.candidates == second.candidates == (
        "bat%1:05:00::",
        "bat%1:04:00::",
        "bat%1:06:00::",
    ) and verb.candidates == ("bat%2:35:00::",)
    assert (
        first.glosses[2] == "a club for hitting a ball"
        and first.golds == ("bat%1:05:00::", "bat%1:06:00::")
        and adjective.pos == "ADJ"
    )
    assert unanswerable(items) == []
    assert [item.golds for item in read_uef(files()[0], wordnet=toy_wordnet)] == [
        ()
    ] * 4  # without a key: no gold, no error


def test_large_files_stream(files, toy_wordnet):
    """A file that breaks off late gives its first items all the same, and what was read does not
    stay in memory.
    """
    text = XML[XML.index("<text") : XML.index("</corpus>")]
    more = "".join(text.replace("d000", f"d{number:04}") for number in range(1, 4001))
    path = files(XML.replace("</corpus>", more + "</corpus>"))[0]
    tracemalloc.start()
    assert sum(1 for _ in read_uef(path, wordnet=toy_wordnet)) == 4 * 4001
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    ElementTree.parse(path)
    tree = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < tree / 6  # of what was read the ids alone stay
    more = '<text id="d1"><sentence id="s"><wf lemma="x" pos="X">x</wf></sentence></text>\n'
    xml = XML.replace("</corpus>", more * 9000)
    assert next(iter(read_uef(files(xml)[0], wordnet=toy_wordnet))).id == "d000.s000.t000"
    with pytest.raises(VwsdError, match="not whole XML"):
        list(read_uef(*files(xml), toy_wordnet))


@pytest.mark.parametrize(
    "xml, key, words",
    [
        (
            XML,
            KEY.replace("d000.s001.t000", "d000.s009.t000"),
            "1 ids of the key are not in the data, as 'd000.s009.t000'",
        ),
        (
            XML,
            KEY.replace("d000", "d009"),
            "no answer for any of the 4 instances, 'd000.s000.t000' the first",
        ),
        (
            XML,
            KEY + "d001.s000.t000 bat%1:05:00::\n",
            "1 ids of the key are not in the data, as 'd001.s000.t000'",
        ),
        (XML.replace("t002", "t001"), KEY, "an id stands twice: 'd000.s000.t001'"),
        (XML[:-30], KEY, "not whole XML"),
        (XML, KEY.replace(" ", "\t"), "a tab in a key file .*key.txt:1"),
        (XML.replace('id="d000.s001.t000" ', ""), KEY, "the id '' .instance 4"),
        (XML.replace('id="d000.s001.t000"', 'id="d000.s001 t000"'), KEY, "the id 'd000.s001 t000'"),
        (XML.replace("corpus", "contexts"), KEY, "holds <contexts>, not the <corpus>"),
    ],
)
def test_faults_are_named(xml, key, words, files, toy_wordnet):
    with pytest.raises(VwsdError, match=words):
        list(read_uef(*files(xml, key), toy_wordnet))


BOMB = (
    '<!DOCTYPE corpus [<!ENTITY a "xxxxxxxxxx">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi"))
    + "]>"
)


@pytest.mark.parametrize(
    "data, words",
    [
        (
            BOMB.encode() + b"<corpus><text><sentence><wf>&i;</wf></sentence></text></corpus>",
            "defines entities",
        ),
        (
            b'<!DOCTYPE corpus [<!ENTITY a SYSTEM "file:///etc/passwd">]><corpus>&a;</corpus>',
            "defines entities",
        ),
        (b'<?xml version="1.0" encoding="bogus"?><corpus/>', "cannot be read|not whole XML"),
        (b'<?xml version="1.0" encoding="utf-7"?><corpus/>', "cannot be read|not whole XML"),
        (b'<?xml version="1.0" encoding="cp932"?><corpus/>', "cannot be read|not whole XML"),
        (XML.encode("utf-16")[:-40], "not whole XML"),
        (XML.replace("UTF-8", "ascii").replace(">He<", ">H\u00e9<").encode(), "not whole XML"),
        (b"", "not whole XML"),
        (b"d000 bat%1:05:00::\n", "not whole XML"),
        (b"\x89PNG\r\n\x1a\n", "not whole XML"),
        (b"<a>" * 100_000, "the <corpus> of|nested too deep"),
        (b"<corpus>" + b"<a>" * 100_000, "nested too deep"),
        (b"<corpus><text>" + b"<wf/>" * 300_000, "without an end"),
        (b"<contextfile></contextfile>", "<contextfile>, not the <corpus>"),
        (b'<corpus lang="?!"></corpus>', "no language code"),
    ],
)
def test_odd_xml_is_named(data, words, tmp_path, toy_wordnet):
    (tmp_path / "x.data.xml").write_bytes(data)
    with pytest.raises(VwsdError, match=words) as e:
        list(read_uef(tmp_path / "x.data.xml", wordnet=toy_wordnet))
    assert e.value.remedy


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-8-sig"])
def test_other_encodings_that_the_file_names_are_read(encoding, tmp_path, toy_wordnet):
    (tmp_path / "x.data.xml").write_bytes(
        XML.replace("UTF-8", encoding.removesuffix("-sig"))
        .replace(">He<", ">H\u00e9<")
        .encode(encoding)
    )
    assert next(iter(read_uef(tmp_path / "x.data.xml", wordnet=toy_wordnet))).tokens[0] == "H\u00e9"


def test_lines_of_an_inventory_that_are_none(tmp_path):
    path = tmp_path / "inventory.it.txt"
    for line in ("bat#n\tbn:1\t\tbn:2", "#n\tbn:1", "bat#\tbn:1", "bat#n\tbn 1"):
        path.write_text(f"cane#n\tbn:0\n{line}\n")
        with pytest.raises(VwsdError, match=r"inventory.it.txt:2"):
            read_inventory(path)
    path.write_text("cane#n\tbn:0\nessere#AUX\tbn:1\n")
    with pytest.warns(
        UserWarning, match="1 lines of inventory.it.txt have a part of speech.*'AUX' in line 2"
    ):
        assert read_inventory(path) == {("cane", "n"): ("bn:0",)}


CHANGES = st.lists(
    st.tuples(st.integers(0, 2000), st.binary(min_size=0, max_size=3)), min_size=1, max_size=5
)


def mutated(data: bytes, changes) -> bytes:
    for place, new in changes:
        at = place % len(data)
        data = (data[:at] + new + data[at + len(new[:1]) :]) or b" "
    return data


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(CHANGES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutated_files_give_items_or_a_sentence(tmp_path, toy_wordnet, changes):
    data, key, inventory = (tmp_path / name for name in ("x.data.xml", "x.key", "inventory"))
    for path, text in ((data, XML), (key, KEY), (inventory, INVENTORY)):
        path.write_bytes(mutated(text.encode(), changes))
    for read in (
        lambda: read_key(key),
        lambda: read_inventory(inventory),
        lambda: list(read_uef(data, wordnet=toy_wordnet)),
        lambda: list(read_uef(data, key, toy_wordnet)),
    ):
        try:
            read()
        except VwsdError as e:
            assert e.where and e.remedy


def test_missing_files_are_named(files, toy_wordnet, tmp_path):
    with pytest.raises(VwsdError, match="cannot be read: No such file"):
        list(read_uef(tmp_path / "y.data.xml", wordnet=toy_wordnet))
    with pytest.raises(VwsdError, match="no such file.*x.gold.key.txt"):
        list(read_uef(files()[0], tmp_path / "y.gold.key.txt", toy_wordnet))


def test_golds_outside_the_inventory_are_counted(files, toy_wordnet):
    items = list(
        read_uef(*files(key=KEY.replace("t002 bat%1:06:00::", "t002 bat%1:99:00::")), toy_wordnet)
    )
    assert [item.id for item in unanswerable(items)] == ["d000.s000.t002"]


def test_keys_are_read_as_the_authors_scorer_reads_them(tmp_path):
    path = tmp_path / "k"
    path.write_bytes("\ufeffa x y x\r\nb x \nb y\nc\n\nd  x\n".encode())
    assert read_key(path) == {
        "a": ("x", "y"),
        "b": ("x", "y"),
        "d": ("", "x"),
    }  # two spaces: an empty answer stands between
    assert read_key(write_key(path, {"a": ("x", "y"), "b": (), "c": ["z"]})) == {
        "a": ("x", "y"),
        "c": ("z",),
    }


def test_items_of_xl_wsd(files, tmp_path):
    (tmp_path / "inventory.it.txt").write_text(INVENTORY)
    xml = XML.replace('lang="en"', 'lang="it"').replace("bat%", "x")
    key = (
        "d000.s000.t000 bn:00000003v\nd000.s000.t001 bn:00000001n bn:00000002n\nd000.s000.t002"
        " bn:00000009n\nd000.s001.t000 bn:00000008a\n"
    )
    items = list(read_xlwsd(*files(xml, key), tmp_path / "inventory.it.txt"))
    assert (
        items[1].candidates == ("bn:00000002n", "bn:00000001n", "bn:00000004n")
        and items[1].glosses == ()
        and items[1].language == "it"
    )
    assert items[3].candidates == () and [item.id[-4:] for item in unanswerable(items)] == [
        "t002",
        "t000",
    ]
    glossed = list(
        read_xlwsd(*files(xml, key), tmp_path / "inventory.it.txt", {"bn:00000001n": "animale"})
    )
    assert glossed[1].glosses == ("", "animale", "") and glossed[3].glosses == ()
    assert read_inventory(tmp_path / "inventory.it.txt")["ice_cream", "n"] == ("bn:00000005n",)
    (tmp_path / "inventory.it.txt").write_text("bat\tbn:00000001n\n")
    with pytest.raises(VwsdError, match="not a line of an inventory .*inventory.it.txt:1"):
        read_xlwsd(*files(xml, key), tmp_path / "inventory.it.txt")


RECORD = {
    "id": "ball.game.s0",
    "lemma": "ball",
    "text": "Her snow-ball, one ball of many.",
    "start": 9,
    "end": 13,
    "candidates": ["ball.game", "ball.dance"],
    "glosses": ["round", "dance"],
    "gold": "ball.game",
}


def test_items_of_emojiwsd_keep_the_target_whole(tmp_path):
    path = tmp_path / "en.dev.wsd.jsonl"
    path.write_text(
        json.dumps(RECORD) + "\n" + json.dumps(RECORD | {"start": 19, "end": 23}) + "\n"
    )
    first, second = read_emojiwsd(path)
    assert first.tokens == (
        "Her",
        "snow",
        "-",
        "ball",
        ",",
        "one",
        "ball",
        "of",
        "many",
        ".",
    ) and first.span == (3, 3)
    assert (
        second.tokens[1] == "snow-ball"
        and second.tokens[slice(second.span[0], second.span[1] + 1)] == ("ball",)
        and second.span == (4, 4)
    )
    assert (first.golds, first.pos, first.set, first.language) == (("ball.game",), "NOUN", "", "en")


@pytest.mark.parametrize(
    "change",
    [{"gold": "ball.x"}, {"glosses": ["round"]}, {"end": 9}, {"text": None}, {"start": "9"}, "{"],
)
def test_a_tagged_sentence_that_is_broken_is_named(change, tmp_path):
    (tmp_path / "w.jsonl").write_text(
        json.dumps(RECORD) + "\n" + (change if change == "{" else json.dumps(RECORD | change))
    )
    with pytest.raises(VwsdError, match="not a tagged sentence.*w.jsonl:2"):
        read_emojiwsd(tmp_path / "w.jsonl")


def test_emojiwsd_as_built(emojiwsd):
    items = [
        item
        for split in ("dev", "test")
        for item in read_emojiwsd(emojiwsd / f"en.{split}.wsd.jsonl")
    ]
    records = [
        json.loads(line)
        for split in ("dev", "test")
        for line in (emojiwsd / f"en.{split}.wsd.jsonl").read_text().splitlines()
    ]
    assert len(items) == len(records) > 500 and not unanswerable(items)
    for item, record in zip(items, records):
        target = record["text"][record["start"] : record["end"]]
        assert " ".join(item.tokens[item.span[0] : item.span[1] + 1]) == target and "".join(
            item.tokens
        ) == "".join(record["text"].split())


SIZES = {
    "senseval2": ("SE2", 2282),
    "senseval3": ("SE3", 1850),
    "semeval2007": ("SE07", 455),
    "semeval2013": ("SE13", 1644),
    "semeval2015": ("SE15", 1022),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_real_sets(name, shared, wordnet):
    folder = shared / "wsd" / "raganato" / name
    items = list(read_uef(folder / f"{name}.data.xml", folder / f"{name}.gold.key.txt", wordnet))
    assert ({item.set for item in items}, len(items)) == (
        {SIZES[name][0]},
        SIZES[name][1],
    ) and not unanswerable(items)
    tree = ElementTree.parse(folder / f"{name}.data.xml")  # against the plain way, whole in memory
    assert [(i.id, i.lemma, i.tokens[i.span[0]]) for i in items] == [
        (e.get("id"), e.get("lemma"), e.text) for e in tree.iter("instance")
    ]


def test_the_real_concatenation(shared, wordnet):
    folder = shared / "wsd" / "raganato" / "ALL"
    items = list(read_uef(folder / "ALL.data.xml", folder / "ALL.gold.key.txt", wordnet))
    assert Counter(item.set for item in items) == dict(SIZES.values()) and Counter(
        item.pos for item in items
    ) == {"NOUN": 4300, "VERB": 1652, "ADJ": 955, "ADV": 346}
    assert (
        sum(len(item.golds) > 1 for item in items) == 340
        and not unanswerable(items)
        and all(len(i.glosses) == len(i.candidates) > 0 for i in items)
    )
    with pytest.raises(
        VwsdError, match="no answer for any of the 2282 instances, 'd000.s000.t000'"
    ):  # the single sets' ids lack the set's name
        list(
            read_uef(
                shared / "wsd" / "raganato" / "senseval2" / "senseval2.data.xml",
                folder / "ALL.gold.key.txt",
                wordnet,
            )
        )
    assert [i.id for i in islice(read_uef(folder / "ALL.data.xml", wordnet=wordnet), 2)] == [
        i.id for i in items[:2]
    ]


def test_an_item_is_immutable_and_its_set_comes_from_id_or_source():
    item = WsdItem("semeval2010.d0.t0", "en", "x", "NOUN", ("x",), (0, 0), ("a",), (), ())
    assert (
        item.set == "SE10"
        and WsdItem("d0", "en", "x", "NOUN", ("x",), (0, 0), (), (), (), "semeval2013").set
        == "SE13"
    )
    with pytest.raises(AttributeError):
        item.golds = ("a",)
