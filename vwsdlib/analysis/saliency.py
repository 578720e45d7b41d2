"""Saliency: where in a picture the match with a text comes from.

Every map is float32 [h, w] in the picture's own pixels, higher where the picture speaks more for
the text, one map a text. The pictures' vectors never depend on the text, so that many texts share
one pass of the network wherever no gradient is asked for. What a map is worth, `faithfulness`
measures.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image

from ..device import Room
from ..encoders.crops import Crops
from ..errors import VwsdError
from ..kept import digest, kept
from ..paths import quiet, sha256_bytes, sha256_file
from ..progress import tqdm

# crops a picture and their smallest side in pixels, as the CLIPSeg study has them
CROPS, SMALLEST = 2000, 50
BATCH = 1024  # crops encoded in one call; each is cut when the encoder takes it
# altered pictures in one pass of the network, where the encoder does not say how many it likes
EVALS = 16
CENTRE_WIDTH = 1 / 4  # the centre control's standard deviation, in sides of the picture
RANDOM_WIDTH = 1 / 16  # the random control's smoothing, in sides of the picture
TOOLS = ("captum", "torch", "numpy", "pillow")  # whose versions decide a map
# how a file of maps says that it is not there, or not whole
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
Size = tuple[int, int]  # width, height in pixels
VectorsOf = Callable[[Sequence[Image.Image]], np.ndarray]


_rooms: WeakKeyDictionary = WeakKeyDictionary()  # encoder -> how many at once


def _mean_colour(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.mean((2, 3), keepdim=True).expand_as(pixels).clone()


# what stands for "nothing there", in the network's pixels [1, 3, h, w]: the picture's own mean
# colour, or that of the network's training
BASELINES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": _mean_colour,
    "zero": torch.zeros_like,
}


def draw_crops(size: Size, n: int = CROPS, smallest: int = SMALLEST, seed: int = 0) -> np.ndarray:
    """Random square crops as the CLIPSeg study draws them: ints [n, 3] of left, top, side in
    pixels.

    The side is uniform from `smallest` to one less than the picture's shorter side, the place
    uniform wherever the square fits. Raises VwsdError where no such square fits.
    """
    if min(size) <= smallest:
        raise VwsdError(
            f"a picture of {size[0]} x {size[1]} pixels has no room for crops of {smallest} pixels"
            " and more",
            remedy=f"Take a picture whose shorter side is above {smallest} pixels, or set"
            " `smallest` lower.",
        )
    rng = np.random.default_rng(seed)
    side = rng.integers(smallest, min(size), n)  # numpy leaves the upper end out
    left, top = (rng.integers(0, length - side, endpoint=True) for length in size)
    return np.stack([left, top, side], axis=1)


def spread(crops: np.ndarray, values: np.ndarray, size: Size) -> np.ndarray:
    """Sum over crops of each crop's value at each of its pixels: [n, 3], [n, t] -> [t, h, w]
    float64.

    Only the four corners of a crop are written, with signs; two running sums fill it (Crow 1984,
    summed-area tables, backwards).
    """
    (w, h), (left, top, side) = size, crops.T
    rows = np.concatenate([top, top, top + side, top + side])
    columns = np.concatenate([left, left + side, left, left + side])
    corners, changes = rows * (w + 1) + columns, []  # [4n]
    for v in np.asarray(values, np.float64).T:
        signed = np.concatenate([v, -v, -v, v])
        changes.append(np.bincount(corners, signed, (h + 1) * (w + 1)))
    return np.stack(changes).reshape(-1, h + 1, w + 1).cumsum(1).cumsum(2)[:, :h, :w]


@dataclass(frozen=True)
class RandomCrop:
    """Random-crop saliency: `total` [t, h, w] float64, sums of the changes in cosine; `visits` [h,
    w]; `crops` [n, 3].
    """

    total: np.ndarray
    visits: np.ndarray
    crops: np.ndarray

    @property
    def published(self) -> np.ndarray:
        """[t, h, w]: the plain sum, as the study shows it; large wherever crops fall often
        (`centre_bias`).
        """
        return self.total.astype(np.float32)

    @property
    def by_visits(self) -> np.ndarray:
        """[t, h, w]: mean change in cosine over the crops that hold the pixel; 0 where none does,
        noisy at the edges, where few do.
        """
        return (self.total / np.maximum(self.visits, 1)).astype(np.float32)


def random_crop(
    vectors_of: VectorsOf,
    picture: Image.Image,
    text_vectors: np.ndarray,
    n: int = CROPS,
    smallest: int = SMALLEST,
    seed: int = 0,
) -> RandomCrop:
    """Random-crop saliency of the CLIPSeg study: every crop adds cos(crop, text) - cos(whole
    picture, text) to its pixels.

    vectors_of: pictures -> [k, d], an encoder's `encode_images` or a store's `pictures`;
    text_vectors: [t, d].
    """
    crops, texts = draw_crops(picture.size, n, smallest, seed), _unit(text_vectors)
    whole = _unit(vectors_of([picture])) @ texts.T  # [1, t]
    cosines, starts = [], range(0, n, BATCH)
    for start in tqdm(starts, desc="random crops", unit="batch", leave=False, disable=quiet()):
        places, sides = np.split(crops[start : start + BATCH], [2], axis=1)
        boxes = np.hstack([places, places + sides])  # [k, 4]
        cosines.append(_unit(vectors_of(Crops(picture, boxes))) @ texts.T)
    visits = np.rint(spread(crops, np.ones((n, 1)), picture.size)[0]).astype(np.int64)
    total = spread(crops, np.concatenate(cosines) - whole, picture.size)
    # running sums leave 1e-17 where nothing was added
    return RandomCrop(np.where(visits > 0, total, 0.0), visits, crops)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def seed_interval(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps of several seeds [s, h, w] -> (mean, 2.5 %, 97.5 % point) of each pixel: the range of
    one run, not the mean's error. VwsdError for one seed.
    """
    if len(maps) < 2:
        raise VwsdError("one seed has no interval", remedy="Make the map with two seeds or more.")
    low, high = np.percentile(maps, [2.5, 97.5], axis=0)
    mean = np.asarray(np.mean(maps, axis=0, dtype=np.float64))
    return mean.astype(np.float32), low.astype(np.float32), high.astype(np.float32)


def expected_visits(size: Size, n: int = CROPS, smallest: int = SMALLEST) -> np.ndarray:
    """[h, w]: how many of `n` random crops hold each pixel, in closed form."""
    sides = np.arange(smallest, min(size))[:, None]  # [c, 1]

    # [c, length]: share of the places of a side that hold the pixel
    def cover(length: int) -> np.ndarray:
        at, last = np.arange(length), length - sides
        return (np.minimum(at, last) - np.maximum(0, at - sides + 1) + 1) / (last + 1)

    return n * (cover(size[1]).T @ cover(size[0])) / len(sides)


def centre_bias(size: Size, n: int = CROPS, smallest: int = SMALLEST) -> dict[str, float]:
    """Expected visits of the centre, the middle of the top edge and a corner, and the first by the
    second as `ratio`.

    At the study's 472 x 554 pixels: 1,284, 7.5, 0.2 and 172. The plain sum of any constant change
    has this same shape.
    """
    visits = expected_visits(size, n, smallest)
    x, y = size[0] // 2, size[1] // 2
    centre, top = float(visits[y, x]), float(visits[0, x])
    corner = float(visits[0, 0])
    return {"centre": centre, "top": top, "corner": corner, "ratio": centre / top}


def in_picture(
    maps: np.ndarray, window: tuple[float, float, float, float], size: Size
) -> np.ndarray:
    """Maps of what the network saw -> the picture's frame: [t, a, b] -> [t, h, w] float32, resized
    (bilinear, Pillow).

    window: (left, top, right, bottom) in picture pixels, as `encoder.window` says. A pixel that is
    not wholly inside was not seen: it gets the map's minimum.
    """
    rows, columns = maps.shape[1:]
    frame, start, end = np.array(size), np.array(window[:2]), np.array(window[2:])
    # whole pixels: [[x0, y0], [x1, y1]]
    inner = np.clip([np.ceil(start - 1e-6), np.floor(end + 1e-6)], 0, frame)
    # the same corners in the map
    box = np.clip((inner - start) * (columns, rows) / (end - start), 0, (columns, rows))
    corners = tuple(box.ravel().tolist())
    (x0, y0), (x1, y1) = inner.astype(int).tolist()
    placed = np.empty((len(maps), size[1], size[0]), np.float32)
    for target, seen in zip(placed, np.asarray(maps, np.float32)):
        target[:] = seen.min()
        part = Image.fromarray(seen)
        target[y0:y1, x0:x1] = part.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, corners)
    return placed


def _cosines(
    encoder, text_vectors: np.ndarray, pixels: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    vectors = np.asarray(text_vectors)  # [t, d]
    texts = torch.as_tensor(vectors, dtype=pixels.dtype, device=pixels.device)
    return lambda some: encoder.embed(some) @ texts.T  # [k, 3, h, w] -> [k, t]


def _room(encoder, pixels: torch.Tensor) -> Room:
    """How many altered pictures go through an encoder's network at once: what fits its caches (the
    lite network's gradients take half as long again at 16), and fewer where memory ran out.
    """
    most, room = getattr(encoder, "image_batch", EVALS), _rooms.get(encoder)
    if room is None or room.most != most:
        room = _rooms[encoder] = Room(most, "altered pictures", str(pixels.device))
    return room


def occlusion(
    encoder,
    picture: Image.Image,
    text_vectors: np.ndarray,
    window: float = 1 / 4,
    stride: float = 1 / 8,
    baseline: str = "mean",
) -> np.ndarray:
    """Fall of the cosine when a window is covered, averaged over the windows that cover a pixel
    (Zeiler & Fergus 2014): [t, h, w].

    window, stride: in sides of what the network sees. captum takes a forward of many outputs: the
    network runs once a window.
    """
    from captum.attr import Occlusion  # here: crops and masks do without captum

    pixels = encoder.pixels([picture])  # [1, 3, a, b]
    a, b = pixels.shape[2:]
    method = partial(
        Occlusion(_cosines(encoder, text_vectors, pixels)).attribute,
        pixels,
        (3, max(1, round(window * a)), max(1, round(window * b))),
        (3, max(1, round(stride * a)), max(1, round(stride * b))),
        baselines=BASELINES[baseline](pixels),
    )
    # [t, 3, a, b], alike over channels
    attribution = _room(encoder, pixels).use(lambda n: method(perturbations_per_eval=n))
    return in_picture(attribution[:, 0].cpu().numpy(), encoder.window(picture.size), picture.size)


def path_attribution(
    encoder, pixels: torch.Tensor, text_vector: np.ndarray, steps: int = 16, baseline: str = "mean"
) -> tuple[np.ndarray, float]:
    """Integrated gradients (Sundararajan et al. 2017) summed over channels: [1, 3, a, b] -> (signed
    [a, b], completeness gap).

    The sum of the map is the cosine's rise from the baseline to the picture but for the gap, which
    more steps make smaller.
    """
    from captum.attr import IntegratedGradients

    forward = _cosines(encoder, np.asarray(text_vector)[None], pixels)
    method = partial(
        IntegratedGradients(forward).attribute,
        pixels,
        BASELINES[baseline](pixels),
        target=0,
        n_steps=steps,
        return_convergence_delta=True,
    )
    attribution, gap = _room(encoder, pixels).use(lambda n: method(internal_batch_size=n))
    return attribution.detach().sum(1)[0].cpu().numpy(), float(gap)


def integrated_gradients(
    encoder, picture: Image.Image, text_vector: np.ndarray, steps: int = 16, baseline: str = "mean"
) -> np.ndarray:
    """Positive part of `path_attribution` in the picture's pixels: [h, w]."""
    signed, _ = path_attribution(encoder, encoder.pixels([picture]), text_vector, steps, baseline)
    return in_picture(signed.clip(0)[None], encoder.window(picture.size), picture.size)[0]


def relevance(encoder, picture: Image.Image, text_vectors: np.ndarray) -> np.ndarray:
    """The encoder's own gradient-weighted map (Chefer et al. 2021; Grad-CAM, Selvaraju et al.
    2017), resized: [t, h, w].
    """
    seen = encoder.relevance(encoder.pixels([picture]), text_vectors)
    return in_picture(seen, encoder.window(picture.size), picture.size)


def mask(segmenter, picture: Image.Image, texts: Sequence[str]) -> np.ndarray:
    """The segmenter's masks as probabilities, resized: [t, h, w] in 0..1."""
    logits = segmenter.masks(picture, list(texts))  # [t, S, S]
    return in_picture(np.exp(-np.logaddexp(0, -logits)), (0, 0, *picture.size), picture.size)


def centre(size: Size) -> np.ndarray:
    """Control: a Gaussian at the centre, what knowing nothing but where objects tend to be gives:
    [h, w].
    """

    def bell(side: int) -> np.ndarray:
        return np.exp(-0.5 * ((np.arange(side) + 0.5) / side - 0.5) ** 2 / CENTRE_WIDTH**2)

    return np.outer(bell(size[1]), bell(size[0])).astype(np.float32)


def random_map(picture: Image.Image, seed: int = 0) -> np.ndarray:
    """Control: smoothed noise of mean 0, another for each picture, alike at all places up to the
    edges: [h, w].
    """
    w, h = picture.size
    rng = np.random.default_rng([seed, int(sha256_bytes(picture.tobytes())[:8], 16)])
    noise = rng.standard_normal((h, w))

    def bell(side: int) -> np.ndarray:  # a Gaussian, wrapped round
        return np.exp(-2 * (np.pi * RANDOM_WIDTH * side * np.fft.fftfreq(side)) ** 2)

    smooth = np.fft.ifft2(np.fft.fft2(noise) * np.outer(bell(h), bell(w)))
    return smooth.real.astype(np.float32)


@dataclass(frozen=True)
class Subject:
    """What is explained: one picture and texts, by an encoder, a segmenter or both; `vectors_of`
    encodes crops.
    """

    encoder: object
    segmenter: object
    picture: Image.Image
    texts: tuple[str, ...]
    vectors_of: VectorsOf | None = None

    @cached_property
    def vectors(self) -> np.ndarray:
        """The texts' vectors, [t, d] float32 unit rows."""
        return self.encoder.encode_texts(list(self.texts))

    def repeated(self, control: np.ndarray) -> np.ndarray:
        """[h, w] -> [t, h, w]: the controls know no text."""
        return np.repeat(control[None], len(self.texts), axis=0)


def _crops(s: Subject, **settings) -> RandomCrop:
    return random_crop(s.vectors_of or s.encoder.encode_images, s.picture, s.vectors, **settings)


def _gradients(s: Subject, **settings) -> np.ndarray:
    drawn = [integrated_gradients(s.encoder, s.picture, v, **settings) for v in s.vectors]
    return np.stack(drawn)


def _occlusion(s: Subject, **settings) -> np.ndarray:
    return occlusion(s.encoder, s.picture, s.vectors, **settings)


def _relevance(s: Subject) -> np.ndarray:
    return relevance(s.encoder, s.picture, s.vectors)


def _mask(s: Subject) -> np.ndarray:
    return mask(s.segmenter, s.picture, s.texts)


def _centre(s: Subject) -> np.ndarray:
    return s.repeated(centre(s.picture.size))


def _random(s: Subject, **settings) -> np.ndarray:
    return s.repeated(random_map(s.picture, **settings))


@dataclass(frozen=True)
class Method:
    """A way to make maps: `run(subject, **settings)`, shared by the methods of one `family`, gives
    maps [t, h, w], or what has them under `attribute`.
    """

    family: str  # the name its settings go by
    needs: str  # crops, gradients, masks or ""
    run: Callable[..., Any]
    attribute: str = ""


METHODS: dict[str, Method] = {
    "crops_sum": Method("crops", "crops", _crops, "published"),
    "crops_by_visits": Method("crops", "crops", _crops, "by_visits"),
    "occlusion": Method("occlusion", "gradients", _occlusion),
    "integrated_gradients": Method("integrated_gradients", "gradients", _gradients),
    "relevance": Method("relevance", "gradients", _relevance),
    "mask": Method("mask", "masks", _mask),
    "centre": Method("centre", "", _centre),
    "random": Method("random", "", _random),
}
DIFFERENTIABLE = ("pixels", "embed", "relevance", "window")  # what gradients need of an encoder


def available(encoder, segmenter) -> list[str]:
    """Names of the methods that this encoder and this segmenter (None: there is none) can serve."""
    served = {
        "": True,
        "crops": encoder is not None,
        "gradients": all(hasattr(encoder, name) for name in DIFFERENTIABLE),
        "masks": segmenter is not None,
    }
    return [name for name, method in METHODS.items() if served[method.needs]]


def _taken_up(method: Method, subject: Subject, settings: dict, folder: Path) -> np.ndarray:
    """The maps [t, h, w] of one method, made once and kept in `folder` under all that they depend
    on.
    """
    made_of = {
        "code": sha256_file(__file__),
        "tools": {package: version(package) for package in TOOLS},
        "encoder": subject.encoder.identity(),
        "family": method.family,
        "settings": settings,
        "picture": [subject.picture.size, sha256_bytes(subject.picture.tobytes())],
        "texts": subject.texts,
    }

    def read(path: Path) -> np.ndarray:
        with np.load(path) as file:
            return file["maps"]

    def write(drawn: np.ndarray, path: Path) -> None:
        with open(path, "wb") as file:
            np.savez_compressed(file, maps=drawn)

    path = folder / f"{method.family}-{digest(made_of)[:32]}.npz"
    return kept(path, read, lambda: method.run(subject, **settings), write, DAMAGED)


def maps(
    encoder,
    segmenter,
    picture: Image.Image,
    texts: Sequence[str],
    methods: Sequence[str],
    settings: Mapping[str, dict] | None = None,
    vectors_of: VectorsOf | None = None,
    keep: Path | None = None,
) -> dict[str, np.ndarray]:
    """Maps of one picture by several methods, name -> [t, h, w] float32; methods of one family
    share its one pass.

    settings: family -> keyword arguments, as {"crops": {"n": 500}, "occlusion": {"stride": 1 /
    16}}. keep: a folder for the maps that gradients and occlusion made, so that a killed run takes
    them up (vectors of crops are kept by a store, as `vectors_of`). Raises VwsdError for a method
    that is unknown or not to be had, and for a map that is not all numbers.
    """
    at_hand, settings = available(encoder, segmenter), settings or {}
    families = {method.family for method in METHODS.values()}
    wrong = (set(methods) - set(at_hand)) | (set(settings) - families)
    if wrong:
        raise VwsdError(
            f"no saliency method {', '.join(sorted(wrong))} for this encoder and segmenter",
            remedy=f"At hand: {', '.join(at_hand)}.",
        )
    subject, made = Subject(encoder, segmenter, picture, tuple(texts), vectors_of), {}
    drawn: dict[str, np.ndarray] = {}
    for name in methods:
        method = METHODS[name]
        if method.family not in made:
            of_family = settings.get(method.family, {})
            if keep and method.needs == "gradients":
                made[method.family] = _taken_up(method, subject, of_family, keep)
            else:
                made[method.family] = method.run(subject, **of_family)
        of_family = made[method.family]
        drawn[name] = getattr(of_family, method.attribute) if method.attribute else of_family
    for name, values in drawn.items():
        if not np.isfinite(values).all():
            raise VwsdError(
                f"the saliency map {name} is not all numbers",
                remedy="Look for an overflow in the encoder; half precision may be the cause.",
            )
    return drawn
