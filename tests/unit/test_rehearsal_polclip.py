"""The rehearsal's PolCLIP files: the published layout, whole and small, the same bytes each time;
the project's own readers take them.
"""

import json
import time
from pathlib import PureWindowsPath

import numpy as np
import pytest
from safetensors.numpy import load_file

from polclip.published import load_pixels, read_metadata, read_textual_test
from vwsd_standins.rehearsal import polclip
from vwsdlib.errors import VwsdError

BATCH = {
    "id",
    "word",
    "word_list",
    "sentence",
    "sentence2gloss_labels",
    "gold_gloss",
    "candidate_gloss_labels",
    "candidate_gloss",
    "total_candidate_gloss",
    "gloss2image_labels",
    "candidate_image",
    "total_candidate_image",
    "image2gloss_labels",
    "sentence2image_labels",
    "sentence_tokens",
    "sentence_mask",
    "gloss_tokens",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return polclip.make_polclip(tmp_path_factory.mktemp("polclip"))


def everything(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def roots(folder):
    return {kind: folder / name for kind, name in polclip.FOLDERS.items()}


def test_names_and_sizes_are_as_promised(made):
    pictures = [p for name in polclip.FOLDERS.values() for p in (made / name).iterdir()]
    assert all((made / name).is_file() for name in polclip.FILES) and 30 <= len(pictures) <= 40
    batches = [
        batch for name in polclip.FILES[:2] for batch in json.loads((made / name).read_text())
    ]
    assert (
        len(batches) == 6
        and all(set(batch) == BATCH for batch in batches)
        and max(len(b["total_candidate_gloss"]) for b in batches) == 10
    )
    for path in pictures:
        (tensor,) = load_file(path).values()
        assert (
            tensor.shape == (3, 224, 224)
            and tensor.dtype == np.float16
            and load_pixels(path).std() > 0.5
        )


def test_paths_of_another_machine_lead_to_the_files_and_no_file_is_left_over(made):
    for name, kind in zip(polclip.FILES, polclip.FOLDERS):
        listed = {
            p
            for batch in json.loads((made / name).read_text())
            for p in batch["total_candidate_image"]
        }
        assert all(p[1:3] == ":\\" for p in listed) and {"pkl" in p for p in listed} == {
            kind == "vwsd"
        }
        shown = {
            p
            for batch in read_metadata(made / name, roots(made))
            for r in batch
            for c in r.candidates
            for p in c.pictures
        }
        assert {PureWindowsPath(p).stem for p in listed} == {
            p.stem for p in (made / polclip.FOLDERS[kind]).iterdir()
        }
        assert shown == {str(p) for p in (made / polclip.FOLDERS[kind]).iterdir()}


def test_batches_read_back_as_they_were_written(made):
    for name in polclip.FILES[:2]:
        for raw, batch in zip(
            json.loads((made / name).read_text()),
            read_metadata(made / name, roots(made)),
            strict=True,
        ):
            assert [r.target for r in batch] == raw["word"] and [
                list(r.words) for r in batch
            ] == raw["word_list"]
            assert [next(c.gloss for c in r.candidates if c.id in r.golds) for r in batch] == raw[
                "gold_gloss"
            ]
            assert [len(c.pictures) for r in batch for c in r.candidates] == [
                e - b for b, e in raw["gloss2image_labels"]
            ]
            for (first, last), ids, words, word in zip(
                raw["sentence_mask"], raw["sentence_tokens"], raw["word_list"], raw["word"]
            ):
                assert (
                    len(ids) == 77
                    and ids[0] == 49406
                    and ids[len(words) + 1] == 49407
                    and not any(ids[len(words) + 2 :])
                )
                assert words[first - 1 : last - 1] == [word]


def test_a_batch_whose_ranges_are_wrong_is_refused(made, tmp_path):
    broken = json.loads((made / polclip.FILES[0]).read_text())
    broken[1]["gloss2image_labels"][2][1] += 1
    (tmp_path / "x.json").write_text(json.dumps(broken))
    with pytest.raises(VwsdError, match="item 2"):
        list(read_metadata(tmp_path / "x.json", roots(made)))


def test_the_textual_test_has_six_sets_by_four_parts_of_speech(made):
    records = list(read_textual_test(made / polclip.FILES[2]))
    assert len({r.id for r in records}) == len(records) == 48
    assert {(r.set, r.pos) for r in records} == {
        (s, p) for s in ("SE2", "SE3", "SE07", "SE10", "SE13", "SE15") for p in polclip.POS
    }
    assert (
        len({r.golds for r in records}) > 4
        and {len(r.candidates) for r in records} == {2, 3}
        and any(" " in r.target for r in records)
    )
    raw = json.loads((made / polclip.FILES[2]).read_text())[0]
    assert (
        len(raw["sentence_tokens"][0][0]) == len(raw["gloss_tokens"][0][0]) == 77
        and raw["class"] == "02"
    )


def test_the_same_bytes_each_time_quickly_and_others_for_another_seed(made, tmp_path):
    start = time.perf_counter()
    assert (
        everything(polclip.make_polclip(tmp_path / "again")) == everything(made)
        and time.perf_counter() - start < 5
    )
    other = everything(polclip.make_polclip(tmp_path / "other", seed=1))
    assert all(other[name] != data for name, data in everything(made).items())


def test_what_is_there_is_left_alone_and_what_a_kill_left_is_finished(made, tmp_path):
    folder = polclip.make_polclip(tmp_path)
    whole, times = everything(folder), {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    polclip.make_polclip(folder)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == times
    (folder / "polclip.stamp").unlink()
    (folder / polclip.FILES[1]).unlink()
    next((folder / "image_pt").iterdir()).write_bytes(b"cut")
    assert everything(polclip.make_polclip(folder)) == whole
