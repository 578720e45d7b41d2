"""The library on a card, checked in about ten minutes: `python -m benchmarks.gpu`.

For a bare machine: Python with torch (a CUDA build) and transformers, no internet. Checkpoints are
made at their true sizes with random weights; each check is a process of its own with a time limit
and prints a line of JSON: its facts, and what failed. A check that is ended at its limit prints
the facts that it has by then. Exit code 1 where a check fails. `--quick`: tiny checkpoints and few
pictures, on whatever is here, the processor too.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import io
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

MARK = "CHECKED "  # begins the line in which a check's process gives its result
FP32_DRIFT = 1e-4  # largest difference of two cosines, CPU and card
# of masks' probabilities, of saliency's mean changes in cosine (resized elsewhere), of relevance as
# a share of its largest value
MASK_DRIFT, CROP_DRIFT, MAP_DRIFT = 1e-3, 2e-2, 1e-2
GRACE = 8.0  # seconds that a check has to print its facts when it is told to end
PATIENT = 4  # times a check's limit, with --quick: processors are slow
SMALL_PICTURE = 0.2  # megapixels, where decoding is not what is measured
STAYS = 64.0  # MB that may stay on the card when networks were let go
ON_PROCESSOR = {"VWSD_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}
NEEDED = ("torch", "transformers", "tokenizers", "safetensors", "PIL", "yaml", "tqdm", "filelock")
FURTHER = ("captum", "accelerate", "pydantic", "sentencepiece", "psutil", "scipy")


@dataclass(frozen=True)
class Sizes:
    """How much is computed; chosen to fit ten minutes where a process needs ten seconds to import
    torch and transformers.
    """

    tiny: bool
    keys: tuple[str, ...]  # whose towers are measured
    items: int  # of ten pictures
    megapixels: float  # of the pictures of `cold`, JPEGs as people have them; else SMALL_PICTURE
    plain_items: int  # of those, the first that the plain loop takes as well
    cold_items: int
    crops: int
    compared_crops: int
    batches: tuple[int, ...]  # pictures in one pass
    product: int  # side of the square matrix product
    texts: int  # to translate
    senses: int  # of a step of PolCLIP
    shown: int  # pictures of such a step


FULL = Sizes(
    tiny=False,
    keys=("clip-vit-b32", "clip-vit-l14"),
    items=40,
    megapixels=3.0,
    plain_items=20,
    cold_items=120,
    crops=2000,
    compared_crops=64,
    batches=(16, 64, 256, 1024),
    product=8192,
    texts=200,
    senses=50,
    shown=250,
)
QUICK = Sizes(
    tiny=True,
    keys=("clip-vit-b32",),
    items=3,
    megapixels=0.1,
    plain_items=1,
    cold_items=2,
    crops=24,
    compared_crops=8,
    batches=(2, 4),
    product=128,
    texts=2,
    senses=6,
    shown=6,
)


# PolCLIP where it only has to run
SMALL = {
    "former_layers": 1,
    "fusion_layers": 1,
    "borrowed": 1,
    "heads": 4,
    "hidden": 32,
    "open_text": 1,
}


@dataclass
class Findings:
    """Facts of a check (units in their names) and what failed, a sentence each."""

    facts: dict[str, object] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def hold(self, what: str, value: float, most: float) -> None:
        """A number that must not be larger."""
        self.facts[what] = value
        self.demand(value <= most, f"{what} is {value:.2e}, at most {most:.0e} is allowed")

    def demand(self, truth: bool, sentence: str) -> None:
        """A failure where it is not so."""
        if not truth:
            self.failures.append(sentence)


# ---------------------------------------------------------------- what checks share


def work_folder() -> Path:
    """Where pictures and the processor's reference lie."""
    from vwsdlib.paths import cache_dir

    folder = cache_dir() / "benchmarks" / "gpu"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def pictures(n: int, megapixels: float) -> list[Path]:
    """`n` JPEGs of coarse noise, each another file; made where they are missing."""
    from PIL import Image

    folder = work_folder() / f"pictures-{megapixels:g}"
    folder.mkdir(exist_ok=True)
    width, rng = round((megapixels * 4e6 / 3) ** 0.5), np.random.default_rng(0)
    files: list[bytes] = []
    for _ in range(min(n, 24)):
        out, noise = io.BytesIO(), rng.integers(0, 256, (48, 64, 3), np.uint8)
        size = (width, width * 3 // 4)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
        files.append(out.getvalue())
    paths = [folder / f"image.{number}.jpg" for number in range(n)]
    for number, path in enumerate(paths):
        data, comment = files[number % len(files)], f"picture {number}".encode()
        length = (len(comment) + 2).to_bytes(2, "big")
        if not path.exists():
            path.write_bytes(data[:2] + b"\xff\xfe" + length + comment + data[2:])
    return paths


def items(n: int, paths: Sequence[Path]):
    """A set of `n` items that show ten pictures each."""
    from vwsdlib.data.items import CANDIDATES, Item
    from vwsdlib.data.sets import VwsdSet

    made, names = [], [path.name for path in paths]
    for i in range(n):
        start = i * CANDIDATES % (len(names) - CANDIDATES + 1)
        ten = tuple(names[start : start + CANDIDATES])
        made.append(Item(f"en.gpu.{i}", "en", "bank", f"river bank {i}", ten, ten[i % CANDIDATES]))
    return VwsdSet("gpu", "en", "test", tuple(made), paths[0].parent, "generated", None)


def wait(device: str) -> None:
    """Until the card has done what it was asked."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds(function: Callable[[], object], device: str, enough: float = 1.0) -> float:
    """Of one call, the median of five after one that warms up; of fewer, at least one, where they
    took `enough` seconds together.
    """
    function()
    wait(device)
    times: list[float] = []
    while len(times) < 5 and sum(times) < enough:
        start = time.perf_counter()
        function()
        wait(device)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def stored(name: str) -> dict[str, np.ndarray]:
    """What the check `reference` computed on the processor."""
    with np.load(work_folder() / f"{name}.npz") as file:
        return dict(file)


def reference_pictures(s: Sizes) -> list:
    """The first pictures, opened."""
    from vwsdlib.data.pictures import load_picture

    return [load_picture(path).image for path in pictures(10 * s.items, SMALL_PICTURE)[:2]]


def vectors(name: str, squares: np.ndarray, s: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Of the items' pictures and texts by an encoder; `squares` are those of fp32, whatever the
    variant, so that numbers alone differ.
    """
    from benchmarks import models

    encoder = models.encoder(name, s.tiny)
    parts = np.split(squares, range(encoder.image_batch, len(squares), encoder.image_batch))
    texts = encoder.encode_texts([f"river bank {i}" for i in range(s.items)])
    return np.concatenate([encoder.encode_prepared(part) for part in parts]), texts


def cosines(rows: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """[items, 10] of each item's text with its pictures."""
    return np.einsum("ikd,id->ik", rows.reshape(len(texts), 10, -1).astype(float), texts)


# ---------------------------------------------------------------- the checks


def facts(s: Sizes, out: Findings) -> None:
    """The card, versions, what is installed, and the flags as they stand when an encoder is there;
    fails where torch finds no card or TF32 stays on.
    """
    import torch

    from benchmarks import models

    encoder = models.encoder("clip-vit-b32", s.tiny)
    there = {name: importlib.util.find_spec(name) is not None for name in NEEDED + FURTHER}
    out.facts |= {
        "card": card(),
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "missing packages": [name for name, here in there.items() if not here],
        "device": encoder.device,
        "identity": encoder.identity(),
        "TF32 of products": torch.backends.cuda.matmul.allow_tf32,
        "TF32 of convolutions": torch.backends.cudnn.allow_tf32,
    }
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        out.facts["memory (GB)"] = about.total_memory / 1e9
        out.facts["capability"] = f"{about.major}.{about.minor}"
        out.demand(not torch.backends.cudnn.allow_tf32, "TF32 stays on for convolutions")
        out.demand(not torch.backends.cuda.matmul.allow_tf32, "TF32 stays on for products")
    out.demand(s.tiny or encoder.device.startswith("cuda"), "the library does not use the card")


def reference(s: Sizes, out: Findings) -> None:
    """What the processor computes in fp32: vectors, relevance, masks, a crop map."""
    from benchmarks import models
    from vwsdlib.data.pictures import load_picture
    from vwsdlib.encoders.registry import load_segmenter

    encoder, opened = models.encoder("clip-vit-b32", s.tiny), reference_pictures(s)
    out.demand(encoder.device == "cpu", f"the reference was computed on {encoder.device}")
    shown = [load_picture(path).image for path in pictures(10 * s.items, SMALL_PICTURE)]
    squares = np.stack([encoder.preparation(image) for image in shown])
    rows, texts = vectors("clip-vit-b32", squares, s)
    maps = encoder.relevance(encoder.pixels(opened[:1]), texts[:2])
    made = crop_map(encoder, opened[0], texts[:1], s.compared_crops)
    models.use(s.tiny)
    masks = load_segmenter("clipseg-rd64").masks(opened[0], ["river bank", "a dog"])
    whole = {"rows": rows, "texts": texts, "relevance": maps, "masks": masks, "crops": made}
    np.savez(work_folder() / "reference.npz", squares=squares, **whole)
    out.facts["pictures"] = len(rows)


def crop_map(encoder, picture, texts: np.ndarray, n: int) -> np.ndarray:
    """Mean change in cosine over the crops that hold a pixel: [t, h, w]."""
    from vwsdlib.analysis.saliency import random_crop

    return random_crop(encoder.encode_images, picture, texts, n).by_visits


def drift(s: Sizes, out: Findings) -> None:
    """CPU against card in fp32, TF32, bf16 and fp16: the largest difference of a cosine, and first
    choices that change. Fails where fp32 is off by more than 1e-4.
    """
    import torch

    before = stored("reference")
    right = cosines(before["rows"], before["texts"])
    for name in ("fp32", "tf32", "bf16", "fp16"):
        variant = "" if name in ("fp32", "tf32") else f"@{name}"
        if name == "tf32":
            torch.backends.cuda.matmul.fp32_precision = "tf32"
            torch.backends.cudnn.conv.fp32_precision = "tf32"
        rows, texts = vectors("clip-vit-b32" + variant, before["squares"], s)
        if name == "tf32":
            torch.backends.cuda.matmul.fp32_precision = "ieee"
            torch.backends.cudnn.conv.fp32_precision = "ieee"
        other = cosines(rows, texts)
        limit = FP32_DRIFT if name == "fp32" else np.inf
        out.hold(
            f"largest difference of a cosine, {name}", float(np.abs(other - right).max()), limit
        )
        changed = other.argmax(1) != right.argmax(1)
        out.facts[f"first choices that change, {name} (%)"] = 100 * float(changed.mean())
    out.facts["items"] = len(right)


def gradients(s: Sizes, out: Findings) -> None:
    """Relevance, and the gradient of a cosine, after vectors were made (weights that were loaded
    in inference mode have no gradient), in fp32 and bf16.
    """
    import torch

    from benchmarks import models

    before, opened = stored("reference"), reference_pictures(s)
    for name in ("clip-vit-b32", "clip-vit-b32@bf16"):
        encoder = models.encoder(name, s.tiny)
        encoder.encode_images(opened)
        maps = encoder.relevance(encoder.pixels(opened[:1]), before["texts"][:2])
        if "@" not in name:
            apart = np.abs(maps - before["relevance"]).max() / before["relevance"].max()
            out.hold("relevance, difference to the largest value", float(apart), MAP_DRIFT)
        with torch.enable_grad():
            pixels = encoder.pixels(opened[:1]).clone().requires_grad_()
            text = torch.tensor(before["texts"][0], device=pixels.device)
            (gradient,) = torch.autograd.grad((encoder.embed(pixels)[0] * text).sum(), pixels)
        sound = bool(torch.isfinite(gradient).all()) and float(gradient.abs().max()) > 0
        out.demand(sound, f"the gradient of {name} is no number or 0 everywhere")
    if importlib.util.find_spec("captum"):
        from vwsdlib.analysis.saliency import integrated_gradients

        made = integrated_gradients(encoder, opened[0], before["texts"][0], steps=4)
        out.demand(bool(np.isfinite(made).all()), "integrated gradients are no numbers")


def towers(s: Sizes, out: Findings) -> None:
    """The picture towers alone at several batches, as a share of the fastest square product that
    was measured in the same precision.
    """
    import torch

    from benchmarks import models

    for dtype in ("fp32", "bf16"):
        device = models.encoder("clip-vit-b32", s.tiny).device
        a, b = torch.randn(2, s.product, s.product, device=device).to(getattr(torch, TORCH[dtype]))
        peak = 2e-12 * s.product**3 / seconds(lambda a=a, b=b: a @ b, device)
        out.facts[f"peak of matrix products, {dtype} (TFLOP/s)"] = peak
        for key in s.keys:
            name = key if dtype == "fp32" else f"{key}@{dtype}"
            encoder = models.encoder(name, s.tiny)
            work = 0.0 if s.tiny else models.gflop(key) / 1000
            for batch in s.batches:
                rate = _rate(encoder, batch)
                label = f"{key} {dtype}, batch {batch}"
                out.facts[f"{label} (pictures/s)"] = rate
                if rate and work:
                    out.facts[f"{label}, share of peak (%)"] = 100 * rate * work / peak
            models.encoder.cache_clear()


TORCH = {"fp32": "float32", "bf16": "bfloat16"}


def _rate(encoder, batch: int) -> float | None:
    """Pictures/s of a tower; None where the batch does not fit."""
    import torch

    side = encoder.preparation.side
    try:
        with torch.inference_mode():
            pixels = torch.rand(batch, 3, side, side, device=encoder.device)
            return batch / seconds(lambda: encoder.embed(pixels), encoder.device)
    except torch.OutOfMemoryError:
        return None


def cold(s: Sizes, out: Findings) -> None:
    """Files to scores, nothing stored, beside the plain loop on the same device, and beside what
    decoding alone reaches.
    """
    from benchmarks import models, plain
    from vwsdlib.analysis.scorers import cosine_scores, texts_of
    from vwsdlib.encoders.store import VectorStore
    from vwsdlib.encoders.streams import squares

    paths = pictures(10 * s.cold_items, s.megapixels)
    data = items(s.cold_items, paths)
    texts, loop = texts_of(data.items, "phrase"), plain.load("clip-vit-b32", s.tiny)
    first = items(s.plain_items, paths)
    plain.scores(loop, items(1, paths), texts[:1])  # a card's first product takes a second
    start = time.perf_counter()
    theirs = plain.scores(loop, first, texts[: s.plain_items])
    out.facts["plain (pictures/s)"] = 10 * s.plain_items / (time.perf_counter() - start)
    for variant in ("", "@bf16", "@bf16-draft"):
        encoder = models.encoder(f"clip-vit-b32{variant}", s.tiny)
        with tempfile.TemporaryDirectory() as fresh:
            start = time.perf_counter()
            ours = cosine_scores(data, VectorStore(encoder, Path(fresh)), texts)
            rate = len(paths) / (time.perf_counter() - start)
        label = variant.removeprefix("@") or "fp32"
        out.facts[f"{label} (pictures/s)"] = rate
        start = time.perf_counter()
        for _ in squares(paths, encoder.preparation, encoder.image_batch, device=encoder.device):
            pass
        rate = len(paths) / (time.perf_counter() - start)
        out.facts[f"decoding alone, {label} (pictures/s)"] = rate
        if not variant:
            apart = float(np.abs(ours[: s.plain_items] - theirs).max())
            out.hold("largest difference of a score, fp32 and plain", apart, FP32_DRIFT)
    out.facts["device of the plain loop"] = str(loop.model.device)


def maps(s: Sizes, out: Findings) -> None:
    """Masks and random crops on the device, held against the processor's."""
    from benchmarks import models
    from vwsdlib.analysis.masks import sigmoid
    from vwsdlib.encoders.registry import load_segmenter

    before, opened = stored("reference"), reference_pictures(s)
    models.use(s.tiny)
    segmenter, asked = load_segmenter("clipseg-rd64"), ["river bank", "a dog"]
    masks = segmenter.masks(opened[0], asked)
    apart = float(np.abs(sigmoid(masks) - sigmoid(before["masks"])).max())
    out.hold("masks, largest difference of a probability", apart, MASK_DRIFT)
    device = segmenter.encoder.device
    out.facts["a mask (ms)"] = 1000 * seconds(lambda: segmenter.masks(opened[0], asked), device)
    encoder = models.encoder("clip-vit-b32", s.tiny)
    made = crop_map(encoder, opened[0], before["texts"][:1], s.compared_crops)
    apart = float(np.abs(made - before["crops"]).max())
    out.hold("crops, largest difference of a mean change", apart, CROP_DRIFT)
    start = time.perf_counter()
    crop_map(encoder, opened[0], before["texts"][:1], s.crops)
    out.facts[f"{s.crops} crops (s)"] = time.perf_counter() - start


def translator(s: Sizes, out: Findings) -> None:
    """A tiny translator with random weights: does it run on the device, and give what it gives
    again?
    """
    from vwsd_standins.rehearsal.translators import make_translators
    from vwsdlib.language.translate import translate

    folder = work_folder() / "translators"
    make_translators(folder)
    os.environ["VWSD_MODELS"] = str(folder)
    texts, answers = [f"banco del fiume {i}" for i in range(s.texts)], []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as fresh:
            start = time.perf_counter()
            made = translate("opus-mt", texts, "it", store=fresh)
            out.facts["texts/s"] = len(texts) / (time.perf_counter() - start)
            answers.append(made.texts_out)
    out.facts["device"] = made.identity["device"]
    out.demand(answers[0] == answers[1], "the same texts were translated otherwise again")


def step(s: Sizes, out: Findings) -> None:
    """PolCLIP's step at the paper's size: seconds of each part and peak memory, in fp32 and bf16,
    with and without checkpointing.
    """
    import torch

    from benchmarks import models
    from polclip.config import make_config
    from polclip.model import PolClip
    from polclip.train import make_optimizer

    models.use(s.tiny, ["clip-vit-l14"])
    for precision, again in (("no", False), ("bf16", False), ("bf16", True)):
        changes = {"precision": precision, "checkpointing": again} | (SMALL if s.tiny else {})
        config = make_config("paper", backbone="clip-vit-l14", **changes)
        label = f"{precision}{', checkpointing' * again}"
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model = PolClip(config).to(device).train()
            parts, loss = _timed_step(model, make_optimizer(model), s, device, precision)
        except torch.OutOfMemoryError:
            out.facts[f"{label}"] = "does not fit"
            continue
        out.facts |= {f"{label}: {part}": value for part, value in parts.items()}
        out.demand(bool(np.isfinite(loss)), f"the loss is no number, {label}")
        del model
        gc.collect()


def _timed_step(model, optimizer, s: Sizes, device: str, precision: str) -> tuple[dict, float]:
    """({part: seconds, peak memory in GB}, loss) of the second step."""
    import torch

    from polclip.batches import collate

    pixels = torch.rand(s.shown, 3, 224, 224)
    parts: dict[str, float] = {}

    def timed(part: str, function: Callable):
        start = time.perf_counter()
        made = function()
        wait(device)
        parts[f"{part} (s)"] = time.perf_counter() - start
        return made

    def look() -> torch.Tensor:
        some = pixels.split(64)
        return torch.cat([model.backbone.frozen_look(part.to(device)) for part in some]).float()

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            states = timed("frozen tower", look)
            batch = collate(records(s), model.coder, states.cpu()).to(device)
            loss = timed("forward", lambda batch=batch: model(batch)["loss"])
        timed("backward", loss.backward)
        timed("optimiser", optimizer.step)
        optimizer.zero_grad()
    if device == "cuda":
        parts["peak memory (GB)"] = torch.cuda.max_memory_allocated() / 1e9
    return parts, float(loss.detach())


def records(s: Sizes) -> list:
    """Questions of two senses each, with as many senses and pictures as a step takes."""
    from polclip.records import Candidate, Record

    names = [f"picture {i}" for i in range(s.shown)]
    made, each = [], s.shown // s.senses
    for i in range(s.senses // 2):
        senses = []
        for k in (2 * i, 2 * i + 1):
            shown = tuple(names[k * each : (k + 1) * each])
            senses.append(Candidate(f"sense {k}", f"the meaning of number {k}", shown))
        words = ("the", "river", "bank", str(i))
        made.append(Record(f"r{i}", "en", words, (2, 2), tuple(senses), (senses[0].id,)))
    return made


def resume(s: Sizes, out: Findings) -> None:
    """A training of the tiny backbone that is killed at each step and taken up, beside one that is
    not.
    """
    import torch

    from benchmarks import models
    from polclip.config import make_config
    from polclip.model import PolClip
    from polclip.train import Data, train

    models.use(True, ["clip-vit-l14"])
    config = make_config("paper", backbone="clip-vit-l14", epochs=1, **SMALL)
    batches = [records(QUICK)[k : k + 1] for k in range(3)]
    model = PolClip(config)
    shape = (model.backbone.places, model.backbone.vision_width)

    def states(names: Sequence[str]) -> torch.Tensor:
        seeded = torch.Generator().manual_seed(len(names))
        return torch.randn(len(names), *shape, generator=seeded)

    data, weights = Data(lambda epoch: batches, len(batches), states, {"set": "gpu"}), []
    with tempfile.TemporaryDirectory() as folder:
        for name, stop in (("whole", 0), ("stopped", 2)):  # the second step of each call is lost
            for _ in range(1 if not stop else len(batches) + 1):
                model = PolClip(config)
                train(model, data, Path(folder) / name, save_every=1, stop_after=stop)
            weights.append([p.detach().float().cpu() for p in model.parameters()])
    apart = max(float((a - b).abs().max()) for a, b in zip(*weights))
    out.hold("largest difference of a weight, stopped and whole", apart, 1e-5)
    out.facts["same bits"] = apart == 0


def torchrun(s: Sizes, out: Findings) -> None:
    """`vwsd encode` under torchrun with one process gives the vectors of a process without it."""
    from benchmarks import models
    from vwsdlib.encoders.store import VectorStore

    paths, encoder = pictures(10 * s.items, SMALL_PICTURE), models.encoder("clip-vit-b32", s.tiny)
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as fresh:
        shown = Path(fresh) / "pictures"
        shown.mkdir()
        for path in paths:
            (shown / path.name).symlink_to(path)
        told = ["encode", str(shown), "--encoder", "clip-vit-b32"]
        done = subprocess.run(
            [sys.executable, *start, "-m", "vwsd_companion.cli", *told],
            capture_output=True,
            text=True,
            env=os.environ | {"VWSD_CACHE": cache, "CI": "1"},
        )
        out.demand(
            done.returncode == 0, f"torchrun ended with {done.returncode}: {done.stderr[-500:]}"
        )
        if done.returncode == 0:
            theirs = VectorStore(encoder, Path(cache) / "vectors").images(paths)
            ours = VectorStore(encoder, Path(fresh)).images(paths)
            out.hold("largest difference of a vector", float(np.abs(theirs - ours).max()), 1e-6)


def plan(s: Sizes, out: Findings) -> None:
    """What plans and `@auto` reckon with, measured here; fails on a card of compute capability 8
    or more where bf16 is taken for slower than fp32.
    """
    import torch

    from vwsd_companion.machine import look
    from vwsdlib.encoders.variants import fastest, probe, speeds

    faster = speeds()
    out.facts |= {f"{name} (ms a picture)": value for name, value in probe().items()}
    out.facts |= {f"{name}, times as fast as fp32": value for name, value in faster.items()}
    out.facts |= {"@auto is": fastest(faster), "machine": str(look())}
    if torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8:
        out.demand(faster["bf16"] > 1, f"@bf16 is taken for {faster['bf16']:.2f} times as fast")


def memory(s: Sizes, out: Findings) -> None:
    """What stays when encoders were let go: nothing, or a failure."""
    import torch

    from benchmarks import models
    from vwsdlib.device import give_back
    from vwsdlib.encoders.networks import make_room
    from vwsdlib.encoders.registry import load_encoder

    there, gone = torch.cuda.is_available(), []
    for key in s.keys:
        encoder = models.encoder(key, s.tiny)
        encoder.encode_images(reference_pictures(s))
        gone.append(weakref.ref(encoder.model))
        if there:
            out.facts[f"with {key} (MB)"] = torch.cuda.memory_allocated() / 1e6
    make_room(0)
    give_back()
    out.demand(all(ref() is None for ref in gone), "a network that was let go is still in memory")
    if there:
        out.hold(
            "stays allocated when networks are let go (MB)",
            torch.cuda.memory_allocated() / 1e6,
            STAYS,
        )
    models.encoder.cache_clear()
    load_encoder.cache_clear()


@dataclass(frozen=True)
class Check:
    """A function that finds, seconds that it may take at full size (besides what checks before it
    left of theirs), what its process is told by the environment.
    """

    run: Callable[[Sizes, Findings], None]
    limit: int
    environment: dict[str, str] = field(default_factory=dict)


CHECKS = {
    "facts": Check(facts, 40),
    "reference": Check(reference, 60, ON_PROCESSOR),
    "drift": Check(drift, 40),
    "gradients": Check(gradients, 30),
    "cold": Check(cold, 70),
    "towers": Check(towers, 60),
    "plan": Check(plan, 35),
    "maps": Check(maps, 40),
    "memory": Check(memory, 35),
    "step": Check(step, 60),
    "resume": Check(resume, 35),
    "translator": Check(translator, 40),
    "torchrun": Check(torchrun, 55),
}


# ---------------------------------------------------------------- the command


def card() -> str | None:
    """The card's name; None where torch finds none."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


class Ended(BaseException):
    """The check's process was told to end; nothing that it computes with takes this for its own."""


def end(*_: object) -> None:
    """What a check's process does on SIGTERM."""
    raise Ended


def one(name: str, quick: bool) -> dict:
    """One check in this process, as a line says it; what it has so far where it is told to end."""
    out, start = Findings(), time.perf_counter()
    try:
        CHECKS[name].run(QUICK if quick else FULL, out)
    except Ended:
        out.failures.append("it was ended before it was through: these are its facts until then")
    except Exception as e:  # whatever a card leads to is what this looks for
        out.failures.append(f"{type(e).__name__}: {e}")
    line = {"check": name, "ok": not out.failures, "seconds": time.perf_counter() - start}
    return line | {"day": str(date.today()), "failures": out.failures, "facts": out.facts}


def apart(name: str, quick: bool, limit: float) -> dict:
    """One check in a process of its own, ended at its limit."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--check", name, *["--quick"] * quick]
    start = time.perf_counter()
    # no pipes: a killed check's own processes may hold them open
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as complained:
        environment = os.environ | CHECKS[name].environment
        process = subprocess.Popen(command, stdout=printed, stderr=complained, env=environment)
        through = _ends(process, limit)
        printed.seek(0)
        complained.seek(0)
        lines = [line for line in printed if line.startswith(MARK)]
        last_words = complained.read()[-800:]
    line = {"check": name, "seconds": time.perf_counter() - start, "failures": [], "facts": {}}
    if lines:
        line = json.loads(lines[-1].removeprefix(MARK))
    elif through:
        line["failures"] = [f"its process ended with {process.returncode}: {last_words}"]
    if not through:
        line["failures"].append(f"it took more than {limit:.0f} s")
    return line | {"ok": not line["failures"]}


def _ends(process: subprocess.Popen, limit: float) -> bool:
    """Does it end by itself within `limit` s? Where not, it is told to, and killed after GRACE."""
    try:
        process.wait(limit)
        return True
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return False


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny, on whatever is here")
    parser.add_argument("--only", nargs="+", choices=CHECKS, metavar="NAME", help="these checks")
    parser.add_argument("--minutes", type=float, default=10, help="in all (default 10)")
    parser.add_argument("--out", type=Path, help="keep the lines as JSON in this folder")
    parser.add_argument("--check", choices=CHECKS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """A line a check, as soon as it is done; 1 where one failed."""
    options = parse(arguments)
    if options.check:
        signal.signal(signal.SIGTERM, end)
        print(MARK + json.dumps(one(options.check, options.quick), default=str), flush=True)
        return 0
    lines, due = [], time.perf_counter()
    last = due + 60 * options.minutes
    for name in options.only or CHECKS:
        due = min(last, due + CHECKS[name].limit * (PATIENT if options.quick else 1))
        lines.append(apart(name, options.quick, max(1.0, due - time.perf_counter())))
        print(json.dumps(lines[-1]), flush=True)
        if options.out:
            keep(lines, options.out)
    return int(not all(line["ok"] for line in lines))


def keep(lines: list[dict], folder: Path) -> None:
    """All lines under the card's name, or that of no card; of checks that were not made this time
    (`--only`), the lines that are there stay.
    """
    named = [line["facts"]["card"] for line in lines if "card" in line["facts"]] or [card()]
    slug = re.sub(r"[^a-z0-9]+", "-", (named[0] or "no card").lower()).strip("-")
    path = folder / f"gpu-{slug}.json"
    folder.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text()) if path.exists() else []
    known = {line["check"]: line for line in [*before, *lines]}
    ordered = [known[name] for name in CHECKS if name in known]
    path.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
