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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.Image import Transpose

from ..errors import VwsdError
from ..paths import sha256_bytes
from .kinds import HEAD, kind_of
from .sources import read_file, read_remote, remote

DECISIONS = {
    "truncated": (
        "The file is cut short or damaged; what decodes was kept, the rest is Pillow's filling."
    ),
    "mpo-first-frame": "An MPO (several views in one JPEG); the first view was taken.",
    "first-frame": "An animation or a file of several pages; the first frame was taken.",
    "exif-rotated": "The EXIF orientation was applied.",
    "exif-ignored": (
        "The EXIF block is broken or its orientation is none of 1 to 8; the pixels stay as stored."
    ),
    "depth-to-8bit": "Grey deeper than 8 bits was scaled to 8.",
    "1bit-to-rgb": "Black and white became RGB.",
    "grey-to-rgb": "Grey became RGB.",
    "palette-to-rgb": "Palette colours became RGB.",
    "cmyk-to-rgb": "CMYK became RGB by Pillow's plain formula (inverted Adobe files included).",
    "colours-to-rgb": "Another colour model (YCbCr, HSV, ...) became RGB.",
    "alpha-over-white": "Transparent parts show white instead of the colour stored beneath.",
    "alpha-opaque": "A transparency channel that hides nothing was dropped.",
}
FORMATS = (
    "JPEG",
    "PNG",
    "GIF",
    "WEBP",
    "AVIF",
    "BMP",
    "TIFF",
    "PPM",
)  # not all: EPS would start Ghostscript
# 0.7 GB; where Pillow gives up too (twice its warning limit); V-WSD keeps below 32 million
MAX_PIXELS = 178_956_970
INVENTED_PIXELS = (
    48 * 48
)  # from a bare header libjpeg makes up a 16 x 16 block, smoothed over 48 x 48 if progressive
# pixels that are laid over white at once; all of a large picture would be in memory three times
# more
STRIP = 1 << 22
WIDE = (
    1 << 25
)  # pixels of a whole resized picture (0.1 GB) beyond which only the part that is cut out is made
PNG, TEXTS = b"\x89PNG\r\n\x1a\n", (b"iCCP", b"tEXt", b"zTXt", b"iTXt")
XMP, LONGEST_XMP = (
    b"XML:com.adobe.xmp\0\0",
    1 << 20,
)  # as it stands, not compressed: it may hold the orientation
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
TORCH_FILTERS = {
    int(Image.Resampling.BICUBIC): "bicubic",
    int(Image.Resampling.BILINEAR): "bilinear",
}  # those that PyTorch computes as Pillow does
REMEDIES = {
    IsADirectoryError: "Name a picture inside the folder.",
    PermissionError: "Give yourself the right to read it (chmod u+r).",
}

warnings.filterwarnings(
    "ignore", message="The given NumPy array is not writable"
)  # PyTorch's, of pixels that it only reads
logging.getLogger("PIL").addHandler(
    logging.NullHandler()
)  # else Python prints Pillow's log of a bad TIFF to stderr


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
        size = (
            (self.edge, int(self.edge * h / w)) if w <= h else (int(self.edge * w / h), self.edge)
        )
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
        pixels = torch.from_numpy(np.asarray(image)).permute(2, 0, 1)[None]
        return (
            torch.nn.functional.interpolate(pixels, size=size[::-1], mode=mode, antialias=True)[0]
            .permute(1, 2, 0)
            .numpy()
        )


def load_picture(path: str | Path, truncated: str = "error", enough: int = 0) -> Picture:
    """Read a file once and decode it; raises VwsdError when it is missing, unreadable or no
    picture.

    truncated: what to do with a file that is cut short: "error" stops, "keep" takes what decodes
    and records the decision. enough: `Square.enough`.
    """
    return from_bytes(read_bytes(path), path, truncated, enough)


def from_bytes(data: bytes, where: object, truncated: str = "error", enough: int = 0) -> Picture:
    """`load_picture` of bytes that are at hand, with its VwsdErrors; `where` names them."""
    image, decisions = decode(data, where, enough)
    if "truncated" in decisions and truncated == "error":
        raise VwsdError(
            "the picture is truncated: its file is cut short or damaged",
            where,
            "Fetch it again, or take what decodes with --truncated keep.",
        )
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
        raise VwsdError(
            f"the picture is larger than {MAX_PIXELS:,} pixels", where, "Save it smaller."
        ) from e
    except UnidentifiedImageError as e:
        kind = kind_of(data[:HEAD])
        if kind.readable:
            raise VwsdError(
                f"not a whole picture: it begins as {kind.name} and cannot be read on",
                where,
                "Fetch it again.",
            ) from e
        raise VwsdError(
            f"not a picture (none of {', '.join(FORMATS)}): the file is {kind.name}",
            where,
            kind.remedy,
        ) from e
    except (
        Exception
    ) as e:  # decoders raise OSError, SyntaxError, struct.error, zlib.error, ... on damaged bytes
        raise VwsdError(
            f"the picture cannot be decoded ({e})", where, "Fetch it again or save it as PNG."
        ) from e
    return image, opened + deepened + coloured


def read_bytes(place: str | Path) -> bytes:
    """A picture file's bytes, from disk or from where `sources` finds it, or a VwsdError that says
    what to do.
    """
    if remote(place):
        return read_remote(place)
    path = Path(place)
    try:
        return read_file(path)
    except FileNotFoundError as e:
        raise VwsdError("no such picture", path, _beside(path)) from e
    except OSError as e:
        raise VwsdError(
            f"cannot read the picture: {e.strerror or e}",
            path,
            REMEDIES.get(type(e), "Check the path and the disk."),
        ) from e


def _beside(path: Path) -> str:
    """The remedy for a missing picture: its twin in other case when there is one."""
    siblings = path.parent.glob(
        "*"
    )  # which, unlike iterdir, is empty for a folder that is missing or closed
    twins = sorted(s.name for s in siblings if s.name.casefold() == path.name.casefold())
    return (
        f"Names keep their case: {', '.join(twins)} is there."
        if twins
        else "Check the folder; fetch the set again."
    )


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
    except (
        Exception
    ):  # as in decode(), half a dozen unrelated types; a bomb or a text only fails once more
        bare = _without_texts(data)
    if len(bare) < len(
        data
    ):  # Pillow refuses a whole picture for texts and profiles of more than a megabyte
        try:
            return _frame(bare, False, enough)
        except Exception:
            pass
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
        several = getattr(image, "is_animated", False)
        frames = ("mpo-first-frame" if image.format == "MPO" else "first-frame",) if several else ()
        if enough and image.format == "JPEG":
            image.draft(
                None, [enough * side // min(image.size) for side in image.size]
            )  # at least this size; does nothing where none is left
        tiff_tag = getattr(image, "tag_v2", {}).get(
            ORIENTATION
        )  # Pillow turns a TIFF on load and forgets the tag
        image.load()
        if lenient and _decoded_pixels(image) <= INVENTED_PIXELS:
            raise ValueError("little more than its header is left")
        upright, turned = _upright(image)
    return upright, frames + (("exif-rotated",) if tiff_tag in TURNS else turned)


def _decoded_pixels(image: Image.Image) -> int:
    """How many pixels of a truncated picture differ from its last one, the filling."""
    pixels = np.asarray(image).reshape(image.width * image.height, -1)
    return int((pixels != pixels[-1]).any(axis=1).sum())


def _upright(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Apply the EXIF orientation; a broken one is worth a note, never the picture."""
    try:
        Image.Exif().load(
            image.info.get("exif")
        )  # raises; getexif() takes a block for empty if it broke before
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
    grey = Image.fromarray((_floats if image.mode == "F" else _integers)(values).astype(np.uint8))
    if (
        clear := image.info.get("transparency")
    ) is not None:  # one grey level stands for "nothing here"
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
        rgba = (
            image if image.mode == "RGBA" else image.convert("RGBA")
        )  # before any RGB, which would bring out the colours stored beneath
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
        rgb.paste(
            Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"),
            (0, top),
        )
    return rgb
