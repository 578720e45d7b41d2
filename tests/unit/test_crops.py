"""Pieces of a picture: cut when asked for, and resized where the network is."""

import numpy as np
import pytest
import torch
from PIL import Image

from vwsd_standins.rehearsal.models import make_models
from vwsdlib.data.pictures import Square
from vwsdlib.encoders.crops import ON_DEVICE, Crops, prepared, prepared_there
from vwsdlib.encoders.pretrained import load_pretrained

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
SQUARES = [Square(32, 32, BICUBIC), Square(32, 40, BICUBIC), Square(48, 0, BILINEAR)]
BOXES = np.array([(0, 0, 50, 50), (30, 20, 130, 120), (99, 0, 160, 61), (5, 5, 25, 25)])


@pytest.fixture
def picture():
    """Coarse noise: neighbours are alike, as in a photograph."""
    noise = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    return Image.fromarray(noise).resize((160, 120), BICUBIC)


def test_pieces_are_cut_when_they_are_asked_for(picture):
    crops = Crops(picture, BOXES)
    assert len(crops) == 4 and [piece.size for piece in crops] == [
        (50, 50),
        (100, 100),
        (61, 61),
        (20, 20),
    ]
    assert crops[2].tobytes() == picture.crop((99, 0, 160, 61)).tobytes()
    assert crops[1:3].boxes.tolist() == BOXES[1:3].tolist()
    assert crops[[3, 0]].boxes.tolist() == BOXES[[3, 0]].tolist()


@pytest.mark.parametrize("square", SQUARES)
def test_on_the_processor_pieces_are_prepared_as_any_picture(picture, square):
    made = prepared(Crops(picture, BOXES), square, "cpu")
    own = [square(picture.crop(tuple(box))) for box in BOXES.tolist()]
    assert isinstance(made, np.ndarray) and np.array_equal(made, np.stack(own))


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("cut", [True, False])
def test_the_devices_resizing_is_pillows_up_to_its_rounding(picture, square, cut):
    wide = [picture.resize((200, 60)), picture.resize((60, 200)), picture]
    pictures = Crops(picture, BOXES) if cut else wide
    made = prepared_there(pictures, square, "cpu")
    expected = prepared(pictures, square, "cpu")
    assert made.dtype == torch.uint8 and tuple(made.shape) == expected.shape
    apart = np.abs(made.numpy().astype(int) - expected)
    assert apart.max() <= 2 and (apart > 1).mean() < 0.01
    assert (apart > 0).mean() < 0.25


def test_a_picture_too_thin_to_be_resized_whole_is_cut_first(monkeypatch):
    monkeypatch.setattr("vwsdlib.data.pictures.WIDE", 1000)
    monkeypatch.setattr("vwsdlib.encoders.crops.WIDE", 1000)
    thin = Image.fromarray(np.random.default_rng(1).integers(0, 256, (4, 400, 3), np.uint8))
    square = SQUARES[0]
    assert np.array_equal(prepared_there([thin], square, "cpu")[0].numpy(), square(thin))


def test_an_identity_says_where_pieces_are_resized_on_a_device_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("VWSD_MODELS", str(make_models(tmp_path)))
    encoder = load_pretrained("clip-vit-b32")
    encoder.device = "cpu"
    assert ON_DEVICE not in encoder.identity()["processor"]
    encoder.device = "cuda:0"
    assert encoder.identity()["processor"].endswith(f"; {ON_DEVICE}")
