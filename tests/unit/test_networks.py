"""Networks are loaded when they are asked for, fit for gradients, and let go when another needs the
room.
"""

import gc
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from vwsdlib.encoders import networks
from vwsdlib.encoders.networks import Network, make_room
from vwsdlib.encoders.pretrained import load_pretrained
from vwsdlib.errors import VwsdError

BYTES = 4 * 100 * 10


@pytest.fixture(autouse=True)
def only_these(monkeypatch):
    """No network of another test counts."""
    monkeypatch.setattr(networks, "_networks", weakref.WeakSet())


def network(loads=None):
    """One of BYTES bytes, that notes its loading."""

    def load():
        if loads is not None:
            loads.append(1)
        return torch.nn.Linear(10, 100, bias=False)

    return Network(load, "a line", "cpu")


def test_it_is_loaded_once_and_again_after_it_was_let_go():
    loads = []
    one = network(loads)
    assert one.size == 0 and one() is one() and one.size == BYTES and len(loads) == 1
    gone = weakref.ref(one())
    one.let_go()
    gc.collect()
    assert gone() is None and one.size == 0
    one()
    assert len(loads) == 2


def test_the_one_that_waits_longest_goes_and_what_fits_beside_stays(monkeypatch):
    monkeypatch.setattr(networks.make_room, "__defaults__", (2 * BYTES,))
    a, b, c, d = (network() for _ in range(4))
    for each in (a, b, a, c):  # b has waited longest
        each()
    assert [each.size for each in (a, b, c, d)] == [BYTES, BYTES, BYTES, 0]
    d()
    assert [bool(each.size) for each in (a, b, c, d)] == [True, False, True, True]
    make_room(0)
    assert not any(each.size for each in (a, b, c, d))


@torch.inference_mode()
def test_weights_are_fit_for_gradients_whoever_loads_them():
    assert not network()().weight.is_inference()
    assert torch.nn.Linear(10, 100).weight.is_inference()  # what it would be


def test_a_network_that_does_not_fit_is_a_sentence():
    def load():
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(VwsdError, match="memory of cuda:0 does not hold the network of big.*@bf16"):
        Network(load, "big", "cuda:0")()


# ---------------------------------------------------------------- encoders


@pytest.fixture
def pictures():
    dice = np.random.default_rng(0)
    return [Image.fromarray(dice.integers(0, 256, (60, 80, 3), np.uint8)) for _ in range(6)]


@pytest.fixture
def two(tiny_clip, monkeypatch):
    """Two encoders of one checkpoint, with room for one of them."""
    monkeypatch.setenv("VWSD_MODELS", str(tiny_clip))
    monkeypatch.setattr(networks.make_room, "__defaults__", (0,))
    return load_pretrained("clip-vit-l14"), load_pretrained("clip-vit-l14", "quick")


def test_an_encoder_is_let_go_when_the_next_one_encodes(two, pictures):
    one, other = two
    before = one.encode_images(pictures)
    words = one.encode_texts(["a bat"])
    one.relevance(one.pixels(pictures[:1]), words)
    gone = weakref.ref(one.model), weakref.ref(one._open_model())
    other.encode_texts(["a bat"])
    gc.collect()
    assert [each() for each in gone] == [None, None] and one._network.size == 0
    assert (one.encode_images(pictures) == before).all() and other._network.size == 0
    one.let_go()
    assert one._network.size == 0


def test_pictures_and_texts_go_in_smaller_batches_where_memory_runs_out(two, pictures, capsys):
    one, texts = two[0], [f"bat {i}" for i in range(5)]
    whole = one.encode_images(pictures), one.encode_texts(texts)
    embed, read, sizes = one.embed, one._read, []

    def small(function, largest):
        def called(batch):
            n = len(batch["input_ids"]) if isinstance(batch, dict) else len(batch)
            sizes.append(n)
            if n > largest:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return function(batch)

        return called

    one.embed, one._read = small(embed, 2), small(read, 8)
    parts = one.encode_images(pictures), one.encode_texts(texts)
    assert one._pictures.size == 2 and one._texts.size == 8 and max(sizes) == 32
    for many, few in zip(whole, parts):
        np.testing.assert_allclose(few, many, atol=1e-5)
    notes = capsys.readouterr().err
    assert "does not hold 32 texts at once: 16 from here on" in notes
    sizes.clear()
    one.encode_images(pictures)
    assert set(sizes) == {2} and not capsys.readouterr().err  # remembered, and said once
