"""The vector store: once each, by content, safe against kills, faults and neighbours."""

import json
import multiprocessing
import os
import tarfile
import weakref

import numpy as np
import pytest
from PIL import Image

from vwsdlib.data.pictures import Square
from vwsdlib.data.sources import pictures_at
from vwsdlib.encoders.control import RandomEncoder
from vwsdlib.encoders.registry import load_encoder
from vwsdlib.encoders.store import VectorStore
from vwsdlib.encoders.streams import OnDemand
from vwsdlib.errors import VwsdError


class Counting(RandomEncoder):
    """The control, counting what it encodes, and failing when told to."""

    batch_size = 4

    def __init__(self):
        self.seen, self.fail_at = 0, None

    def encode_images(self, images):
        self.seen += len(images)
        if self.fail_at is not None and self.seen > self.fail_at:
            raise KeyboardInterrupt
        return super().encode_images(images)

    def encode_texts(self, texts):
        self.seen += len(texts)
        return super().encode_texts(texts)


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"p{i}.png" for i in range(10)]
    for i, path in enumerate(paths):
        Image.new("RGB", (8, 8), (i, i, i)).save(path)
    return paths


def test_each_content_is_encoded_once(pictures, tmp_path):
    (tmp_path / "copy.png").write_bytes(pictures[0].read_bytes())
    encoder = Counting()
    store = VectorStore(encoder, tmp_path / "v")
    rows = store.images([*pictures, tmp_path / "copy.png", pictures[3]])
    assert (
        encoder.seen == 10
        and np.array_equal(rows[0], rows[10])
        and np.array_equal(rows[3], rows[11])
    )
    again = VectorStore(Counting(), tmp_path / "v")
    assert np.array_equal(again.images(pictures), rows[:10]) and again.encoder.seen == 0
    assert store.texts(["a", "b", "a"]).shape == (3, 64) and encoder.seen == 12
    assert store.images([]).shape == (0, 64)


def test_pieces_of_a_picture_are_cut_when_needed_and_not_kept(tmp_path):
    alive, most = set(), [0]

    def cut(i):
        piece = Image.new("RGB", (8, 8), (i % 40, 0, 0))
        alive.add(number := len(made))
        made.append(weakref.finalize(piece, alive.discard, number))
        most[0] = max(most[0], len(alive))
        return piece

    class OneByOne(Counting):
        def encode_images(self, images):
            return np.concatenate(
                [super(OneByOne, self).encode_images([image]) for image in images]
            )

    made, store = [], VectorStore(OneByOne(), tmp_path / "v")
    rows = store.pictures(OnDemand(cut, 60))
    assert (
        store.encoder.seen == 40 and len(made) == 100 and most[0] <= 2
    )  # looked at once for its key, once more if it is new
    assert np.array_equal(rows[:20], rows[40:]) and np.array_equal(
        rows, VectorStore(Counting(), tmp_path / "w").pictures([cut(i) for i in range(60)])
    )


def test_a_changed_file_is_another_picture(pictures, tmp_path):
    store = VectorStore(Counting(), tmp_path / "v")
    before = store.images(pictures[:1])
    Image.new("RGB", (9, 9), "red").save(pictures[0])
    assert not np.array_equal(store.images(pictures[:1]), before)


def test_an_interrupted_run_keeps_whole_batches_and_ends_the_same(pictures, tmp_path):
    encoder = Counting()
    encoder.fail_at = 5
    with pytest.raises(KeyboardInterrupt):
        VectorStore(encoder, tmp_path / "v").images(pictures)
    second = Counting()
    rows = VectorStore(second, tmp_path / "v").images(pictures)
    assert second.seen == 6  # the first batch of four was kept
    assert np.array_equal(rows, VectorStore(Counting(), tmp_path / "other").images(pictures))


def test_another_identity_is_another_file(tmp_path):
    other = Counting()
    other.identity = lambda: {**RandomEncoder().identity(), "dtype": "float16"}
    assert (
        VectorStore(Counting(), tmp_path).path
        != VectorStore(other, tmp_path).path
        == VectorStore(other, tmp_path).path
    )


def test_broken_vectors_are_refused_and_not_stored(pictures, tmp_path):
    encoder = Counting()
    encoder.encode_images = lambda images: np.full((len(images), 64), np.nan, np.float32)
    with pytest.raises(VwsdError, match="no numbers"):
        VectorStore(encoder, tmp_path / "v").images(pictures)
    assert VectorStore(Counting(), tmp_path / "v").images(pictures).shape == (10, 64)


def test_a_damaged_store_says_what_to_do(pictures, tmp_path):
    store = VectorStore(Counting(), tmp_path / "v")
    store.images(pictures)
    rows = next(store.path.glob("*.rows"))
    content = bytearray(rows.read_bytes())
    content[5 * 64 * 4] ^= 1  # one bit of the sixth vector
    rows.write_bytes(content)
    assert store.images(pictures[:5]).shape == (5, 64)
    with pytest.raises(VwsdError, match="damaged.*delete this folder"):
        store.images(pictures)
    rows.unlink()
    with pytest.raises(VwsdError, match="cannot be read.*delete this folder"):
        store.images(pictures)


@pytest.mark.parametrize("file, cut", [("rows", 100), ("keys", 20), ("keys", 36 * 4)])
def test_what_a_kill_left_half_is_written_over(pictures, tmp_path, file, cut):
    whole = VectorStore(Counting(), tmp_path / "v").images(pictures)
    path = next(VectorStore(Counting(), tmp_path / "v").path.glob(f"*.{file}"))
    with open(path, "rb+") as f:
        f.truncate(path.stat().st_size - cut)
    second = Counting()
    store = VectorStore(second, tmp_path / "v")
    assert np.array_equal(store.images(pictures), whole) and second.seen == (4 if cut == 144 else 1)
    third = Counting()
    assert (
        np.array_equal(VectorStore(third, tmp_path / "v").images(pictures), whole)
        and third.seen == 0
    )


def test_a_full_disk_loses_nothing(pictures, tmp_path, monkeypatch):
    store = VectorStore(Counting(), tmp_path / "v")
    store.images(pictures[:4])

    class Full:
        def __init__(self, *args):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr("vwsdlib.encoders.shards.FileLock", Full)
        with pytest.raises(VwsdError, match="No space left.*Free some space"):
            store.images(pictures)
    fresh = Counting()
    assert VectorStore(fresh, tmp_path / "v").images(pictures).shape == (10, 64) and fresh.seen == 6


def test_truncated_pictures_stop_unless_kept_and_never_leak_from_one_to_the_other(tmp_path):
    whole, cut = tmp_path / "whole.png", tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(
        whole
    )
    cut.write_bytes(whole.read_bytes()[:60_000])
    assert VectorStore(Counting(), tmp_path / "v", truncated="keep").images([cut]).shape == (1, 64)
    with pytest.raises(VwsdError, match="truncated.*cut.png"):
        VectorStore(Counting(), tmp_path / "v").images([whole, cut])


def _encode(folder, paths):
    VectorStore(Counting(), folder).images(paths)


def test_two_processes_at_once(pictures, tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_encode, args=(tmp_path / "v", pictures)) for _ in range(2)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert [w.exitcode for w in workers] == [0, 0]
    store = VectorStore(Counting(), tmp_path / "v")
    assert np.array_equal(
        store.images(pictures), VectorStore(Counting(), tmp_path / "alone").images(pictures)
    )
    (rows,) = store.path.glob("*.rows")
    assert rows.stat().st_size >= 10 * 64 * 4


def test_processes_of_torchrun_write_shards_of_their_own_and_all_are_read(
    pictures, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        VectorStore(Counting(), tmp_path / "v").fill_images(pictures[rank::2])
    monkeypatch.delenv("RANK")
    encoder = Counting()
    store = VectorStore(encoder, tmp_path / "v")
    assert (
        np.array_equal(
            store.images(pictures), VectorStore(Counting(), tmp_path / "alone").images(pictures)
        )
        and encoder.seen == 0
    )
    assert sorted(p.name for p in store.path.glob("*.keys")) == ["00000.keys", "00001.keys"]
    assert json.loads((store.path / "identity.json").read_text()) == encoder.identity()


class Squared(Counting):
    """The control on prepared pictures, which are read in worker processes and looked at side by
    side.
    """

    preparation, image_batch = Square(8), 3

    def encode_prepared(self, squares):
        assert squares.shape[1:] == (8, 8, 3) and 0 < len(squares) <= 3
        return RandomEncoder.encode_images(self, [Image.fromarray(s) for s in squares])


def test_prepared_pictures_are_those_read_whole_in_their_order(pictures, tmp_path):
    (tmp_path / "copy.png").write_bytes(pictures[0].read_bytes())
    store = VectorStore(Squared(), tmp_path / "v")
    rows = store.images([*pictures, tmp_path / "copy.png"])
    assert np.array_equal(
        rows[:10], VectorStore(Counting(), tmp_path / "w").images(pictures)
    ) and np.array_equal(rows[10], rows[0])
    assert len(store.rows) == 10
    pictures[7].write_bytes(b"no picture")
    fresh = VectorStore(Squared(), tmp_path / "x")
    with pytest.raises(VwsdError, match="not a picture.*p7.png"):
        fresh.images(pictures)
    assert (
        np.array_equal(fresh.images(pictures[:6]), rows[:6]) and len(fresh.rows) == 6
    )  # the batches before it were kept


def test_registry_lists_alternatives():
    with pytest.raises(VwsdError, match="Did you mean 'random'.*lite, random"):
        load_encoder("randon")
    assert load_encoder("random") is load_encoder("random")


def test_a_picture_replaced_by_one_of_the_same_size_and_time_is_another(tmp_path, monkeypatch):
    path, times = tmp_path / "p.bmp", (10**18, 10**18)
    monkeypatch.setattr("vwsdlib.data.places.SETTLED", 0)  # as hours later: stamps are trusted
    rows = []
    for colour in ("red", "blue"):
        Image.new("RGB", (9, 9), colour).save(path)
        os.utime(path, ns=times)
        rows.append(VectorStore(Counting(), tmp_path / "v").images([path])[0])
    assert not np.array_equal(*rows) and path.stat().st_mtime_ns == times[1]


def test_a_picture_that_changes_within_a_tick_of_the_clock_is_seen(tmp_path, monkeypatch):
    path = tmp_path / "p.png"
    Image.new("RGB", (9, 9), "red").save(path)
    status, real = os.stat(path), os.stat
    store = VectorStore(Counting(), tmp_path / "v")
    before = store.images([path])
    Image.new("RGB", (9, 9), "blue").save(path)
    monkeypatch.setattr(
        "vwsdlib.data.places.os.stat",
        lambda place, **options: status if place == path else real(place, **options),
    )  # a clock so coarse that nothing shows
    assert not np.array_equal(store.images([path]), before)


class Short(Counting):
    """The control, reading five words of a text."""

    max_tokens = 5

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]


def test_texts_that_are_cut_are_counted_also_where_they_are_known(tmp_path, capsys):
    texts = ["one two three four five six", "one", "a b c d e f g"]
    for _ in range(2):  # the second time all of them are in the store
        VectorStore(Short(), tmp_path / "v").texts(texts)
        assert (
            capsys.readouterr().err
            == "note: 2 of 3 texts are longer than random's 5 tokens and were cut\n"
        )
    store = VectorStore(Short(), tmp_path / "v")
    store.texts(texts[:1]), store.texts(texts[:1])
    assert (
        capsys.readouterr().err
        == "note: 1 of 1 texts is longer than random's 5 tokens and was cut\n"
    )
    VectorStore(Counting(), tmp_path / "v").texts(texts)
    assert capsys.readouterr().err == ""


def test_invisible_characters_do_not_reach_the_encoder_and_are_told(tmp_path, capsys):
    store = VectorStore(Counting(), tmp_path / "v")
    plain, hyphenated, marked = store.texts(
        ["tigre", "ti\u00adgre", "\u200f\u202btigre\u202c\ufeff"]
    )
    assert np.array_equal(plain, hyphenated) and np.array_equal(plain, marked)
    assert "2 of 3 texts hold invisible characters" in capsys.readouterr().err
    kept = [
        "\u0645\u06cc\u200c\u0631\u0648\u0645",
        "\u0645\u06cc\u0631\u0648\u0645",
        "\U0001f3f4\U000e0067\U000e0062\U000e007f",
        "\U0001f3f4",
        "\U0001f468\u200d\U0001f692",
    ]
    assert (
        len({row.tobytes() for row in store.texts(kept)}) == 5 and capsys.readouterr().err == ""
    )  # joiners and flags belong to the spelling


def test_members_of_a_compressed_tar_are_read_in_its_order(pictures, tmp_path):
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as tar:
        for path in pictures:
            tar.add(path, path.name)
    at, read = pictures_at(tmp_path / "p.tar.gz"), []
    store = VectorStore(Counting(), tmp_path / "v")
    store.files.read = lambda places, was=store.files.read: read.extend(places) or was(places)
    backwards = [at / path.name for path in reversed(pictures)]
    assert np.array_equal(
        store.images(backwards), VectorStore(Counting(), tmp_path / "w").images(pictures[::-1])
    )
    assert [place.name for place in read] == [path.name for path in pictures]
