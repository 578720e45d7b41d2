"""What is benchmarked on: generated pictures of real sizes and spectra, and items of ten of them
under real phrases. The same seed, the same bytes.

A picture is a piece of one of a few large ones, whose spectrum falls as 1/f in brightness, faster
in colour (Field 1987), with occluding shapes for edges (dead leaves; Lee et al. 2001) and a
camera's noise. Files are kept in the cache under a key of the recipe.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import sqrt
from os import cpu_count
from pathlib import Path

import numpy as np
import PIL
import scipy.fft
from PIL import Image, ImageDraw
from tqdm.auto import tqdm

from vwsd_standins.emojiwsd.senses import senses
from vwsdlib.data.items import CANDIDATES, Item
from vwsdlib.data.sets import VwsdSet
from vwsdlib.paths import cache_dir, quiet, sha256_bytes

SEED, BASES, BASE_SIZE = 0, 6, (4704, 3500)  # width, height of the large pictures
MEGAPIXELS, QUALITY, PNG_EVERY = (
    (0.3, 12.0),
    (75, 95),
    (25, (7, 19)),
)  # log-uniform; JPEG's; two of 25 are PNG: 8 %
ASPECTS = (4 / 3, 3 / 2, 1.0, 16 / 9)
SMALL = (320, 240)  # pictures that only need to be many
STUDY = {
    "en": (463, 4090),
    "it": (305, 2726),
    "fa": (200, 1756),
}  # items and distinct pictures of the official test set
STUDY_PICTURES = 8100  # distinct over the three languages
CREDIT = "generated pictures (this project)"


def _plane(rng: np.random.Generator, size: tuple[int, int], power: float) -> np.ndarray:
    """[h, w] float32 noise of unit variance whose amplitude falls as 1/f^power."""
    (w, h), fall = size, -power
    spectrum = scipy.fft.rfft2(rng.standard_normal((h, w), dtype=np.float32))
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)).astype(np.float32)
    frequency[0, 0] = 1
    plane = scipy.fft.irfft2(spectrum * frequency**fall, s=(h, w))
    return plane / plane.std()


def base(number: int, size: tuple[int, int] = BASE_SIZE) -> Image.Image:
    """One of the large pictures, RGB of `size`."""
    rng, (w, h) = np.random.default_rng([SEED, number]), size
    shapes = Image.new("L", size, 128)
    pen = ImageDraw.Draw(shapes)
    for radius in np.sort(0.3 * w / rng.pareto(1, 120).clip(1, 40))[
        ::-1
    ]:  # many small leaves over few large ones
        x, y, flat = rng.random() * w, rng.random() * h, rng.uniform(0.4, 1)
        draw = pen.ellipse if rng.random() < 0.6 else pen.rectangle
        draw(
            (x - radius, y - flat * radius, x + radius, y + flat * radius),
            fill=int(rng.integers(30, 226)),
        )
    light = (
        0.7 * np.asarray(shapes, np.float32)
        + 38
        + 22 * _plane(rng, size, 1.0)
        + rng.normal(0, 1.5, (h, w)).astype(np.float32)
    )
    planes = [Image.fromarray(light.clip(0, 255).astype(np.uint8))]
    for _ in range(2):  # colour: coarser and weaker
        colour = 128 + 14 * _plane(rng, (w // 4, h // 4), 1.3)
        planes.append(
            Image.fromarray(colour.clip(0, 255).astype(np.uint8)).resize(
                size, Image.Resampling.BILINEAR
            )
        )
    return Image.merge("YCbCr", planes).convert("RGB")


def name(number: int) -> str:
    """File name of a picture."""
    every, which = PNG_EVERY
    return f"image.{number}.{'png' if number % every in which else 'jpg'}"


def picture(
    number: int, bases: Sequence[Image.Image], megapixels: tuple[float, float] = MEGAPIXELS
) -> bytes:
    """File of one picture: a piece of a large one, turned, at a size, shape and quality of its
    own."""
    rng = np.random.default_rng([SEED, 1, number])
    pixels, aspect = (
        1e6 * np.exp(rng.uniform(*np.log(megapixels))),
        ASPECTS[rng.integers(len(ASPECTS))],
    )
    w, h = round(sqrt(pixels * aspect)), round(sqrt(pixels / aspect))
    source = bases[rng.integers(len(bases))]
    x, y = (
        int(rng.integers(0, room - side, endpoint=True)) for room, side in zip(source.size, (w, h))
    )
    piece = source.crop((x, y, x + w, y + h)).transpose(
        Image.Transpose(int(rng.integers(7)))
    )  # flipped, turned upright, ...
    out = io.BytesIO()
    (
        piece.save(out, "PNG")
        if name(number).endswith("png")
        else piece.save(out, "JPEG", quality=int(rng.integers(*QUALITY, endpoint=True)))
    )
    return out.getvalue()


def small(number: int, files: Sequence[bytes]) -> bytes:
    """A small JPEG that differs from all others by a comment, so that no store takes it for one
    that it has.
    """
    comment = f"picture {number}".encode()
    data = files[number % len(files)]
    return data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]


@cache
def _small_files() -> list[bytes]:
    large, files = base(0, (1280, 960)), []
    for number in range(48):
        out, (x, y) = io.BytesIO(), (number % 8 * 120, number // 8 * 120)
        large.crop((x, y, x + SMALL[0], y + SMALL[1])).save(out, "JPEG", quality=85)
        files.append(out.getvalue())
    return files


def pictures(n: int) -> tuple[Path, list[str]]:
    """(folder, names) of the first `n` pictures of 0.3 to 12 megapixels; what is missing is made,
    so a killed build goes on.
    """
    bases = cache(
        lambda: [
            base(number) for number in tqdm(range(BASES), desc="large pictures", disable=quiet())
        ]
    )
    return _write(
        "pictures", n, name, lambda number: picture(number, bases()), [_plane, base, name, picture]
    )


def small_pictures(n: int) -> tuple[Path, list[str]]:
    """(folder, names) of the first `n` small pictures."""
    return _write(
        "small",
        n,
        lambda number: f"image.{number}.jpg",
        lambda number: small(number, _small_files()),
        [_plane, base, small, _small_files],
    )


def _write(
    kind: str, n: int, name_of: Callable[[int], str], make: Callable[[int], bytes], recipe: list
) -> tuple[Path, list[str]]:
    constants = (
        SEED,
        BASES,
        BASE_SIZE,
        MEGAPIXELS,
        QUALITY,
        PNG_EVERY,
        ASPECTS,
        SMALL,
        PIL.__version__,
        np.__version__,
    )
    key = sha256_bytes("".join([repr(constants), *map(inspect.getsource, recipe)]).encode())[:12]
    folder = cache_dir() / "benchmarks" / f"{kind}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in folder.iterdir()}

    def write(number: int) -> None:
        temporary = (
            folder / f".{name_of(number)}"
        )  # moved into place whole: what a kill leaves is made again
        temporary.write_bytes(make(number))
        temporary.replace(folder / name_of(number))

    missing = [number for number in range(n) if name_of(number) not in there]
    if missing:
        write(missing.pop(0))  # the large pictures, before there are threads
    with ThreadPoolExecutor(cpu_count()) as pool:
        for _ in tqdm(
            pool.map(write, missing),
            total=len(missing),
            desc=f"{kind} to measure on",
            unit=" pictures",
            disable=quiet() or not missing,
        ):
            pass
    return folder, [name_of(number) for number in range(n)]


# ---------------------------------------------------------------------------- items


def phrases(language: str) -> list[tuple[str, str, str]]:
    """(target, phrase, English phrase) from EmojiWSD's hand-written text, each once."""
    if language == "en":
        found = [(s.lemma, phrase, phrase) for s in senses() for phrase in s.phrases]
    else:
        found = [(*getattr(s, language), s.phrases[0]) for s in senses()]
    return list({phrases[1]: phrases for phrases in found}.values())


def deal(language: str, n: int, names: Sequence[str], folder: Path) -> tuple[VwsdSet, list[str]]:
    """(set, English texts): `n` items that show each of `names` at least once (the first 10 n of
    them); the places left over show some again.
    """
    rng, texts = np.random.default_rng([SEED, 2, n, len(names)]), phrases(language)
    order, items = rng.permutation(np.array(names)), []
    for i in range(n):
        own = order[i::n][:CANDIDATES]
        again = rng.choice(np.setdiff1d(order, own), CANDIDATES - len(own), replace=False)
        ten = tuple(map(str, rng.permutation(np.concatenate([own, again]))))
        target, phrase, _ = texts[i % len(texts)]
        items.append(
            Item(
                f"{language}.bench.{i}",
                language,
                target,
                phrase,
                ten,
                ten[rng.integers(CANDIDATES)],
            )
        )
    return VwsdSet("bench", language, "test", tuple(items), folder, CREDIT, None, "generated"), [
        texts[i % len(texts)][2] for i in range(n)
    ]


def study_counts(n: int | None = None) -> tuple[dict[str, tuple[int, int]], int]:
    """Items and distinct pictures a language, and distinct pictures in all: the official counts, or
    `n` items a language at the same rates.
    """
    counts = (
        STUDY
        if n is None
        else {
            language: (n, max(CANDIDATES, round(n * pictures / items)))
            for language, (items, pictures) in STUDY.items()
        }
    )
    apart, official = (sum(pictures for _, pictures in some.values()) for some in (counts, STUDY))
    return counts, round(apart * STUDY_PICTURES / official)


def study(
    names: Sequence[str], folder: Path, n: int | None = None
) -> dict[str, tuple[VwsdSet, list[str]]]:
    """Language -> (set, English texts) of the study's three test sets or samples of `n` items;
    neighbours share pictures as the official ones do.
    """
    counts, total = study_counts(n)
    shared, start, sets = (sum(p for _, p in counts.values()) - total) / (len(counts) - 1), 0.0, {}
    for language, (items, pictures) in counts.items():
        first = min(round(start), total - pictures)
        sets[language] = deal(language, items, names[first : first + pictures], folder)
        start += pictures - shared
    return sets
