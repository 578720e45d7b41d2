"""Every oddity a picture file can have, made on the spot and checked by its pixels."""

import hashlib
import io
import os
import struct
import warnings
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from vwsdlib.data import pictures
from vwsdlib.data.pictures import DECISIONS, decode, load_picture
from vwsdlib.errors import VwsdError

SHARED = Path(
    os.environ.get("VWSD_SHARED") or Path(__file__).resolve().parents[3] / "shared" / "data"
)
TRIAL = SHARED / "vwsd" / "trial" / "all_images"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CUT_EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03"  # promises an entry and stops


def corners(top_left=RED, top_right=GREEN, bottom_left=BLUE, bottom_right=WHITE):
    """A 48 x 32 array of four flat quarters: no turn or flip leaves it as it was."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:] = top_left, top_right
    pixels[16:, :24], pixels[16:, 24:] = bottom_left, bottom_right
    return pixels


def noise(height=120, width=160):
    """Smooth but nowhere flat, so that JPEG keeps it and no part looks like filling."""
    y, x = np.mgrid[:height, :width]
    return np.stack([40 + y, 40 + x % 200, 220 - y], axis=-1).astype(np.uint8)


def encoded(image, format, **options):
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        buffer, format, **options
    )
    return buffer.getvalue()


def exif(orientation):
    """An EXIF block with one orientation."""
    block = Image.Exif()
    block[pictures.ORIENTATION] = orientation
    return block


def png_header(width, height):
    """A PNG that promises width x height pixels and delivers none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def near(image, expected, tolerance=8):
    """Whether a picture has RGB pixels within `tolerance` of an array (height, width, 3)."""
    return (
        image.mode == "RGB" and np.abs(np.asarray(image).astype(int) - expected).max() <= tolerance
    )


def failure(data):
    """The message of the VwsdError that decoding raises."""
    with pytest.raises(VwsdError) as caught:
        decode(data, "upload.jpg")
    assert caught.value.where == "upload.jpg" and caught.value.remedy
    return caught.value.what


# --- plain files and identity


def test_plain_jpeg_is_left_alone_at_full_size(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded(noise(), "JPEG", quality=95, icc_profile=b"some profile"))
    picture = load_picture(str(file))
    assert picture.decisions == () and near(picture.image, noise())
    assert picture.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert picture.image.info == {}


def test_every_documented_decision_is_reached_by_a_name_and_every_name_documented():
    kinds = [
        encoded(corners(), "JPEG", exif=exif(6)),
        encoded(corners(), "JPEG", exif=exif(9)),
        encoded(np.full((4, 4), 700, np.uint16), "PNG"),
        encoded(Image.new("1", (4, 4)), "PNG"),
        encoded(Image.new("RGBA", (4, 4)), "PNG"),
        encoded(Image.new("RGBA", (4, 4), "red"), "PNG"),
        encoded(Image.new("P", (4, 4)), "PNG"),
        encoded(Image.new("CMYK", (4, 4)), "JPEG"),
        encoded(Image.new("YCbCr", (4, 4)), "TIFF"),
        encoded(noise(), "JPEG")[:-200],
        mpo(),
        animation("GIF"),
    ]
    assert set().union(*(decode(data)[1] for data in kinds)) == set(DECISIONS)
    assert all(sentence.endswith(".") for sentence in DECISIONS.values())


# --- orientation

STORED = {
    2: lambda u: u[:, ::-1],
    3: lambda u: u[::-1, ::-1],
    4: lambda u: u[::-1],  # EXIF 2.3, table 6
    5: lambda u: u.swapaxes(0, 1),
    6: lambda u: u[:, ::-1].swapaxes(0, 1),
    7: lambda u: u[::-1, ::-1].swapaxes(0, 1),
    8: lambda u: u[::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied_once(orientation, format):
    stored = np.ascontiguousarray(STORED[orientation](corners()))
    lossless = (
        {"subsampling": 0} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
    )
    image, decisions = decode(encoded(stored, format, exif=exif(orientation), **lossless))
    assert decisions == ("exif-rotated",) and near(image, corners())
    assert not image.getexif()  # whoever turns again turns nothing


def test_upright_exif_is_no_decision():
    assert decode(encoded(corners(), "JPEG", exif=exif(1)))[1] == ()


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    "block, noted",
    [
        (exif(0), True),
        (exif(9), True),
        (b"Exif\0\0no such thing", True),
        (CUT_EXIF, False),
        (Image.Exif(), False),
    ],
)  # nothing in these two to ignore
def test_bogus_exif_leaves_the_picture_as_stored(block, noted, format):
    image, decisions = decode(encoded(corners(), format, exif=block, subsampling=0))
    assert near(image, corners()) and decisions == ("exif-ignored",) * noted
    assert not image.getexif()


# --- transparency


def test_colour_hidden_under_alpha_turns_white():
    pixels = np.dstack([corners(), np.full((32, 48), 255, np.uint8)])
    pixels[:16, :24, 3] = 0  # the red quarter is invisible
    pixels[:16, 24:, 3] = 128  # the green one half visible
    image, decisions = decode(encoded(pixels, "PNG"))
    assert decisions == ("alpha-over-white",)
    assert near(image, corners(top_left=WHITE, top_right=(127, 255, 127)), tolerance=1)


def test_alpha_that_hides_nothing_is_dropped():
    image, decisions = decode(encoded(Image.fromarray(corners()).convert("RGBA"), "PNG"))
    assert decisions == ("alpha-opaque",) and near(image, corners(), tolerance=0)


def palette_picture():
    """Left column palette entry 0 (red), right column entry 1 (blue)."""
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    return image


@pytest.mark.parametrize(
    "clear, left", [(0, WHITE), (b"\x00\xff", WHITE), (b"\x80\xff", (255, 127, 127)), (None, RED)]
)
def test_palette_with_and_without_transparency(clear, left):
    options = {} if clear is None else {"transparency": clear}
    image, decisions = decode(encoded(palette_picture(), "PNG", **options))
    assert decisions == ("palette-to-rgb",) + (() if clear is None else ("alpha-over-white",))
    assert near(image, [[left, BLUE]], tolerance=1)


def test_grey_with_alpha():
    image, decisions = decode(
        encoded(np.array([[[10, 0], [10, 255]]], np.uint8), "PNG")
    )  # two channels: LA
    assert decisions == ("grey-to-rgb", "alpha-over-white") and near(
        image, [[WHITE, (10, 10, 10)]], tolerance=0
    )


def test_transparent_colour_of_an_rgb_png():
    image, decisions = decode(encoded(corners(), "PNG", transparency=RED))
    assert decisions == ("alpha-over-white",) and near(image, corners(top_left=WHITE), tolerance=0)


# --- depth and colour models


def test_grey():
    image, decisions = decode(encoded(noise()[..., 1], "PNG"))
    assert decisions == ("grey-to-rgb",) and near(
        image, noise()[..., 1, None].repeat(3, 2), tolerance=0
    )


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk(format):
    black_plate = np.zeros((32, 48), np.uint8)
    plates = (*np.moveaxis(255 - corners(), -1, 0), black_plate)
    stored = Image.merge("CMYK", [Image.fromarray(plate) for plate in plates])
    data = encoded(stored, format, quality=95, subsampling=0)
    assert (b"Adobe" in data) == (
        format == "JPEG"
    )  # in a JPEG the plates are stored inverted, as Adobe does
    image, decisions = decode(data)
    assert decisions == ("cmyk-to-rgb",) and near(image, corners(), tolerance=12)


def test_one_bit():
    pixels = np.array([[0, 1, 1], [1, 0, 1]], bool)
    image, decisions = decode(encoded(pixels, "PNG"))
    assert decisions == ("1bit-to-rgb",) and near(
        image, pixels[..., None] * np.array(WHITE), tolerance=0
    )


GRADIENT = np.arange(65536, dtype=np.uint16).reshape(256, 256)


@pytest.mark.parametrize(
    "pixels, format, mode",
    [
        (GRADIENT, "PNG", "I;16"),
        (GRADIENT.astype(">u2"), "TIFF", "I;16B"),
        (GRADIENT.astype(np.int32), "TIFF", "I"),
        (GRADIENT.astype(np.int32) << 15, "TIFF", "I"),
        ((GRADIENT >> 8) / np.float32(255), "TIFF", "F"),
        ((GRADIENT >> 8).astype(np.float32), "TIFF", "F"),
        ((GRADIENT >> 8) * np.float32(257), "TIFF", "F"),
    ],
)
def test_deep_grey_is_scaled_and_not_clipped(pixels, format, mode):
    data = encoded(pixels, format)
    with Image.open(io.BytesIO(data)) as stored:
        assert stored.mode == mode
    image, decisions = decode(data)
    assert decisions == ("depth-to-8bit", "grey-to-rgb")
    assert near(image, np.arange(256)[:, None, None].repeat(256, 1).repeat(3, 2), tolerance=0)


def test_deep_grey_with_odd_values():
    pixels = np.array([[np.nan, np.inf, -np.inf, -3, 0.5, 1]], np.float32)
    expected = np.array([[0, 0, 0, 0, 128, 255]])[..., None].repeat(3, 2)
    assert near(decode(encoded(pixels, "TIFF"))[0], expected, tolerance=0)


def test_transparent_level_of_deep_grey():
    image, decisions = decode(encoded(np.array([[300, 301]], np.uint16), "PNG", transparency=300))
    assert decisions == ("depth-to-8bit", "grey-to-rgb", "alpha-over-white")
    assert near(image, [[WHITE, (1, 1, 1)]], tolerance=0)


# --- several frames


def mpo():
    """Two views in a file that calls itself JPEG: quarters first, then black."""
    black = Image.new("RGB", (48, 32))
    return encoded(
        corners(), "MPO", save_all=True, append_images=[black], quality=95, subsampling=0
    )


def animation(format):
    """Quarters first, then black."""
    return encoded(
        corners(), format, save_all=True, append_images=[Image.new("RGB", (48, 32))], lossless=True
    )


def test_mpo_gives_its_first_view(tmp_path):
    (tmp_path / "stereo.jpg").write_bytes(mpo())
    picture = load_picture(tmp_path / "stereo.jpg")
    assert picture.decisions == ("mpo-first-frame",) and near(picture.image, corners())


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(format):
    image, decisions = decode(animation(format))
    assert decisions == (("first-frame", "palette-to-rgb") if format == "GIF" else ("first-frame",))
    assert near(image, corners(), tolerance=1)


# --- damage


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_truncated_file_keeps_its_upper_rows(format):
    whole = encoded(noise(), format)
    assert decode(whole)[1] == ()
    image, decisions = decode(whole[: len(whole) * 2 // 3])
    assert decisions == ("truncated",) and image.size == (160, 120)
    upper, lower = np.asarray(image)[:32].astype(int), np.asarray(image)[-8:].astype(int)
    assert np.abs(upper - noise()[:32]).max() <= 12
    assert (lower == lower[0, 0]).all()  # Pillow's filling


def test_truncated_file_is_turned_and_converted_all_the_same():
    whole = encoded(noise()[..., 1], "JPEG", exif=exif(6))
    image, decisions = decode(whole[: len(whole) * 2 // 3])
    assert decisions == ("truncated", "exif-rotated", "grey-to-rgb") and image.size == (120, 160)


def cut_after(data, marker, length):
    """A file's bytes up to `length` bytes after a marker begins."""
    return data[: data.index(marker) + length]


JPEG, PNG = encoded(noise(), "JPEG"), encoded(noise(), "PNG")
PROGRESSIVE, TURNED = (
    encoded(noise(), "JPEG", progressive=True, quality=90),
    encoded(noise(), "JPEG", exif=exif(3)),
)


@pytest.mark.parametrize(
    "data, complaint",
    [
        *(
            (cut_after(data, b"\xff\xda", 14), "little more than its header")
            for data in (JPEG, PROGRESSIVE, TURNED)
        ),
        (cut_after(PNG, b"IDAT", 4), "little more than its header"),
        (JPEG[:20], "picture"),
        (PNG[:20], "picture"),
        (b"<html>404 not found</html>", "not a picture"),
        (encoded(corners(), "EPS"), "not a picture"),
        (b"", "empty"),
    ],
)
def test_nothing_to_decode_is_an_error(data, complaint):
    assert complaint in failure(data)


def test_text_file_under_a_pictures_name(tmp_path):
    (tmp_path / "image.3.jpg").write_text("Not Found")
    with pytest.raises(VwsdError, match="not a picture .*image.3.jpg"):
        load_picture(tmp_path / "image.3.jpg")


def test_bomb_is_refused_by_its_header(monkeypatch):
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self))
    assert "larger than 178,956,970 pixels" in failure(png_header(30_000, 30_000))
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", None
    )  # the limit is ours, also where somebody lifted Pillow's
    assert "larger than" in failure(png_header(13_378, 13_378))
    assert decoded == []


# --- whole pictures with large texts, thin and large ones


def png_with(*chunks):
    """A whole PNG with further chunks (name, body) before its pixels."""
    data = encoded(noise(), "PNG")
    made = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return data[:33] + made + data[33:]


LARGE = zlib.compress(bytes(3 << 20))
XMP_TURNED = (
    b"iTXt",
    (
        b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description"
        b' tiff:Orientation="3"/></x:xmpmeta>'
    ),
)


@pytest.mark.parametrize(
    "chunk",
    [
        (b"iCCP", b"profile\0\0" + LARGE),
        (b"zTXt", b"words\0\0" + LARGE),
        (b"iTXt", b"words\0\1\0\0\0" + LARGE),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
    ],
    ids=["profile", "text", "international text", "xmp"],
)
def test_a_large_profile_or_text_takes_nothing_from_the_pixels(chunk):
    image, decisions = decode(png_with(chunk))
    assert decisions == () and near(image, noise(), tolerance=0)
    turned, decisions = decode(
        png_with(chunk, XMP_TURNED)
    )  # the orientation beside it still counts
    assert decisions == decode(png_with(XMP_TURNED))[1] and near(
        turned, np.asarray(decode(png_with(XMP_TURNED))[0]), tolerance=0
    )
    assert decode(png_with(chunk)[:-40])[1] == ("truncated",)  # and what is cut short is still told


@pytest.mark.parametrize(
    "data, said",
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"<!doctype html>", "a web page"),
        (b"\xff\x0a\0\0", "JPEG XL"),
    ],
)
def test_what_is_no_picture_is_told_for_what_it_is(data, said):
    assert failure(data).startswith("not a picture (none of JPEG,") and said in failure(data)


def test_a_picture_cut_within_its_header_is_no_web_page():
    assert (
        failure(encoded(noise(), "WEBP")[:12])
        == "not a whole picture: it begins as WebP and cannot be read on"
    )


def test_thin_pictures_are_cut_before_they_are_resized(monkeypatch):
    thin = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1, 3), dtype=np.uint8))
    square = pictures.Square(24, 24)
    whole, some = square(thin), Image.fromarray(noise())
    usual = square(some)
    sizes = []
    real = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, size, *rest: sizes.append(size) or real(self, size, *rest),
    )
    monkeypatch.setattr(pictures, "WIDE", 10_000)
    assert np.array_equal(square(thin), whole) and sizes == [(24, 24)]  # not 24 x 21,600
    monkeypatch.setattr(pictures, "WIDE", 0)
    assert np.abs(square(some).astype(int) - usual).max() <= 2  # the same place at the same scale


@pytest.mark.parametrize("height", [1, 7, 32])
def test_transparent_pictures_are_laid_over_white_strip_by_strip(monkeypatch, height):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40, 4), dtype=np.uint8)
    whole = decode(encoded(pixels, "PNG"))[0]
    plain = Image.alpha_composite(
        Image.new("RGBA", (40, 32), "white"), Image.fromarray(pixels)
    ).convert("RGB")
    monkeypatch.setattr(pictures, "STRIP", 40 * height)
    assert near(decode(encoded(pixels, "PNG"))[0], np.asarray(plain), tolerance=0) and near(
        whole, np.asarray(plain), tolerance=0
    )


def test_limit_counts_pixels(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 48 * 32)
    assert decode(encoded(corners(), "PNG"))[1] == ()
    monkeypatch.setattr(pictures, "MAX_PIXELS", 48 * 32 - 1)
    assert "larger than" in failure(encoded(corners(), "PNG"))


# --- files that cannot be read


def test_missing_file(tmp_path):
    with pytest.raises(VwsdError, match="no such picture") as caught:
        load_picture(tmp_path / "image.1.jpg")
    assert str(tmp_path / "image.1.jpg") in str(caught.value) and "case" not in caught.value.remedy
    with pytest.raises(VwsdError, match="no such picture"):
        load_picture(tmp_path / "no folder" / "image.1.jpg")


def test_case_mismatch_names_the_file_that_is_there(tmp_path):
    (tmp_path / "image.7.JPG").write_bytes(b"")
    if (tmp_path / "image.7.jpg").exists():
        pytest.skip("this file system does not tell cases apart")
    for name in ("image.7.jpg", "Image.7.JPG"):
        with pytest.raises(VwsdError) as caught:
            load_picture(tmp_path / name)
        assert "image.7.JPG" in caught.value.remedy


def test_folder_and_forbidden_file(tmp_path, monkeypatch):
    with pytest.raises(VwsdError, match="(?i)directory") as caught:
        load_picture(tmp_path)
    assert "inside the folder" in caught.value.remedy

    def forbidden(self):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.jpg").write_bytes(JPEG)
    monkeypatch.setattr(Path, "read_bytes", forbidden)  # chmod stops nobody who is root
    with pytest.raises(VwsdError, match="Permission denied") as caught:
        load_picture(tmp_path / "a.jpg")
    assert "chmod" in caught.value.remedy


# --- what must not leak


@pytest.mark.parametrize("flag", [False, True])
def test_switches_of_pillow_and_warnings_are_put_back(flag, monkeypatch, capfd):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", flag)
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 12_000
    )  # by itself Pillow warns of 160 x 120 pixels
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        whole = encoded(noise(), "JPEG", exif=CUT_EXIF)
        assert "truncated" not in decode(whole)[1]
        assert (
            "truncated" in decode(whole[:-300])[1]
        )  # also when somebody has set the flag for the whole process
        failure(b"text")
        assert warnings.filters == before and ImageFile.LOAD_TRUNCATED_IMAGES is flag
        assert heard == [] and capfd.readouterr().err == ""
        Image.open(io.BytesIO(whole)).getexif()
        assert heard  # the twin: Pillow alone does warn


def test_threads_never_take_half_a_picture_for_a_whole_one():
    whole = encoded(noise(480, 640), "JPEG")
    jobs = [whole, whole[:-2000]] * 60
    with ThreadPoolExecutor(8) as pool:
        decisions = list(pool.map(lambda data: decode(data)[1], jobs))
    assert decisions == [(), ("truncated",)] * 60
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# --- real files


def test_all_trial_pictures_load():
    if not TRIAL.is_dir():
        reason = f"no trial pictures in {TRIAL} (set VWSD_SHARED)"
        print(reason)
        pytest.skip(reason)
    loaded = [load_picture(file) for file in sorted(TRIAL.iterdir())]
    counts = Counter(name for picture in loaded for name in picture.decisions)
    print(f"{len(loaded)} trial pictures: {dict(counts)}")
    assert len(loaded) == 146 and counts == {"exif-ignored": 1, "alpha-over-white": 1}
    assert len({picture.sha256 for picture in loaded}) == 140  # six are in the folder twice
    assert all(
        picture.image.mode == "RGB" and np.asarray(picture.image).std() > 1 for picture in loaded
    )
