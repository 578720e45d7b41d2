"""Stored predictions in other formats: what is written gives the same figures back."""

import json
import zipfile

import numpy as np
import pytest

from vwsdlib import cli
from vwsdlib.analysis.metrics import gold_ranks
from vwsdlib.analysis.scoring import read_predictions as read_system
from vwsdlib.data.sets import user_set
from vwsdlib.errors import VwsdError
from vwsdlib.results import export
from vwsdlib.results.predictions import read_predictions, write_predictions


@pytest.fixture
def stored(official, tmp_path):
    """A run of six items with a tie at the top of the first, as a file."""
    data = user_set(*official)
    scores = np.random.default_rng(0).random((6, 10)).astype(np.float32)
    scores[0, 3] = scores[0, 7] = 2
    write_predictions(tmp_path / "results", "toy.phrase.en.toy", data, [item.phrase for item in data.items], scores, profile="mine", variant="phrase",
                      identity={"model": "toy", "revision": "1", "weights_sha256": "", "processor": "none", "image_variant": "as stored", "dtype": "float32", "device": "cpu"})
    return tmp_path / "results" / "predictions" / "toy.phrase.en.toy.jsonl"


def ranks(path, stored):
    its = read_predictions(stored)
    return gold_ranks(read_system(path, its.items), [item.gold_index for item in its.items]).tolist()


def test_a_submission_and_its_zip_score_as_the_run_does(stored, tmp_path, capsys):
    for again in range(2):
        assert cli.main(["export", str(stored), "--to", "submission", "--out", str(tmp_path / f"out{again}")]) == 0
    text, packed = map(str, capsys.readouterr().out.splitlines()[-2:])
    assert text.endswith("prediction.en.txt") and packed.endswith("submission.zip")
    its = read_predictions(stored)
    assert ranks(text, stored) == its.ranks.tolist()
    first = open(text, encoding="utf-8").read().splitlines()[0].split("\t")
    assert first[:2] == [its.items[0].candidates[3], its.items[0].candidates[7]]              # of equals the earlier candidate
    with zipfile.ZipFile(packed) as z:
        assert z.namelist() == ["prediction.en.txt"] and z.read("prediction.en.txt") == open(text, "rb").read()
    assert (tmp_path / "out0" / "submission.zip").read_bytes() == (tmp_path / "out1" / "submission.zip").read_bytes()


def test_scores_are_what_vwsd_score_reads(stored, tmp_path):
    path, = export.scores([read_predictions(stored)], tmp_path / "out")
    its = read_predictions(stored)
    assert ranks(path, stored) == its.ranks.tolist() and np.array_equal(read_system(path, its.items), its.scores)


def test_parquet_and_dataset_hold_every_row_and_what_made_it(stored, tmp_path):
    import pandas as pd
    from datasets import load_from_disk

    its = read_predictions(stored)
    assert cli.main(["export", str(stored), "--to", "parquet", "--out", str(tmp_path / "out")]) == 0
    assert cli.main(["export", str(stored), "--to", "dataset", "--out", str(tmp_path / "out")]) == 0
    frame, found = pd.read_parquet(tmp_path / "out" / "predictions.parquet"), load_from_disk(str(tmp_path / "out" / "predictions"))
    assert frame["rank"].tolist() == found["rank"][:] == its.ranks.tolist() and set(frame.columns) == set(found.column_names)
    assert np.array_equal(np.stack(frame["scores"]), its.scores) and np.array_equal(np.array(found["scores"][:], np.float32), its.scores)
    assert frame["candidates"][2].tolist() == list(its.items[2].candidates) and set(frame["data_sha256"]) == {its.meta["data_sha256"]} and set(frame["limit"]) == {0}


def test_what_makes_no_submission_is_refused(stored, tmp_path, capsys):
    assert cli.main(["export", str(stored), str(stored), "--to", "submission", "--out", str(tmp_path / "out")]) == 2
    assert "one run a language" in capsys.readouterr().err
    assert cli.main(["export", str(stored), str(stored), "--to", "scores", "--out", str(tmp_path / "out")]) == 2 and "one name" in capsys.readouterr().err
    meta = stored.with_name("toy.phrase.en.toy.meta.json")
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"limit": 6}))
    with pytest.raises(VwsdError, match="first 6 items only"):
        export.submission([read_predictions(stored)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wrong_format_and_a_missing_file_are_named(stored, tmp_path, capsys):
    assert cli.main(["export", str(stored), "--to", "parket", "--out", str(tmp_path)]) == 2
    assert "parquet" in capsys.readouterr().err
    assert cli.main(["export", str(stored.with_name("none.jsonl")), "--to", "scores", "--out", str(tmp_path / "out")]) == 2
    assert "cannot be read" in capsys.readouterr().err and not (tmp_path / "out").exists()
