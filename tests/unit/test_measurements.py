"""Measurements come back as they went, with the same bytes each time; what is damaged is refused by
name.
"""

import json

import numpy as np
import pytest

from vwsd_companion.facts.measurements import read_measurement, write_measurement
from vwsdlib.errors import VwsdError

RECORDS = [
    {"scene": "a", "value": 1 / 3, "none": None},
    {"scene": "ذهب", "value": -0.0, "list": [1, 2]},
    {"scene": "c\u2028d\u0085e", "value": 1e-9},
]
MAPS = {
    "b": np.linspace(0, 1, 12).reshape(3, 4),
    "a": np.full((2, 2), 1 / 3, np.float32),
    "mask": np.eye(3) > 0,
}


def write(folder, name="toy", records=RECORDS, maps=MAPS, **meta):
    return write_measurement(
        folder,
        name,
        records,
        maps,
        **{"profile": "demo", "dataset": "emojiwsd", "crops": 300, **meta},
    )


def test_records_meta_and_maps_come_back(tmp_path):
    written = write(tmp_path)
    back = read_measurement(tmp_path / "measured" / "toy.jsonl")
    assert (
        back.records == written.records == RECORDS
        and back.meta == written.meta
        and back.name == "toy"
    )
    assert (
        back.meta["records"] == 3
        and back.meta["crops"] == 300
        and len(back.meta["code_sha256"]) == 64
        and back.meta["versions"]["numpy"]
    )
    assert set(back.maps) == set(MAPS)
    for name, found in back.maps.items():
        assert found.dtype == np.float32 and found.shape == MAPS[name].shape
        assert np.array_equal(
            found, np.asarray(MAPS[name], np.float16).astype(np.float32)
        )  # half precision on disk
        np.testing.assert_allclose(found, MAPS[name], atol=3e-4)
    assert not np.array_equal(back.maps["a"], MAPS["a"])  # so the last bits do go


def test_measurements_without_maps_or_records(tmp_path):
    write(tmp_path, "bare", [], None)
    back = read_measurement(tmp_path / "measured" / "bare.jsonl")
    assert (back.records, back.maps, back.meta["records"]) == ([], {}, 0)
    assert sorted(p.name for p in (tmp_path / "measured").iterdir()) == [
        "bare.jsonl",
        "bare.meta.json",
    ]


def test_the_same_facts_give_the_same_bytes(tmp_path):
    write(tmp_path / "one")
    write(tmp_path / "two", records=iter(RECORDS), maps=dict(reversed(MAPS.items())))
    write(tmp_path / "other", crops=301, maps={**MAPS, "a": MAPS["a"] + 0.01})
    one, two, other = (
        {p.name: p.read_bytes() for p in (tmp_path / folder / "measured").iterdir()}
        for folder in ("one", "two", "other")
    )
    assert one == two and len(one) == 3
    assert [name for name in one if one[name] != other[name]] and one["toy.jsonl"] == other[
        "toy.jsonl"
    ]
    assert (
        one["toy.safetensors"] != other["toy.safetensors"]
        and one["toy.meta.json"] != other["toy.meta.json"]
    )


@pytest.mark.parametrize(
    "file, change",
    [
        ("toy.jsonl", lambda b: b.split(b"\n", 1)[1]),
        ("toy.jsonl", lambda b: b + b'{"scene": "x"}\n'),
        ("toy.jsonl", lambda b: b[:-9]),
        ("toy.jsonl", lambda b: b""),
        ("toy.meta.json", lambda b: b[:40]),
        ("toy.meta.json", lambda b: None),
        ("toy.meta.json", lambda b: b"{}"),
        ("toy.safetensors", lambda b: b[:-5]),
        ("toy.safetensors", lambda b: b""),
    ],
    ids=[
        "a line gone",
        "a line more",
        "cut short",
        "empty",
        "meta cut",
        "meta gone",
        "meta of nothing",
        "maps cut",
        "maps empty",
    ],
)
def test_what_is_damaged_is_refused_by_name(tmp_path, file, change):
    write(tmp_path)
    path = tmp_path / "measured" / file
    (
        path.write_bytes(changed)
        if (changed := change(path.read_bytes())) is not None
        else path.unlink()
    )
    with pytest.raises(VwsdError, match="toy.jsonl.*--force"):
        read_measurement(tmp_path / "measured" / "toy.jsonl")


def test_writing_again_without_maps_leaves_no_old_ones(tmp_path):
    write(tmp_path)
    write(tmp_path, maps=None)
    assert read_measurement(tmp_path / "measured" / "toy.jsonl").maps == {}


def test_a_run_measures_under_its_own_parameters(official, own_folders, monkeypatch):
    from vwsd_companion.notebook import start
    from vwsdlib.data.sets import user_set
    from vwsdlib.paths import results_dir

    monkeypatch.delenv("VWSD_STAGING", raising=False)
    data = user_set(*official)
    start("05_saliency", profile="demo", seed=4, limit=2).measure("toy", data, RECORDS[:1], crops=7)
    meta = read_measurement(results_dir("demo") / "measured" / "toy.jsonl").meta
    assert (meta["profile"], meta["seed"], meta["limit"], meta["crops"]) == ("demo", 4, 2, 7)
    assert (meta["dataset"], meta["language"], meta["split"], meta["data_sha256"]) == (
        data.name,
        "en",
        "user",
        data.sha256,
    )
    assert json.loads((results_dir("demo") / "measured" / "toy.jsonl").read_text()) == RECORDS[0]
