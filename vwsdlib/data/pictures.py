"""The one picture loader: whatever a file holds becomes an upright RGB picture, and every change on
the way has a name.

Nothing else in the package opens a picture, so that each oddity is decided once, here, and a report
can say how often. Two things are left alone on purpose. ICC profiles are not applied: CLIP and its
kin were trained on raw channel values (the profile goes with the rest of the metadata, so nobody
applies it later). And a JPEG is decoded at full size: libjpeg's scaled decoding gives other pixels
than the checkpoint's own preprocessing, so it is a variant that says so (`Square.draft`; so is
`Square.quick`).
"""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.Image import Transpose

from ..errors import VwsdError
from ..paths import packaged, sha256_bytes
from .kinds import HEAD, kind_of
from .places import CutShort
from .sources import picture_bytes

DECISIONS: dict[str, str] = packaged("data/decisions.yml")  # name -> what was done, a sentence
# not all that Pillow knows: EPS would start Ghostscript
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "PPM")
# 0.7 GB; where Pillow gives up too (twice its warning limit); V-WSD keeps below 32 million
MAX_PIXELS = 178_956_970
# from a bare header libjpeg makes up a 16 x 16 block, smoothed over 48 x 48 if progressive
INVENTED_PIXELS = 48 * 48
# pixels laid over white at once; all of a large picture would be in memory three times more
STRIP = 1 << 22
# pixels of a whole resized picture (0.1 GB) beyond which only the part that is cut out is made
WIDE = 1 << 25
PNG, TEXTS = b"\x89PNG\r\n\x1a\n", (b"iCCP", b"tEXt", b"zTXt", b"iTXt")
# as it stands, not compressed: it may hold the orientation
XMP, LONGEST_XMP = b"XML:com.adobe.xmp\0\0", 1 << 20
ORIENTATION = 0x0112
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
COLOURS = {
    "RGB": (),
    "1": ("1bit-to-rgb",),
    "L": ("grey-to-rgb",),
    "P": ("palette-to-rgb",),
    "CMYK": ("cmyk-to-rgb",),
}
# those that PyTorch computes as Pillow does
TORCH_FILTERS = {
    int(Image.Resampling.BICUBIC): "bicubic",
    int(Image.Resampling.BILINEAR): "bilinear",
}

# PyTorch's, of pixels that it only reads
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
# else Python prints Pillow's log of a bad TIFF to stderr
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Picture:
    """A decoded picture: RGB, upright, full size; the SHA-256 of its file; the DECISIONS taken, in
    order.
    """

    image: Image.Image
    sha256: str
    decisions: tuple[str, ...]


@dataclass(frozen=True)
class Square:
    """A picture as the square of bytes that a network looks at; worker processes make it.

    side: of the square in pixels. edge: the shorter side after resizing, before the centre is cut
    out; 0 squashes the whole picture. resample: Pillow's number of the filter. draft: let libjpeg
    shrink by 2, 4 or 8 while it decodes, to no less than twice what is needed: fewer pixels to
    decode, and slightly other ones. quick: resize in torch's fixed point of 16 bits in place of
    Pillow's 22: a third of the time for large pictures; about one value in 200 is another, by one
    of 255, seldom by two.
    """

    side: int
    edge: int = 0
    resample: int = Image.Resampling.BICUBIC
    draft: bool = False
    quick: bool = False

    def __call__(self, image: Image.Image) -> np.ndarray:
        """An RGB picture -> uint8 [side, side, 3]; the same pixels as transformers' own resizing
        and centre crop (a test compares).
        """
        if not self.edge:
            return self._resized(image, (self.side, self.side))
        w, h = image.size
        size = (self.edge, int(self.edge * h / w))
        if w > h:
            size = (int(self.edge * w / h), self.edge)
        left, top = ((length - self.side) // 2 for length in size)
        if size[0] * size[1] > WIDE:
            return self._cut_first(image, size, left, top)
        return self._resized(image, size)[top : top + self.side, left : left + self.side]

    def _cut_first(
        self, image: Image.Image, size: tuple[int, int], left: int, top: int
    ) -> np.ndarray:
        """The square out of a picture so thin that all of it, resized, would fill the memory; its
        scale and its place are the same.
        """
        across, down = (old / new for old, new in zip(image.size, size))
        box = (left * across, top * down, (left + self.side) * across, (top + self.side) * down)
        return np.asarray(image.resize((self.side, self.side), self.resample, box))

    def _resized(self, image: Image.Image, size: tuple[int, int]) -> np.ndarray:
        if self.quick:
            return _torch_resized(image, size, TORCH_FILTERS[self.resample])
        return np.asarray(image.resize(size, self.resample))

    @property
    def enough(self) -> int:
        """The shorter side in pixels below which libjpeg must not shrink; 0: it must not at all."""
        return 2 * (self.edge or self.side) if self.draft else 0


def _torch_resized(image: Image.Image, size: tuple[int, int], mode: str) -> np.ndarray:
    """An RGB picture resized to (w, h), smoothed as Pillow does; PyTorch after Pillow-SIMD's
    method.
    """
    import torch

    with torch.inference_mode():
        pixels = torch.from_numpy(np.asarray(image)).permute(2, 0, 1)[None]  # [1, 3, h, w]
        interpolate = torch.nn.functional.interpolate
        resized = interpolate(pixels, size=size[::-1], mode=mode, antialias=True)
        return resized[0].permute(1, 2, 0).numpy()


def load_picture(path: str | Path, truncated: str = "error", enough: int = 0) -> Picture:
    """Read a file once and decode it; raises VwsdError when it is missing, unreadable or no
    picture.

    truncated: what to do with a file that is cut short: "error" stops, "keep" takes what decodes
    and records the decision. enough: `Square.enough`.
    """
    return from_bytes(picture_bytes(path), path, truncated, enough)


def from_bytes(data: bytes, where: object, truncated: str = "error", enough: int = 0) -> Picture:
    """`load_picture` of bytes that are at hand, with its VwsdErrors; `where` names them, and lets
    them be truncated where it is a `places.CutShort`.
    """
    image, decisions = decode(data, where, enough)
    strict = truncated == "error" and not isinstance(where, CutShort)
    if "truncated" in decisions and strict:
        what = "the picture is truncated: its file is cut short or damaged"
        raise VwsdError(what, where, "Fetch it again, or take what decodes with --truncated keep.")
    return Picture(image, sha256_bytes(data), decisions)


def decode(data: bytes, where: object = "", enough: int = 0) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture in a file's bytes as (upright RGB image, decisions); raises VwsdError, naming
    `where`.
    """
    if not data:
        raise VwsdError("the picture file is empty", where, "Fetch it again.")
    try:
        image, opened = _open(data, enough)
        image, deepened = _eight_bits(image)
        image, coloured = _rgb(image)
    except Image.DecompressionBombError as e:
        what = f"the picture is larger than {MAX_PIXELS:,} pixels"
        raise VwsdError(what, where, "Save it smaller.") from e
    except UnidentifiedImageError as e:
        raise _no_picture(data, where) from e
    # decoders raise OSError, SyntaxError, struct.error, zlib.error, ... on damaged bytes
    except Exception as e:
        what = f"the picture cannot be decoded ({e})"
        raise VwsdError(what, where, "Fetch it again or save it as PNG.") from e
    return image, opened + deepened + coloured


def _no_picture(data: bytes, where: object) -> VwsdError:
    kind = kind_of(data[:HEAD])
    if kind.readable:
        what = f"not a whole picture: it begins as {kind.name} and cannot be read on"
        return VwsdError(what, where, "Fetch it again.")
    what = f"not a picture (none of {', '.join(FORMATS)}): the file is {kind.name}"
    return VwsdError(what, where, kind.remedy)


read_bytes = picture_bytes  # the former name, until nobody asks for it
_one_at_a_time = threading.Lock()


@contextmanager
def _switches(lenient: bool):
    """Hold Pillow's process-wide switches (truncated files, warnings) while one decoder runs, then
    put them back.

    One decode at a time in a process: else a strict one, beside a lenient one, would take half a
    picture for a whole one. To decode in parallel, use worker processes.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, lenient
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _open(data: bytes, enough: int) -> tuple[Image.Image, tuple[str, ...]]:
    """The first frame, upright: read strictly, and only if that fails with whatever is left of
    it."""
    try:
        return _frame(data, False, enough)
    # as in decode(), half a dozen unrelated types; a bomb or a text only fails once more
    except Exception:
        bare = _without_texts(data)
    # Pillow refuses a whole picture for texts and profiles of more than a megabyte
    if len(bare) < len(data):
        with suppress(Exception):
            return _frame(bare, False, enough)
    image, done = _frame(bare, True, enough)
    return image, ("truncated", *done)


def _without_texts(data: bytes) -> bytes:
    """A PNG without its texts and its colour profile, which nothing here reads; other bytes as they
    are.
    """
    if not data.startswith(PNG):
        return data
    kept, at = [PNG], len(PNG)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        xmp = data.startswith(XMP, at + 8) and length <= LONGEST_XMP
        if name not in TEXTS or xmp:
            kept.append(memoryview(data)[at:end])
        at = end
    return b"".join(kept)


def _frame(data: bytes, lenient: bool, enough: int) -> tuple[Image.Image, tuple[str, ...]]:
    """The first frame, upright; raises DecompressionBombError before a pixel is decoded, else as
    Pillow does.
    """
    with _switches(lenient):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        done = ()
        if getattr(image, "is_animated", False):
            done = ("mpo-first-frame",) if image.format == "MPO" else ("first-frame",)
        if enough and image.format == "JPEG":
            # at least this size; does nothing where none is left
            image.draft(None, [enough * side // min(image.size) for side in image.size])
        # Pillow turns a TIFF on load and forgets the tag
        tiff_tag = getattr(image, "tag_v2", {}).get(ORIENTATION)
        image.load()
        if lenient and _decoded_pixels(image) <= INVENTED_PIXELS:
            raise ValueError("little more than its header is left")
        upright, turned = _upright(image)
    return upright, done + (("exif-rotated",) if tiff_tag in TURNS else turned)


def _decoded_pixels(image: Image.Image) -> int:
    """How many pixels of a truncated picture differ from its last one, the filling."""
    pixels = np.asarray(image).reshape(image.width * image.height, -1)
    return int((pixels != pixels[-1]).any(axis=1).sum())


def _upright(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Apply the EXIF orientation; a broken one is worth a note, never the picture."""
    try:
        # raises, while getexif() takes a block for empty if it broke before
        Image.Exif().load(image.info.get("exif"))
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow's EXIF reader raises as many types as its decoders
        orientation = None
    if orientation in TURNS:
        return image.transpose(TURNS[orientation]), ("exif-rotated",)
    return image, () if orientation == 1 else ("exif-ignored",)


def _eight_bits(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Scale deep grey (I;16, I, F) to 8 bits: Pillow's own convert() clips, and all above 255 would
    be white.
    """
    if image.mode[0] not in "IF":
        return image, ()
    values = np.nan_to_num(np.asarray(image), posinf=0, neginf=0)
    scaled = _floats(values) if image.mode == "F" else _integers(values)
    grey = Image.fromarray(scaled.astype(np.uint8))
    clear = image.info.get("transparency")  # one grey level that stands for "nothing here"
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey, ("depth-to-8bit",)


def _integers(values: np.ndarray) -> np.ndarray:
    """The top 8 of 16 bits, or of 31 when the values need more."""
    return values.clip(0) >> (8 if values.max() < 1 << 16 else 23)


def _floats(values: np.ndarray) -> np.ndarray:
    """0 to white becomes 0 to 255, where white is the first customary level that no value
    exceeds."""
    white = next((level for level in (1, 255, 65535) if values.max() <= level), values.max())
    return (values.clip(0) * (255 / white)).round()


def _rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Any mode of 8 bits as a fresh RGB image without metadata, transparent parts over white."""
    done = COLOURS.get(image.mode.rstrip("Aa"), ("colours-to-rgb",))
    if image.has_transparency_data:
        # before any RGB, which would bring out the colours stored beneath
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        opaque = rgba.getchannel("A").getextrema()[0] == 255
        done += ("alpha-opaque" if opaque else "alpha-over-white",)
        rgb = rgba.convert("RGB") if opaque else _over_white(rgba)
    else:
        rgb = image.convert("RGB")
    rgb.info = {}
    return rgb, done


def _over_white(rgba: Image.Image) -> Image.Image:
    """What is seen of an RGBA picture on white paper, strip by strip."""
    width, height = rgba.size
    rgb = Image.new("RGB", rgba.size)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = rgba.crop((0, top, width, min(top + rows, height)))
        paper = Image.new("RGBA", strip.size, "white")
        rgb.paste(Image.alpha_composite(paper, strip).convert("RGB"), (0, top))
    return rgb
