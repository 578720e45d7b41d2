"""PolCLIP's published files, made small by hand: read as they are, refused where they are wrong,
and never executed.
"""

import json
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from polclip.published import (
    convert_json,
    convert_tensors,
    load_pixels,
    read_metadata,
    read_raw,
    read_textual_test,
)
from polclip.records import load_records
from vwsdlib.errors import VwsdError

SEMCOR = {
    "token_id": "d000.s000.t001",
    "word": "bank",
    "words": ["The", "bank", "by", "the", "bank"],
    "sentence": "The bank by the bank",
    "gold_labels": ["bn:2n"],
    "gold_gloss": ["sloping land"],
    "candidate_labels": ["bn:1n", "bn:2n", "bn:3n"],
    "candidate_gloss": ["a financial institution", "sloping land", "a row"],
    "candidate_image_path": {
        "bn:1n": ["D:\\data\\image_pt\\bn1_0.pt", "D:\\data\\image_pt\\bn1_1.pt"],
        "bn:2n": ["D:\\data\\image_pt\\bn2_0.pt"],
        "bn:3n": [],
    },
}
PHRASE = SEMCOR | {
    "token_id": "kb.7",
    "word": "andromeda",
    "words": ["andromeda", "tree"],
    "sentence": "andromeda tree",
    "gold_labels": ["bn:8n"],
    "gold_gloss": ["a shrub"],
    "candidate_labels": ["bn:8n"],
    "candidate_gloss": ["a shrub"],
    "candidate_image_path": {"bn:8n": ["E:\\L-VWSD\\image_pkl\\image.8.pkl"]},
}


@pytest.fixture
def roots(tmp_path):
    """Folders with the pictures of SEMCOR and PHRASE: converted ones and, for one, an ordinary
    file.
    """
    for kind, names in {
        "semcor": ["bn1_0.safetensors", "bn1_1.jpg", "bn2_0.safetensors", "bn1_0.pt"],
        "vwsd": ["image.8.safetensors"],
    }.items():
        (tmp_path / kind).mkdir()
        for name in names:
            (tmp_path / kind / name).write_bytes(b"never opened by a reader")
    return {kind: tmp_path / kind for kind in ("semcor", "vwsd")}


@pytest.fixture
def write(tmp_path):
    def to(value, name="x.json"):
        (tmp_path / name).write_text(value if isinstance(value, str) else json.dumps(value))
        return tmp_path / name

    return to


def test_raw_records(write, roots):
    first, second = read_raw(write([SEMCOR, PHRASE]), roots)
    assert (first.id, first.target, first.span, first.golds, first.language) == (
        "d000.s000.t001",
        "bank",
        (4, 4),
        ("bn:2n",),
        "en",
    )
    assert [c.id for c in first.candidates] == SEMCOR["candidate_labels"] and [
        c.gloss for c in first.candidates
    ] == SEMCOR["candidate_gloss"]
    assert [c.pictures for c in first.candidates] == [
        (str(roots["semcor"] / "bn1_0.safetensors"), str(roots["semcor"] / "bn1_1.jpg")),
        (str(roots["semcor"] / "bn2_0.safetensors"),),
        (),
    ]
    assert second.candidates[0].pictures == (str(roots["vwsd"] / "image.8.safetensors"),)
    assert second.span == (0, 0) and second.sentence == "andromeda tree"


@pytest.mark.parametrize(
    "word, words, span",
    [
        ("Bank", ["bank", "Bank", "bank"], (1, 1)),
        ("BANK", ["a", "bank"], (1, 1)),
        ("ice cream", ["an", "ice cream"], (1, 1)),
        ("ice cream", ["an", "ice", "cream"], (1, 2)),
        ("Ice cream", ["an", "ice", "cream", "ice"], (1, 2)),
    ],
)
def test_where_the_target_stands(write, roots, word, words, span):
    assert next(read_raw(write([SEMCOR | {"word": word, "words": words}]), roots)).span == span


def test_a_gold_that_is_no_candidate_is_taken_by_its_gloss(write, roots):
    def golds(**change):
        return next(read_raw(write([SEMCOR | change]), roots)).golds

    assert golds(gold_labels=["bn:9n"]) == ("bn:2n",)
    assert golds(gold_labels=["bn:9n", "bn:3n"]) == ("bn:2n", "bn:3n") and golds(
        gold_labels=["bn:2n", "bn:9n"]
    ) == ("bn:2n",)
    assert golds(gold_labels=["bn:2n", "bn:9n"], gold_gloss=["sloping land", "sloping land"]) == (
        "bn:2n",
    )
    for change in (
        {"gold_labels": ["bn:9n"], "gold_gloss": ["else"]},
        {"gold_labels": [], "gold_gloss": []},
        {"gold_labels": ["bn:9n"], "gold_gloss": []},
    ):
        with pytest.raises(VwsdError, match="gold .* is not among"):
            golds(**change)


turned = dict(reversed(SEMCOR["candidate_image_path"].items()))
RAW_FAULTS = {
    "pictures in another order": (
        SEMCOR | {"candidate_image_path": turned},
        "order of candidate_labels",
    ),
    "a candidate without pictures": (
        SEMCOR | {"candidate_image_path": {"bn:1n": []}},
        "order of candidate_labels",
    ),
    "a gloss too few": (SEMCOR | {"candidate_gloss": ["a", "sloping land"]}, "layout"),
    "a gloss too many": (SEMCOR | {"candidate_gloss": ["a", "sloping land", "b", "c"]}, "layout"),
    "gloss is null": (SEMCOR | {"candidate_gloss": [None, "sloping land", "c"]}, "layout"),
    "no word": ({k: v for k, v in SEMCOR.items() if k != "word"}, "KeyError: 'word'"),
    "not an object": ("text", "layout"),
    "target not there": (SEMCOR | {"word": "shore"}, "target 'shore' is not among"),
    "target empty": (SEMCOR | {"word": ""}, "target '' is not among"),
    "a number among the words": (SEMCOR | {"words": ["bank", 3]}, "layout"),
    "candidate twice": (
        SEMCOR | {"candidate_labels": ["bn:2n"] * 2, "candidate_gloss": ["sloping land", "b"]},
        "order of candidate_labels",
    ),
}


@pytest.mark.parametrize("bad, said", RAW_FAULTS.values(), ids=RAW_FAULTS)
def test_faults_of_raw_records_name_the_item(write, roots, bad, said):
    path = write([SEMCOR, bad])
    read = read_raw(path, roots)
    assert next(read).golds == ("bn:2n",)
    with pytest.raises(VwsdError, match=said) as e:
        next(read)
    assert e.value.where == f"{path}: item 2"


@pytest.mark.parametrize(
    "text, said",
    [
        ("[{", "whole JSON after item 0"),
        (json.dumps([PHRASE])[:-1], "whole JSON after item 1"),
        ("[]", "nothing"),
        ("{}", "nothing"),
        ("", "whole JSON"),
        (json.dumps([PHRASE]) + "x", "whole JSON"),
    ],
)
def test_files_that_are_not_whole(write, roots, text, said):
    with pytest.raises(VwsdError, match=said):
        list(read_raw(write(text), roots))
    with pytest.raises(VwsdError, match="cannot be read"):
        list(read_raw("no.json", roots))


def test_missing_pictures_are_an_error_or_reported_once(write, roots):
    (roots["semcor"] / "bn1_0.safetensors").unlink()  # the .pt beside it does not count
    path = write([SEMCOR, SEMCOR | {"token_id": "t2"}])
    with pytest.raises(VwsdError, match="no picture file for bn1_0.pt") as e:
        next(read_raw(path, roots))
    assert (
        "vwsd convert pictures" in e.value.remedy
        and "drop" in e.value.remedy
        and e.value.where.endswith("item 1")
    )
    with pytest.warns(UserWarning, match=r"1 pictures are missing .*bn1_0.pt.*item 1") as warned:
        records = list(read_raw(path, roots, missing="drop"))
    assert len(warned) == 1 and [len(c.pictures) for c in records[1].candidates] == [1, 1, 0]
    with pytest.raises(VwsdError, match="kind 'vwsd'"):
        list(read_raw(write([PHRASE]), {"semcor": roots["semcor"]}))
    with pytest.raises(VwsdError, match="no such folder"):
        list(read_raw(write([PHRASE]), {"vwsd": roots["vwsd"] / "no"}))
    with pytest.raises(VwsdError, match="unknown way with missing pictures 'skip'"):
        list(read_raw(write([PHRASE]), roots, missing="skip"))


def test_a_picture_name_cannot_leave_its_folder(write, roots, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"")
    for name in ("..\\secret.jpg", "../secret.jpg", f"{tmp_path}/secret.jpg"):
        with pytest.raises(VwsdError, match="no picture file for secret.jpg"):
            list(
                read_raw(
                    write(
                        [
                            SEMCOR
                            | {"candidate_image_path": {"bn:1n": [name], "bn:2n": [], "bn:3n": []}}
                        ]
                    ),
                    roots,
                )
            )


def test_reading_streams(write, roots):
    path = write([SEMCOR | {"sentence": "x" * 1000}] * 3000)

    def peak(read):
        tracemalloc.start()
        assert sum(1 for _ in read(path)) == 3000
        return (tracemalloc.get_traced_memory()[1], tracemalloc.stop())[0]

    assert (
        sum(1 for _ in read_raw(path, roots)) == 3000
    )  # what it imports is there before memory is counted
    assert 8 * peak(lambda p: read_raw(p, roots)) < peak(lambda p: json.loads(p.read_text()))


def metadata() -> dict:
    """A batch of two instances: three senses with 2, 0 and 1 pictures, then one sense with one."""
    files = ["D:\\a\\bn1_0.pt", "D:\\a\\bn1_1.pt", "D:\\a\\bn2_0.pt", "E:\\image_pkl\\image.8.pkl"]
    return {
        "id": 41,
        "word": ["bank", "andromeda"],
        "word_list": [SEMCOR["words"], ["andromeda", "tree"]],
        "sentence": ["The bank by the bank", "andromeda tree"],
        "sentence2gloss_labels": [2, 0],
        "gold_gloss": ["sloping land", "a shrub"],
        "candidate_gloss_labels": [[0, 3], [3, 4]],
        "candidate_gloss": [["money", "a row", "sloping land"], ["a shrub"]],
        "total_candidate_gloss": ["money", "a row", "sloping land", "a shrub"],
        "gloss2image_labels": [[0, 2], [2, 2], [2, 3], [3, 4]],
        "candidate_image": [files[:2], [], files[2:3], files[3:]],
        "total_candidate_image": files,
        "image2gloss_labels": [0, 0, 2, 3],
        "sentence2image_labels": [[2, 3], [3, 4]],
        "sentence_tokens": [[49406, 0]],
        "sentence_mask": [[2, 3], [1, 2]],
    }


def test_pre_built_batches_are_replayed(write, roots):
    twin = metadata() | {
        "id": 42,
        "total_candidate_gloss": ["money", "money", "sloping land", "a shrub"],
        "candidate_gloss": [["money", "money", "sloping land"], ["a shrub"]],
    }
    batch, second = read_metadata(write([metadata(), twin]), roots)
    assert [r.id for r in batch] == ["41.0", "41.1"] and [r.span for r in batch] == [(4, 4), (0, 0)]
    assert [[c.gloss for c in r.candidates] for r in batch] == metadata()["candidate_gloss"]
    assert [[c.gloss for c in r.candidates if c.id in r.golds] for r in batch] == [
        ["sloping land"],
        ["a shrub"],
    ]
    assert [[os.path.basename(p) for p in c.pictures] for r in batch for c in r.candidates] == [
        ["bn1_0.safetensors", "bn1_1.jpg"],
        [],
        ["bn2_0.safetensors"],
        ["image.8.safetensors"],
    ]
    one, other = (r.candidates for r in (batch[0], second[0]))
    assert (
        one[0].id == other[0].id and other[0].id != other[1].id and one[2].id == other[2].id
    )  # equal senses have equal ids, once a record


METADATA_FAULTS = {
    "sense range too long": {"candidate_gloss_labels": [[0, 3], [3, 5]]},
    "sense range too short": {"candidate_gloss_labels": [[0, 2], [3, 4]]},
    "sense ranges overlap": {"candidate_gloss_labels": [[0, 3], [2, 4]]},
    "sense range turned": {"candidate_gloss_labels": [[3, 0], [3, 4]]},
    "a sense range missing": {"candidate_gloss_labels": [[0, 4]]},
    "gold outside": {"sentence2gloss_labels": [3, 0]},
    "gold negative": {"sentence2gloss_labels": [-1, 0]},
    "gold is a fraction": {"sentence2gloss_labels": [1.0, 0]},
    "picture range too long": {"gloss2image_labels": [[0, 2], [2, 2], [2, 3], [3, 9]]},
    "picture range negative": {"gloss2image_labels": [[-2, 2], [2, 2], [2, 3], [3, 4]]},
    "picture range missing": {"gloss2image_labels": [[0, 2], [2, 3], [3, 4]]},
    "pictures shifted": {"gloss2image_labels": [[0, 1], [1, 2], [2, 3], [3, 4]]},
    "picture of another sense": {"image2gloss_labels": [0, 0, 1, 3]},
    "sentence's pictures outside": {"sentence2image_labels": [[2, 3], [3, 5]]},
    "nested pictures differ": {"candidate_image": [[], [], [], []]},
    "nested glosses differ": {"candidate_gloss": [["a", "b", "c"], ["d"]]},
    "a word missing": {"word": ["bank"]},
    "pairs are numbers": {"gloss2image_labels": [0, 1, 2, 3]},
}


@pytest.mark.parametrize("change", METADATA_FAULTS.values(), ids=METADATA_FAULTS)
def test_wrong_ranges_name_the_item(write, roots, change):
    path = write([metadata(), metadata() | change])
    read = read_metadata(path, roots)
    next(read)
    with pytest.raises(VwsdError) as e:
        next(read)
    assert e.value.where == f"{path}: item 2"


def test_textual_test_file(write):
    item = {
        k: v
        for k, v in SEMCOR.items()
        if k not in ("candidate_image_path", "gold_gloss", "sentence")
    } | {
        "pos": "NOUN",
        "class": "07",
        "sentence2gloss_labels": [1],
        "candidate_gloss_labels": [[0, 3]],
        "sentence_tokens": [[[1]]],
        "gold_labels": ["bn:2n", "bn:3n"],
    }
    record, odd, classic = read_textual_test(
        write([item, item | {"gold_labels": ["bn:0n"]}, item | {"class": "02"}])
    )
    assert (record.golds, record.pos, record.set, record.span) == (
        ("bn:2n", "bn:3n"),
        "NOUN",
        "SE07",
        (4, 4),
    ) and classic.set == "SE2"
    assert odd.golds == ("bn:2n",) and not any(c.pictures for c in record.candidates)
    for change, said in (
        ({"class": "99"}, "99"),
        ({"gold_labels": ["bn:0n"], "sentence2gloss_labels": [3]}, "index of a gold is 3"),
    ):
        with pytest.raises(VwsdError, match=said):
            list(read_textual_test(write([item | change])))


def test_json_is_converted_to_records(write, roots, tmp_path):
    assert convert_json(write([SEMCOR, PHRASE]), tmp_path / "r.jsonl", "raw", roots) == 2
    assert list(load_records(tmp_path / "r.jsonl")) == list(read_raw(tmp_path / "x.json", roots))
    assert (
        "semcor/bn1_1.jpg" in (tmp_path / "r.jsonl").read_text()
        and str(tmp_path) not in (tmp_path / "r.jsonl").read_text()
    )
    assert convert_json(write([metadata()]), tmp_path / "m.jsonl", "metadata", roots) == 2
    assert list(load_records(tmp_path / "m.jsonl")) == next(
        read_metadata(tmp_path / "x.json", roots)
    )
    with pytest.raises(VwsdError, match="unknown kind 'else'"):
        convert_json(tmp_path / "x.json", tmp_path / "n.jsonl", "else", roots)


# ---- tensors ----

PIXELS = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tensors_are_converted(tmp_path, dtype, protocol):
    tensor = PIXELS.to(dtype, copy=True)
    (tmp_path / "s").mkdir()
    torch.save(tensor, tmp_path / "s" / "a.pt")
    torch.save(
        {"image": tensor.requires_grad_()},
        tmp_path / "s" / "b.pt",
        _use_new_zipfile_serialization=False,
    )
    (tmp_path / "s" / "c.jpg.pkl").write_bytes(
        pickle.dumps({"c.jpg": tensor.detach()}, protocol=protocol)
    )
    (tmp_path / "s" / "notes.txt").write_text("left alone")
    assert convert_tensors(tmp_path / "s", tmp_path / "t") == 3
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == [
        "a.safetensors",
        "b.safetensors",
        "c.jpg.safetensors",
    ]
    for path in (tmp_path / "t").iterdir():
        [stored] = load_file(path).values()
        assert stored.dtype == (np.float16 if dtype == torch.float16 else np.float32)
        pixels = load_pixels(path)
        assert pixels.dtype == np.float32 and np.array_equal(
            pixels, tensor.detach().float().numpy()
        )


def test_a_second_run_goes_on(tmp_path):
    (tmp_path / "s").mkdir()
    for name in "abc":
        torch.save(PIXELS.half(), tmp_path / "s" / f"{name}.pt")
    convert_tensors(tmp_path / "s", tmp_path / "t")
    before = (tmp_path / "t" / "a.safetensors").stat().st_mtime_ns
    whole = (tmp_path / "t" / "b.safetensors").read_bytes()
    (tmp_path / "t" / "b.safetensors").write_bytes(whole[:-1])  # cut short
    (tmp_path / "t" / "c.safetensors").unlink()
    assert (
        convert_tensors(tmp_path / "s", tmp_path / "t") == 2
        and convert_tensors(tmp_path / "s", tmp_path / "t") == 0
    )
    assert (tmp_path / "t" / "b.safetensors").read_bytes() == whole and (
        tmp_path / "t" / "a.safetensors"
    ).stat().st_mtime_ns == before
    for folder in (tmp_path, tmp_path / "s"):
        (tmp_path / "s" / "a.pkl").write_bytes(b"")
        with pytest.raises(VwsdError, match="no .pt or .pkl files, or two"):
            convert_tensors(folder, tmp_path / "t")


class Hostile:
    """Runs a command where it is unpickled by ordinary means."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Nested:
    """Hides the same inside the bytes of a storage, which torch's own `_load_from_bytes` would
    unpickle.
    """

    def __init__(self, inner: bytes):
        self.inner = inner

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.inner,)


def hostile_files(folder, trap) -> dict[str, object]:
    torch.save(Hostile(trap), folder / "inner.bin")
    inner = (folder / "inner.bin").read_bytes()
    old = folder / "old.bin"
    torch.save(Hostile(trap), old, _use_new_zipfile_serialization=False)
    return {
        "plain.pkl": pickle.dumps({"x": Hostile(trap)}),
        "protocol0.pkl": pickle.dumps({"x": Hostile(trap)}, protocol=0),
        "zip.pt": inner,
        "old.pt": old.read_bytes(),
        "nested.pkl": pickle.dumps({"x": Nested(inner)}),
        "nested_old.pkl": pickle.dumps({"x": Nested(old.read_bytes())}),
        "builtin.pkl": b"cbuiltins\neval\n(S'1'\ntR.",
        "dotted.pkl": pickle.dumps({"x": Hostile(trap)}).replace(b"posix", b"torch"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "plain.pkl",
        "protocol0.pkl",
        "zip.pt",
        "old.pt",
        "nested.pkl",
        "nested_old.pkl",
        "builtin.pkl",
        "dotted.pkl",
    ],
)
def test_a_hostile_file_is_refused_and_nothing_executed(tmp_path, name):
    trap, data = tmp_path / "trap", hostile_files(tmp_path, tmp_path / "trap")[name]
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / name).write_bytes(data)
    with pytest.raises(VwsdError, match="nothing was executed") as e:
        convert_tensors(tmp_path / "s", tmp_path / "t")
    assert any(word in e.value.what for word in ("mkdir", "eval")) and e.value.where == str(
        tmp_path / "s" / name
    )
    assert not trap.exists() and not (tmp_path / "t").exists()


def test_the_trap_would_work(tmp_path):
    pickle.loads(hostile_files(tmp_path, tmp_path / "trap")["plain.pkl"])
    assert (tmp_path / "trap").is_dir()
    pickle.loads(hostile_files(tmp_path, tmp_path / "trap2")["nested.pkl"])
    assert (tmp_path / "trap2").is_dir()


def test_damaged_and_odd_files(tmp_path):
    torch.save(PIXELS, tmp_path / "whole.bin")
    whole, pickled = (tmp_path / "whole.bin").read_bytes(), pickle.dumps({"x": PIXELS})
    odd = {
        "cut.pt": whole[:-500],
        "empty.pt": b"",
        "cut.pkl": pickled[:-500],
        "empty.pkl": b"",
        "text.pkl": b"hello",
        "zip.pkl": whole,
        "nothing.pkl": pickle.dumps({}),
        "two.pkl": pickle.dumps({"a": PIXELS, "b": PIXELS}),
        "small.pkl": pickle.dumps({"x": PIXELS[:, :8]}),
        "list.pkl": pickle.dumps([PIXELS]),
        "nan.pkl": pickle.dumps({"x": PIXELS / 0 * 0}),
        "bytes.pkl": pickle.dumps({"x": (PIXELS * 0).to(torch.uint8)}),
        "number.pkl": pickle.dumps({"x": 3}),
    }
    for name, data in odd.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(data)
        with pytest.raises(VwsdError) as e:
            convert_tensors(tmp_path / name, tmp_path / "t")
        assert e.value.where == str(tmp_path / name / name), name
    assert zipfile.is_zipfile(tmp_path / "whole.bin") and not (tmp_path / "t").exists()


def test_pixels_are_checked(tmp_path):
    good = PIXELS.numpy()
    broken = good.copy()
    broken[0, 0, 0] = np.inf
    for tensors in (
        {"a": good[:, :1]},
        {"a": broken},
        {"a": good, "b": good},
        {},
        {"a": good.astype(np.int32)},
    ):
        save_file(tensors, tmp_path / "x.safetensors")
        with pytest.raises(VwsdError, match="one tensor"):
            load_pixels(tmp_path / "x.safetensors")
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg")
    for name in ("x.jpg", "no.safetensors"):
        with pytest.raises(VwsdError, match="cannot be read"):
            load_pixels(tmp_path / name)
    save_file({"any": good.astype(np.float16)}, tmp_path / "x.safetensors")
    assert np.array_equal(
        load_pixels(tmp_path / "x.safetensors"), good.astype(np.float16).astype(np.float32)
    )
