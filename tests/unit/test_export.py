"""Stored predictions in other formats: what is written gives the same figures back."""

import json
import zipfile

import numpy as np
import pytest

from vwsd_companion import cli
from vwsd_companion.facts import export
from vwsd_companion.facts.predictions import read_predictions, write_predictions
from vwsdlib.analysis.metrics import gold_ranks
from vwsdlib.analysis.reading import read_submission as read_system
from vwsdlib.data.sets import user_set
from vwsdlib.errors import VwsdError


@pytest.fixture
def stored(official, tmp_path):
    """A run of six items with a tie at the top of the first, as a file."""
    data = user_set(*official)
    scores = np.random.default_rng(0).random((6, 10)).astype(np.float32)
    scores[0, 3] = scores[0, 7] = 2
    write_predictions(
        tmp_path / "results",
        "toy.phrase.en.toy",
        data,
        [item.phrase for item in data.items],
        scores,
        profile="mine",
        variant="phrase",
        identity={
            "model": "toy",
            "revision": "1",
            "weights_sha256": "",
            "processor": "none",
            "image_variant": "as stored",
            "dtype": "float32",
            "device": "cpu",
        },
    )
    return tmp_path / "results" / "predictions" / "toy.phrase.en.toy.jsonl"


def ranks(path, stored):
    its = read_predictions(stored)
    return gold_ranks(
        read_system(path, its.items), [item.gold_index for item in its.items]
    ).tolist()


def test_a_submission_and_its_zip_score_as_the_run_does(stored, tmp_path, capsys):
    for again in range(2):
        assert (
            cli.main(
                [
                    "export",
                    str(stored),
                    "--to",
                    "submission",
                    "--out",
                    str(tmp_path / f"out{again}"),
                ]
            )
            == 0
        )
    text, packed = map(str, capsys.readouterr().out.splitlines()[-2:])
    assert text.endswith("prediction.en.txt") and packed.endswith("submission.zip")
    its = read_predictions(stored)
    assert ranks(text, stored) == its.ranks.tolist()
    first = open(text, encoding="utf-8").read().splitlines()[0].split("\t")
    assert first[:2] == [
        its.items[0].candidates[3],
        its.items[0].candidates[7],
    ]  # of equals the earlier candidate
    with zipfile.ZipFile(packed) as z:
        assert (
            z.namelist() == ["prediction.en.txt"]
            and z.read("prediction.en.txt") == open(text, "rb").read()
        )
    assert (tmp_path / "out0" / "submission.zip").read_bytes() == (
        tmp_path / "out1" / "submission.zip"
    ).read_bytes()


def test_scores_are_what_vwsd_score_reads(stored, tmp_path):
    (path,) = export.scores([read_predictions(stored)], tmp_path / "out")
    its = read_predictions(stored)
    assert ranks(path, stored) == its.ranks.tolist() and np.array_equal(
        read_system(path, its.items), its.scores
    )


def test_parquet_and_dataset_hold_every_row_and_what_made_it(stored, tmp_path):
    import pandas as pd
    from datasets import load_from_disk

    its = read_predictions(stored)
    assert cli.main(["export", str(stored), "--to", "parquet", "--out", str(tmp_path / "out")]) == 0
    assert cli.main(["export", str(stored), "--to", "dataset", "--out", str(tmp_path / "out")]) == 0
    frame, found = (
        pd.read_parquet(tmp_path / "out" / "predictions.parquet"),
        load_from_disk(str(tmp_path / "out" / "predictions")),
    )
    assert frame["rank"].tolist() == found["rank"][:] == its.ranks.tolist() and set(
        frame.columns
    ) == set(found.column_names)
    assert np.array_equal(np.stack(frame["scores"]), its.scores) and np.array_equal(
        np.array(found["scores"][:], np.float32), its.scores
    )
    assert (
        frame["candidates"][2].tolist() == list(its.items[2].candidates)
        and set(frame["data_sha256"]) == {its.meta["data_sha256"]}
        and set(frame["limit"]) == {0}
    )


def test_what_makes_no_submission_is_refused(stored, tmp_path, capsys):
    assert (
        cli.main(
            [
                "export",
                str(stored),
                str(stored),
                "--to",
                "submission",
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 2
    )
    assert "one run a language" in capsys.readouterr().err
    assert (
        cli.main(
            ["export", str(stored), str(stored), "--to", "scores", "--out", str(tmp_path / "out")]
        )
        == 2
        and "one name" in capsys.readouterr().err
    )
    meta = stored.with_name("toy.phrase.en.toy.meta.json")
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"limit": 6}))
    with pytest.raises(VwsdError, match="first 6 items only"):
        export.submission([read_predictions(stored)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wrong_format_and_a_missing_file_are_named(stored, tmp_path, capsys):
    assert cli.main(["export", str(stored), "--to", "parket", "--out", str(tmp_path)]) == 2
    assert "parquet" in capsys.readouterr().err
    assert (
        cli.main(
            [
                "export",
                str(stored.with_name("none.jsonl")),
                "--to",
                "scores",
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 2
    )
    assert "cannot be read" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_dataset_takes_the_place_of_an_earlier_one_and_of_nothing_else(
    stored, tmp_path, capsys, monkeypatch
):
    from datasets import Dataset, load_from_disk

    runs, out = [read_predictions(stored)], tmp_path / "out"
    for _ in range(2):
        export.dataset(runs, out)
        assert len(load_from_disk(str(out / "predictions"))) == 6 and [
            p.name for p in out.iterdir()
        ] == ["predictions"]

    def full(self, folder):
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Dataset, "save_to_disk", full)
    with pytest.raises(VwsdError, match="No space left on device.*Free some space"):
        export.dataset(runs, out)
    monkeypatch.undo()
    assert len(load_from_disk(str(out / "predictions"))) == 6 and [
        p.name for p in out.iterdir()
    ] == ["predictions"]
    (tmp_path / "other" / "predictions").mkdir(parents=True)
    (tmp_path / "other" / "predictions" / "thesis.txt").write_text("x")
    assert (
        cli.main(["export", str(stored), "--to", "dataset", "--out", str(tmp_path / "other")]) == 2
        and "left alone" in capsys.readouterr().err
    )
    assert [p.name for p in (tmp_path / "other" / "predictions").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "key, value",
    [
        ("language", "../../x"),
        ("language", "/etc/x"),
        ("run", "../../x"),
        ("run", "a\0b"),
        ("language", ".."),
        ("run", ""),
        ("split", "a/b"),
    ],
)
@pytest.mark.parametrize("form", export.FORMATS)
def test_a_fact_that_names_another_place_writes_nothing_there(
    stored, tmp_path, key, value, form, capsys
):
    meta = stored.with_name("toy.phrase.en.toy.meta.json")
    made = json.loads(meta.read_text()) | {key: value}
    made.pop("lines_sha256")
    meta.write_text(json.dumps(made))
    if key == "language":
        lines = [
            json.dumps(json.loads(line) | {"language": value})
            for line in stored.read_text().splitlines()
        ]
        stored.write_text("\n".join(lines) + "\n")
    before = set(tmp_path.rglob("*"))
    assert (
        cli.main(
            ["export", str(stored), "--to", form, "--out", str(tmp_path / "deep" / "er" / "out")]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert (
        f"{key}: the name" in error and "no file is named after it" in error and meta.name in error
    )
    assert set(tmp_path.rglob("*")) == before


def test_an_output_that_is_a_file_or_a_device_is_refused(stored, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", "/dev/null"):
        for form in export.FORMATS:
            assert cli.main(["export", str(stored), "--to", form, "--out", str(out)]) == 2, (
                out,
                form,
            )
            assert capsys.readouterr().err.startswith("vwsd export: cannot write the")
