"""Predictions as researchers write them: read right in every form, or refused by name; what stands
beside the scores is checked.
"""

import csv
import io
import json
import math
import os
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vwsdlib.analysis import answer_files
from vwsdlib.analysis.reading import number, read_submission
from vwsdlib.analysis.scoring import write_scores
from vwsdlib.data import textfile
from vwsdlib.data.items import Item, read_items
from vwsdlib.errors import VwsdError

N = 12
FUZZ = settings(max_examples=150, deadline=None, derandomize=True)


def make_items(n=N, language="it"):
    names = [[f"im{i}_{j}.jpg" for j in range(10)] for i in range(n)]
    return [
        Item(
            f"it.mine.{i}",
            language,
            f"parola{i}",
            f'la "parola" {i}, d’oro',
            tuple(own),
            own[i % 10],
        )
        for i, own in enumerate(names)
    ]


ITEMS = make_items()
SCORES = np.random.default_rng(0).random((N, 10)).round(6)
SCORES[3, 4] = -math.inf
COLUMNS = [f"score_{i + 1}" for i in range(10)]


def records(with_id=False):
    rows = []
    for _i, (item, row) in enumerate(zip(ITEMS, SCORES)):
        beside = {"id": item.id} if with_id else {}
        rows.append(
            {
                **beside,
                "target": item.target,
                "context": item.phrase,
                **{c: float(s) for c, s in zip(COLUMNS, row)},
            }
        )
    return rows


def table(delimiter=",", rows=None, **more):
    out, rows = io.StringIO(), rows or records()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, **more)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def columns_of(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def lists():
    return [{"id": item.id, "scores": [float(s) for s in row]} for item, row in zip(ITEMS, SCORES)]


def shuffled_lists():
    """Scores best first beside the names that they belong to, as retrieval code writes them."""
    rows = []
    for i, (item, row) in enumerate(zip(ITEMS, SCORES)):
        order = np.argsort(-row, kind="stable")
        rows.append(
            {
                "data": str(i),
                "candidate": str([item.candidates[j] for j in order]),
                "relevance": json.dumps([float(row[j]) for j in order]),
            }
        )
    return rows


FORMS = {
    "csv": ("x.csv", lambda: table()),
    "csv with semicolons": ("x.csv", lambda: table(";")),
    "csv, all quoted": ("x.csv", lambda: table(quoting=csv.QUOTE_ALL)),
    "pandas tsv": ("x.tsv", lambda: table("\t")),
    "windows csv": ("x.csv", lambda: table(lineterminator="\r\n")),
    "old mac csv": ("x.csv", lambda: table(lineterminator="\r")),
    "with ids": ("x.csv", lambda: table(rows=records(True))),
    "ids in another order": ("x.csv", lambda: table(rows=records(True)[::-1])),
    "lists best first": ("x.csv", lambda: table(rows=shuffled_lists())),
    "json records": ("x.json", lambda: json.dumps(records())),
    "json lines": ("x.jsonl", lambda: "\n".join(map(json.dumps, records()))),
    "json lines of another suffix": ("x.txt", lambda: "\n".join(map(json.dumps, records()))),
    "json of columns": ("x.json", lambda: json.dumps(columns_of(records()))),
    "pandas columns": (
        "x.json",
        lambda: json.dumps(
            {
                c: {str(i): v for i, v in enumerate(cells)}
                for c, cells in columns_of(records()).items()
            }
        ),
    ),
    "pandas index": (
        "x.json",
        lambda: json.dumps({str(i): row for i, row in enumerate(records())}),
    ),
    "pandas split": (
        "x.json",
        lambda: json.dumps(
            {
                "columns": list(records()[0]),
                "index": list(range(N)),
                "data": [list(r.values()) for r in records()],
            }
        ),
    ),
    "json lists": ("x.json", lambda: json.dumps(lists())),
    "json of nameless lists": ("x.json", lambda: json.dumps([row["scores"] for row in lists()])),
    "json by id": (
        "x.json",
        lambda: json.dumps({row["id"]: row["scores"] for row in lists()[::-1]}),
    ),
    "json under a key": ("x.json", lambda: json.dumps({"predictions": lists()})),
}


def read(tmp_path, name, text, **more):
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = read_submission(tmp_path / name, ITEMS, **more)
    return scores, [str(w.message) for w in caught]


def refused(tmp_path, name, text, *words, **more):
    with pytest.raises(VwsdError) as e:
        read(tmp_path, name, text, **more)
    for word in words:
        assert word in str(e.value), str(e.value)
    assert e.value.remedy
    return str(e.value)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_scores(form, tmp_path):
    name, make = FORMS[form]
    assert np.array_equal(read(tmp_path, name, make())[0], SCORES)


def test_pandas_own_files_are_read(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(records())
    frame.loc[3, "score_5"] = -math.inf
    for name, write in {
        "x.csv": frame.to_csv,
        "y.csv": lambda p: frame.to_csv(p, index=False, sep=";"),
        "z.tsv": lambda p: frame.to_csv(p, sep="\t"),
    }.items():
        write(tmp_path / name)
        assert np.array_equal(read_submission(tmp_path / name, ITEMS), SCORES), name
    finite = frame.replace(-math.inf, -5.0)
    for orient in ("records", "columns", "index", "split", "table"):
        finite.to_json(tmp_path / "x.json", orient=orient)
        assert np.array_equal(
            read_submission(tmp_path / "x.json", ITEMS), np.where(np.isinf(SCORES), -5.0, SCORES)
        ), orient


def test_rows_put_in_order_by_ids_are_said_with_their_number(tmp_path):
    rows = records(True)
    rows[1], rows[2] = rows[2], rows[1]
    scores, notes = read(tmp_path, "x.csv", table(rows=rows))
    assert np.array_equal(scores, SCORES) and any("2 of 12 rows" in note for note in notes)


def indexed(order, first=0, name=""):
    return [{name: first + i, **{c: float(s) for c, s in zip(COLUMNS, SCORES[i])}} for i in order]


@pytest.mark.parametrize("name", ["", "index", "id", "Unnamed: 0", "item"])
@pytest.mark.parametrize("first", [0, 1])
def test_an_index_in_order_is_read_and_one_sorted_as_text_is_refused(name, first, tmp_path):
    assert np.array_equal(
        read(tmp_path, "x.csv", table(rows=indexed(range(N), first, name)))[0], SCORES
    )
    as_text = sorted(range(N), key=lambda i: str(first + i))
    refused(
        tmp_path,
        "x.csv",
        table(rows=indexed(as_text, first, name)),
        "does not run in order",
        f"x.csv:{4 - first}",
    )


def test_a_line_replaced_by_a_copy_is_refused(tmp_path):
    rows = records(True)
    rows[7] = rows[2]
    refused(tmp_path, "x.csv", table(rows=rows), "'it.mine.2' stands twice", "x.csv:9")
    refused(
        tmp_path,
        "x.csv",
        table(rows=[{k: v for k, v in row.items() if k != "id"} for row in rows]),
        "target is 'parola2' here",
    )
    bare = [{c: row[c] for c in COLUMNS} for row in rows]
    assert any(
        "1 of 12 rows repeat" in note for note in read(tmp_path, "x.csv", table(rows=bare))[1]
    )


@pytest.mark.parametrize(
    "column, cell, words",
    [
        ("word", "altro", "target is 'altro'"),
        ("phrase", "altro", "phrase is 'altro'"),
        ("gold", "im5_0.jpg", "gold is 'im5_0.jpg'"),
        ("label", "7", "gold is '7'"),
        ("language", "fa", "language is 'fa'"),
        ("candidate_3", "im9_2.jpg", "im9_2.jpg here"),
        ("candidates", json.dumps(["im5_0.jpg"] * 10), "one of them twice"),
    ],
)
def test_what_stands_beside_the_scores_is_checked(column, cell, words, tmp_path):
    right = {
        "word": lambda i: ITEMS[i].target,
        "phrase": lambda i: ITEMS[i].phrase,
        "gold": lambda i: ITEMS[i].gold,
        "label": lambda i: str(i % 10),
        "language": lambda i: "IT",
        "candidates": lambda i: json.dumps(ITEMS[i].candidates),
        "candidate_3": lambda i: ITEMS[i].candidates[2],
    }
    rows = [
        dict(zip(COLUMNS, map(float, row))) | {column: right[column](i)}
        for i, row in enumerate(SCORES)
    ]
    if column == "candidate_3":
        for i, row in enumerate(rows):
            row |= {f"candidate_{j + 1}": name for j, name in enumerate(ITEMS[i].candidates)}
    assert np.array_equal(read(tmp_path, "x.csv", table(rows=rows))[0], SCORES)
    rows[5][column] = cell
    refused(tmp_path, "x.csv", table(rows=rows), words, "x.csv:7")


def test_unknown_columns_are_named(tmp_path):
    rows = [row | {"model": "x", "seed": 1} for row in records()]
    notes = read(tmp_path, "x.csv", table(rows=rows))[1]
    assert any(
        "2 of 14 columns are not known and not checked: model, seed" in note for note in notes
    )
    assert read(tmp_path, "x.csv", table())[1] == []


def test_letters_that_look_alike_are_one_and_others_are_named_by_code_point(tmp_path):
    rows = records()
    rows[0]["context"] = rows[0]["context"].replace("’", "'").replace('"', "”") + "\u00ad"
    assert np.array_equal(read(tmp_path, "x.csv", table(rows=rows))[0], SCORES)
    rows[0]["target"] = "p\u0430rola0"
    refused(tmp_path, "x.csv", table(rows=rows), "U+0430 here, U+0061 in the data")


@pytest.mark.parametrize(
    "spelled",
    [
        "1_000",
        "０.５",
        "0x1p3",
        "nan",
        "NaN",
        "inf",
        "Infinity",
        "+inf",
        "1e999",
        "0,5",
        "",
        "half",
        "1.2.3",
        "−0.5",
        "1 000",
        "True",
        "٣",
    ],
)
def test_odd_numbers_are_refused(spelled, tmp_path):
    rows = records()
    rows[4]["score_7"] = spelled
    for text in (table(rows=rows), table("\t", rows=rows)):
        refused(tmp_path, "x.csv", text, "x.csv:6", "score")


@given(st.floats(allow_nan=False, allow_infinity=False))
@FUZZ
def test_numbers_keep_every_bit(value):
    assert number(repr(value), "x") == value and number(f"{value:.17e}", "x") == value


@pytest.mark.parametrize("spelled", ["-inf", "-Inf", "-Infinity", " -inf "])
def test_a_missing_picture_is_minus_infinity(spelled):
    assert number(spelled, "x") == -math.inf


@pytest.mark.parametrize("value", [True, [1], {"a": 1}, None])
def test_json_of_other_types_is_no_score(value, tmp_path):
    rows = records()
    rows[2]["score_1"] = value
    refused(tmp_path, "x.json", json.dumps(rows), "row 3", "score")


def test_json_numbers_are_held_to_the_same(tmp_path):
    for spelled, words in (("NaN", "nan"), ("Infinity", "infinite"), ("1e999", "infinite")):
        refused(
            tmp_path, "x.json", json.dumps(records()).replace(str(SCORES[2, 0]), spelled, 1), words
        )


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.replace("score_2", "score_1", 1), "two columns are named 'score_1'"),
        (lambda t: t.replace("context", "TARGET", 1), "two columns are named 'target'"),
        (lambda t: t.replace("score_10", "score_11", 1), "10 scores an item"),
        (lambda t: t.replace("score_3", "points", 1), "column score_3 is missing"),
        (lambda t: "\n".join([*t.split("\n")[:4], "", *t.split("\n")[4:]]), "an empty line"),
        (lambda t: t.split("\n", 1)[0], "0 predictions for 12 items"),
        (lambda t: t.replace('"la ""parola"" 4', '"la ""parola" 4'), "not CSV"),
        (lambda t: "\n" + t, "an empty line"),
    ],
)
def test_broken_tables_are_named(change, words, tmp_path):
    refused(tmp_path, "x.csv", change(table()), words)


def test_columns_from_zero_and_a_row_a_candidate_are_named(tmp_path):
    zero = [
        dict(zip(["target", "context", *(f"score_{i}" for i in range(10))], row.values()))
        for row in records()
    ]
    refused(tmp_path, "x.csv", table(rows=zero), "number them from 1")
    long = [{"id": i, "candidate": c, "score": 0.5} for i in range(N) for c in ITEMS[i].candidates]
    refused(
        tmp_path, "x.csv", table(rows=long), "120 predictions for 12 items", "a row a candidate"
    )


# ---------------------------------------------------------------- rankings

ORDER = [[ITEMS[i].candidates[j] for j in np.argsort(-SCORES[i], kind="stable")] for i in range(N)]
RANKS = np.array(
    [[-float(names.index(c)) for c in item.candidates] for names, item in zip(ORDER, ITEMS)]
)


def ranked(separator="\t", end="\n", each=str, rows=ORDER):
    return "".join(separator.join(each(name) for name in names) + end for names in rows)


@pytest.mark.parametrize(
    "text",
    [
        ranked(),
        ranked(end="\r\n"),
        ranked(end="\t\n"),
        ranked(", ", each=lambda n: f'"{n}"'),
        ranked(","),
        ranked(";"),
        "\ufeff" + ranked(),
        "".join(f"{names}\n" for names in ORDER),
        json.dumps(ORDER),
        "\n".join(map(json.dumps, ORDER)),
        ranked(each=lambda n: n.removesuffix(".jpg")),
        json.dumps([{"id": item.id, "ranking": names} for item, names in zip(ITEMS, ORDER)]),
    ],
    ids=[
        "tabs",
        "windows",
        "trailing tab",
        "EVALITA",
        "commas",
        "semicolons",
        "mark",
        "Python lists",
        "json",
        "json lines",
        "no suffix",
        "json with ids",
    ],
)
def test_rankings_in_every_form(text, tmp_path):
    assert np.array_equal(read(tmp_path, "x.txt", text)[0], RANKS)


def test_names_without_suffix_are_counted(tmp_path):
    notes = read(tmp_path, "x.txt", ranked(each=lambda n: n.removesuffix(".jpg")))[1]
    assert any("12 of 12 lines" in note for note in notes)


@pytest.mark.parametrize(
    "text, words",
    [
        (ranked(" "), "separated by spaces"),
        ("".join(f"{names[0]}\n" for names in ORDER), "one name a line"),
        (ranked(each=str.upper), "names keep their case"),
        (ranked(rows=[ORDER[1], ORDER[0], *ORDER[2:]]), "of those of item 1"),
        (ranked(rows=[ORDER[0], ORDER[0], *ORDER[2:]]), "of those of item 0"),
        (ranked(rows=[[*ORDER[0][:9], ORDER[0][0]], *ORDER[1:]]), "stands twice"),
        (ranked(rows=[[*ORDER[0][:9], "im77.jpg"], *ORDER[1:]]), "'im77.jpg' is none of them"),
        (ranked(rows=[ORDER[0][:9], *ORDER[1:]]), "9 names"),
        ("rank1\trank2\n" + ranked(), "header"),
        (ranked(rows=ORDER[1:]), "11 predictions for 12 items"),
        (
            "\t".join(f"image_{i}" for i in range(10)) + "\n" + ranked(),
            "the first line is a header",
        ),
        (
            "\n".join("\t".join(map(str, row)) for row in np.abs(SCORES[:, :1] + np.arange(10))),
            "ten numbers",
        ),
        (ranked().encode("utf-16"), "UTF-16"),
        (ranked().encode("utf-16-le"), "UTF-16"),
        (b"\x1f\x8b\x08" + bytes(50), "gzip"),
        ("", "empty"),
        (ranked().replace("\n", "\n\n", 1), "an empty line"),
        (ranked().replace("im3", "im\x003", 1), "zero byte"),
    ],
    ids=range(18),
)
def test_other_rankings_are_named(text, words, tmp_path):
    refused(tmp_path, "x.txt", text, words)


# ---------------------------------------------------------------- zips and folders


def zipped(members, compression=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as z:
        for name, content in members.items():
            z.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    "members",
    [
        {"prediction.it.txt": ranked(), "prediction.en.txt": "x", "prediction.fa.txt": "y"},
        {"res/prediction.it.txt": ranked(), "__MACOSX/res/._prediction.it.txt": "\0\0"},
        {"mine.txt": ranked(), ".DS_Store": "\0"},
        {"IT.tsv": table("\t", rows=indexed(range(N))), "en.tsv": "x"},
        {"prediction.it.txt": ranked(), "it.readme.md": "x", "notes.it.txt": "x"},
    ],
)
def test_a_zip_gives_the_file_of_the_language(members, tmp_path):
    assert read(tmp_path, "submission.zip", zipped(members))[0].shape == (N, 10)


def test_zips_that_do_not_fit_are_named(tmp_path, monkeypatch):
    refused(
        tmp_path,
        "x.zip",
        zipped({"prediction.en.txt": "x", "prediction.fa.txt": "y"}),
        "none of its files",
        "prediction.en.txt, prediction.fa.txt",
    )
    refused(
        tmp_path,
        "x.zip",
        zipped({"a/prediction.it.txt": ranked(), "b/prediction.it.txt": ranked()}),
        "more than one",
    )
    refused(tmp_path, "x.zip", zipped({}), "none of its files")
    refused(tmp_path, "x.zip", zipped({"prediction.it.txt": ranked()})[:-30], "zip cannot be read")
    refused(
        tmp_path,
        "x.zip",
        zipped({"prediction.it.txt": ranked().upper()}),
        "x.zip: prediction.it.txt:1",
    )
    refused(
        tmp_path, "x.zip", zipped({f"{i}.txt": "" for i in range(1001)}), "more than 1000 files"
    )
    monkeypatch.setattr(answer_files, "MOST_TABLE", 5000)
    refused(
        tmp_path, "x.zip", zipped({"prediction.it.txt": "a" * 100_000}), "would unpack to more than"
    )
    lying = zipped({"prediction.it.txt": "a" * 100_000}).replace(
        (100_000).to_bytes(4, "little"), (100).to_bytes(4, "little")
    )
    refused(tmp_path, "x.zip", lying, "zip")


def test_a_folder_gives_the_file_of_the_language(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "prediction.it.txt").write_text(ranked())
    (tmp_path / "own" / "prediction.en.txt").write_text("x")
    assert np.array_equal(read_submission(tmp_path / "own", ITEMS, several=True), RANKS)
    with pytest.raises(VwsdError, match="none of its files"):
        read_submission(tmp_path / "own", make_items(language="fa"), several=True)


def test_files_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(VwsdError, match="no such file"):
        read_submission(tmp_path / "none", ITEMS)
    with pytest.raises(VwsdError, match="a device"):
        read_submission("/dev/zero", ITEMS)
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(VwsdError, match="cannot be read"):
        read_submission(tmp_path / "loop", ITEMS)
    with pytest.raises(VwsdError, match="cannot be read"):
        read_submission(tmp_path / ("x" * 300), ITEMS)
    monkeypatch.setattr(answer_files, "MOST_TABLE", 5 << 20)
    with open(tmp_path / "huge.txt", "wb") as f:
        f.truncate(6 << 20)
    with pytest.raises(VwsdError, match="more than 5 MB"):
        read_submission(tmp_path / "huge.txt", ITEMS)
    with pytest.raises(VwsdError, match="no items"):
        read_submission(tmp_path / "huge.txt", [])


def test_far_too_many_lines_and_endless_lines_are_refused_before_they_are_taken_apart(tmp_path):
    refused(tmp_path, "x.txt", "a\n" * 5000, "5000 lines")
    refused(tmp_path, "x.txt", "," * 200_000, "a line of more than 100000 characters", "x.txt:1")
    refused(tmp_path, "x.txt", ranked() + "a\t" * 100_000, "a line of more than", "x.txt:13")


def test_deep_and_large_json_is_refused(tmp_path, monkeypatch):
    refused(tmp_path, "x.json", "[" * 200_000, "JSON")
    refused(tmp_path, "x.json", '{"a":' * 100_000, "JSON")
    refused(tmp_path, "x.json", '[{"score_1": 1, "score_1": 2}]', "stands twice")
    refused(tmp_path, "x.json", json.dumps(records())[:-5], "JSON")
    monkeypatch.setattr(textfile, "MOST_JSON", 100)
    refused(tmp_path, "x.json", json.dumps(records()), "JSON")


def test_scores_that_say_nothing_are_refused_unless_allowed(tmp_path):
    for value, words in (
        (0.25, "all ten scores are equal"),
        (-math.inf, "no candidate of any item"),
    ):
        write_scores(tmp_path / "x.tsv", ITEMS, np.full((N, 10), value))
        refused(tmp_path, "x.tsv", (tmp_path / "x.tsv").read_text(), words, "--allow-ties")
        assert (
            read(tmp_path, "x.tsv", (tmp_path / "x.tsv").read_text(), allow_ties=True)[0] == value
        ).all()


# ---------------------------------------------------------------- nothing but VwsdError

SEEDS = {
    "x.tsv": table("\t").encode(),
    "x.csv": table().encode(),
    "x.json": json.dumps(records()).encode(),
    "x.jsonl": "\n".join(map(json.dumps, lists())).encode(),
    "x.txt": ranked().encode(),
    "x.zip": zipped({"prediction.it.txt": ranked(), "prediction.en.txt": "x"}),
    "y.zip": zipped({"prediction.it.txt": ranked()}, zipfile.ZIP_STORED),
    "l.zip": zipped({"prediction.it.txt": ranked()}, zipfile.ZIP_LZMA),
}
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=12)), min_size=1, max_size=4
)


def mutated(data, changes):
    for place, cut, put in changes:
        at = int(place * len(data))
        data = data[:at] + put + data[at + cut :]
    return data


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_predictions_raise_nothing_but_vwsderror(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")

    @given(edits)
    @FUZZ
    def check(changes):
        try:
            scores = read(folder, name, mutated(SEEDS[name], changes))[0]
        except VwsdError as e:
            assert e.what and len(str(e)) < 5000
        else:
            assert (
                scores.shape == (N, 10)
                and not np.isnan(scores).any()
                and not np.isposinf(scores).any()
            )

    check()


@given(
    st.lists(
        st.lists(
            st.floats(allow_nan=False, allow_infinity=False) | st.just(-math.inf),
            min_size=10,
            max_size=10,
        ),
        min_size=2,
        max_size=6,
    )
)
@FUZZ
def test_written_scores_read_back_the_same(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("scores") / "x.tsv"
    write_scores(path, ITEMS[: len(rows)], np.array(rows))
    assert np.array_equal(
        read_submission(path, ITEMS[: len(rows)], allow_ties=True), np.array(rows)
    )


WORDS = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\t\n\r"),
    min_size=1,
    max_size=12,
).filter(str.strip)


@given(WORDS, WORDS)
@FUZZ
def test_any_text_of_an_item_survives_its_table(tmp_path_factory, target, phrase):
    path = tmp_path_factory.mktemp("text") / "x.tsv"
    items = [Item("x.0", "en", target, phrase, ITEMS[0].candidates, ITEMS[0].gold), ITEMS[1]]
    write_scores(path, items, SCORES[:2])
    assert np.array_equal(read_submission(path, items), SCORES[:2])


@pytest.mark.parametrize("which", [0, 1])
def test_mutated_sets_raise_nothing_but_vwsderror(which, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    data = "".join("\t".join((i.target, i.phrase, *i.candidates)) + "\n" for i in ITEMS).encode()
    gold = "".join(f"{i.gold}\n" for i in ITEMS).encode()

    @given(edits, st.booleans())
    @FUZZ
    def check(changes, as_json):
        files = [data, gold]
        if as_json:
            files[0] = json.dumps(
                [
                    {
                        "target": i.target,
                        "text": i.phrase,
                        "candidates": i.candidates,
                        "label": i.gold,
                    }
                    for i in ITEMS
                ]
            ).encode()
        files[which] = mutated(files[which], changes)
        for name, content in zip(
            ("it.x.data.json" if as_json else "it.x.data.txt", "it.x.gold.txt"), files
        ):
            (folder / name).write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = read_items(
                    folder / ("it.x.data.json" if as_json else "it.x.data.txt"),
                    folder / "it.x.gold.txt",
                )
        except VwsdError as e:
            assert e.what
        else:
            assert all(
                item.gold in item.candidates and len(set(item.candidates)) == 10 for item in found
            )

    check()


@pytest.mark.parametrize("name", ["level_0", "instance_id", "n", "#", "sample", "query"])
def test_a_column_of_any_name_that_numbers_the_rows_out_of_order_is_refused(tmp_path, name):
    sorted_as_text = sorted(range(N), key=str)
    rows = [{name: i, **{c: float(s) for c, s in zip(COLUMNS, SCORES[i])}} for i in sorted_as_text]
    path = tmp_path / "run.csv"
    path.write_text(table(rows=rows))
    with pytest.raises(VwsdError, match="does not run in order"):
        read_submission(path, ITEMS)


@pytest.mark.parametrize("field", ["target", "phrase", "gold", "id"])
def test_a_column_of_any_name_with_the_items_own_texts_in_another_order_is_refused(tmp_path, field):
    rows = [
        {
            "whatever": getattr(ITEMS[N - 1 - i], field),
            **{c: float(s) for c, s in zip(COLUMNS, SCORES[i])},
        }
        for i in range(N)
    ]
    path = tmp_path / "run.csv"
    path.write_text(table(rows=rows))
    with pytest.raises(VwsdError, match="in another order"):
        read_submission(path, ITEMS)
