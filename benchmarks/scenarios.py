"""What is measured. A scenario is a function that does one turn, its sides one after the other, and
returns a `Turn`.

Models are loaded and processes started outside what is timed, for all sides alike. "Ours, cold"
begins with an empty store.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np

from benchmarks import inputs, machine, models, plain
from vwsd_companion.facts.numbers import prediction_rows, to_jsonl
from vwsd_companion.facts.predictions import write_predictions
from vwsdlib.analysis.metrics import gold_ranks
from vwsdlib.analysis.saliency import draw_crops, random_crop
from vwsdlib.analysis.scorers import cosine_scores, texts_of
from vwsdlib.data.pictures import Square, load_picture
from vwsdlib.data.sets import VwsdSet
from vwsdlib.encoders.registry import Encoder
from vwsdlib.encoders.store import VectorStore
from vwsdlib.encoders.streams import side_by_side, squares
from vwsdlib.errors import VwsdError
from vwsdlib.paths import cache_dir


@dataclass
class Turn:
    """One turn: seconds of each side, in the order they ran, and facts (numbers, units in their
    names; lists are shown as they are).
    """

    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)

    @contextmanager
    def timed(self, side: str):
        start = time.perf_counter()
        yield
        self.seconds[side] = self.seconds.get(side, 0.0) + time.perf_counter() - start


def _agree(what: str, difference: float, limit: float, turn: Turn) -> None:
    """Note a difference; VwsdError where it is too large, as times of unequal work tell nothing."""
    turn.facts[f"largest difference of {what}"] = difference
    if not difference <= limit:
        raise VwsdError(
            f"{what} differ by {difference:.1e}, more than {limit:.0e}",
            remedy="One side computes something else: see to that first.",
        )


def flips(data: VwsdSet, reference: np.ndarray, other: np.ndarray) -> dict[str, object]:
    """Items whose first choice, or whose hit@1, is another under `other`, each with its margin
    under `reference`; scores: [n, 10].
    """
    gold, best = [item.gold_index for item in data.items], np.sort(reference)
    moved = np.flatnonzero(reference.argmax(1) != other.argmax(1))
    hit = (gold_ranks(reference, gold) == 1) != (gold_ranks(other, gold) == 1)
    named = [
        f"{data.items[i].id}: margin"
        f" {best[i, -1] - best[i, -2]:.1e}{', hit@1 too' if hit[i] else ''}"
        for i in moved
    ]
    return {
        "hit@1 flips (%)": 100 * float(hit.mean()),
        "first choices that change (%)": 100 * len(moved) / len(gold),
        "largest margin of a change": max(
            (float(best[i, -1] - best[i, -2]) for i in moved), default=0.0
        ),
        "changes": named,
    }


def cold(items: int, pictures: int) -> Turn:
    """CLIP B/32 from picture files to scores, nothing stored: the plain loop, then ours in each
    precision.
    """
    turn, (folder, names) = Turn(), inputs.pictures(pictures)
    variants = ["fp32", "bf16", "bf16-draft", "auto"]
    data, _ = inputs.deal("en", items, names, folder)
    texts, loop, scores = texts_of(data.items, "phrase"), plain.load("clip-vit-b32"), {}
    encoders = {v: models.encoder("clip-vit-b32" + f"@{v}" * (v != "fp32")) for v in variants}
    with turn.timed("plain"):
        theirs = plain.scores(loop, data, texts)
    for variant, encoder in encoders.items():
        with tempfile.TemporaryDirectory() as fresh, turn.timed(variant):
            scores[variant] = cosine_scores(data, VectorStore(encoder, Path(fresh)), texts)
    _agree("scores, fp32 and plain", float(np.abs(scores["fp32"] - theirs).max()), 1e-4, turn)
    rates = {
        side: (10 * items if side == "plain" else len(names)) / seconds
        for side, seconds in turn.seconds.items()
    }  # of pictures decoded
    turn.facts |= {f"pictures decoded/s, {side}": rate for side, rate in rates.items()}
    turn.facts |= {
        f"pictures decoded/s, {variant} to plain": rates[variant] / rates["plain"]
        for variant in variants
    }
    for variant in variants[1:]:
        turn.facts |= {
            f"{key}, {variant}": value
            for key, value in flips(data, scores["fp32"], scores[variant]).items()
        }
    turn.facts["auto is"] = [encoders["auto"].name]
    return turn


def _encode(encoder: Encoder, squares: np.ndarray) -> None:
    """Prepared pictures through the network as the store would send them: batches, side by side."""
    list(
        side_by_side(
            encoder.encode_prepared,
            (
                squares[i : i + encoder.image_batch]
                for i in range(0, len(squares), encoder.image_batch)
            ),
        )
    )


def towers(pictures: dict[str, int]) -> Turn:
    """The picture towers alone, and the share of the machine's measured peak that they reach;
    measured in the same turn.
    """
    turn, before = Turn(), {dtype: machine.peak(dtype) for dtype in machine.DTYPES}
    for key, n in pictures.items():
        side, work = models.SIDE[key], models.gflop(key)
        squares = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), np.uint8)
        turn.facts[f"work, {key} (GFLOP/picture)"] = work
        for dtype in before:
            network, label = models.encoder(key + "@bf16" * (dtype == "bf16")), f"{key} {dtype}"
            _encode(network, squares[: 2 * machine.cores() * network.image_batch])  # warm up
            with turn.timed(label):
                _encode(network, squares)
            turn.facts[f"rate, {label} (GFLOP/s)"] = work * n / turn.seconds[label]
    peaks = {
        dtype: max(rate, machine.peak(dtype)) for dtype, rate in before.items()
    }  # before and after: a shared machine wavers
    turn.facts |= {
        f"peak of matrix products, {dtype} (GFLOP/s)": rate for dtype, rate in peaks.items()
    }
    for label in turn.seconds:
        turn.facts[f"share of peak, {label} (%)"] = (
            100 * turn.facts[f"rate, {label} (GFLOP/s)"] / peaks[label.split()[1]]
        )
    return turn


STUDY = [
    ("clip-vit-b32", "en", False),
    ("clipseg-rd64", "en", False),
    ("clipseg-rd64", "it", False),
    ("clipseg-rd64", "it", True),
    ("clipseg-rd64", "fa", False),
    ("clipseg-rd64", "fa", True),
]  # encoder, language, translated?
Job = tuple[str, VwsdSet, list[str]]  # encoder, set, texts


def jobs(sets: dict[str, tuple[VwsdSet, list[str]]]) -> list[Job]:
    """The study's six rows; the English phrases stand for translations."""
    return [
        (
            key,
            sets[lang][0],
            sets[lang][1] if translated else texts_of(sets[lang][0].items, "phrase"),
        )
        for key, lang, translated in STUDY
    ]


def _score(
    work: Iterable[Job], encoders: dict[str, Encoder], folder: str | Path
) -> list[np.ndarray]:
    return [
        cosine_scores(data, VectorStore(encoders[key], Path(folder)), texts)
        for key, data, texts in work
    ]


def rows(items: int, plain_every: int) -> Turn:
    """All six rows of the study at true size on a sample: the plain loops, then ours from nothing
    and again with the vectors stored.

    plain_every: the plain loops run on every so many items only and their time is scaled up; 1 is
    the whole.
    """
    turn, (folder, names) = Turn(), inputs.pictures(inputs.study_counts(items)[1])
    work, loops = (
        jobs(inputs.study(names, folder, items)),
        {key: plain.load(key) for key in ("clip-vit-b32", "clipseg-rd64")},
    )
    with turn.timed("plain"):
        some = [replace(data, items=data.items[::plain_every]) for _, data, _ in work]
        theirs = [
            plain.scores(loops[key], data, texts[::plain_every])
            for data, (key, _, texts) in zip(some, work)
        ]
    turn.seconds["plain"] *= items / len(some[0].items)
    for variant in ("fp32", "bf16"):
        encoders = {key: models.encoder(key + "@bf16" * (variant == "bf16")) for key in loops}
        with tempfile.TemporaryDirectory() as fresh:
            with turn.timed(variant):
                ours = _score(work, encoders, fresh)
            with turn.timed(f"{variant}, warm"):
                _score(work, encoders, fresh)
        difference = float(max(np.abs(a[::plain_every] - b).max() for a, b in zip(ours, theirs)))
        _agree(
            f"scores, {variant} and plain", difference, 1e-4 if variant == "fp32" else 0.05, turn
        )
    return turn


def warm(items: int | None) -> Turn:
    """Six rows at full size with tiny checkpoints and every vector stored: scores, and a run's file
    and rows with intervals.
    """
    turn, (folder, names) = Turn(), inputs.small_pictures(inputs.study_counts(items)[1])
    work, encoders = (
        jobs(inputs.study(names, folder, items)),
        {key: models.encoder(key, tiny=True) for key in ("clip-vit-b32", "clipseg-rd64")},
    )
    kept = cache_dir() / "benchmarks" / "warm"
    _score(work, encoders, kept)  # fills the store, on the first turn
    with tempfile.TemporaryDirectory() as out, turn.timed("warm"):
        _tables(work, _score(work, encoders, kept), encoders, Path(out))
    turn.facts |= {
        "rows scored, items": sum(len(data.items) for _, data, _ in work),
        "pictures": len(names),
    }
    return turn


def _tables(
    work: Sequence[Job], scores: Sequence[np.ndarray], encoders: dict[str, Encoder], out: Path
) -> str:
    runs = [
        write_predictions(
            out,
            f"{key}.row{i}.{data.language}.test",
            data,
            texts,
            found,
            profile="bench",
            variant=f"row{i}",
            identity=encoders[key].identity(),
        )
        for i, ((key, data, texts), found) in enumerate(zip(work, scores))
    ]
    return to_jsonl(row for run in runs for row in prediction_rows(run))


def stages(pictures: int) -> Turn:
    """Each stage by itself, CLIP B/32 fp32: decode and resize in one process, the network as the
    store would use it, scores and tables of a run.
    """
    turn, (folder, names) = Turn(), inputs.pictures(pictures)
    network, items = models.encoder("clip-vit-b32"), -(-len(names) // 9)
    data, _ = inputs.deal("en", items, names, folder)
    texts = texts_of(data.items, "phrase")
    with turn.timed("decode"):
        images = [load_picture(folder / name).image for name in names]
    with turn.timed("resize"):
        squares = np.stack([network.preparation(image) for image in images])
    with turn.timed("encode"):
        _encode(network, squares)
    with tempfile.TemporaryDirectory() as fresh:
        store = VectorStore(network, Path(fresh))
        cosine_scores(data, store, texts)
        with turn.timed("score"):
            scores = cosine_scores(data, store, texts)
        with turn.timed("tables"):
            _tables(
                [("clip-vit-b32", data, texts)], [scores], {"clip-vit-b32": network}, Path(fresh)
            )
    counts = dict.fromkeys(("decode", "resize", "encode"), ("picture", len(names))) | dict.fromkeys(
        ("score", "tables"), ("item", items)
    )
    turn.facts = {
        f"{stage} (ms/{unit})": 1000 * turn.seconds[stage] / n
        for stage, (unit, n) in counts.items()
    }
    return turn


def growth(pictures: Sequence[int]) -> Turn:
    """Tiny CLIP from files to scores in a process of its own a size: seconds, peak memory of the
    tree, and how straight a line the times lie on.
    """
    turn, context = Turn(), multiprocessing.get_context("spawn")
    inputs.small_pictures(max(pictures))
    for n in pictures:
        here, there = context.Pipe()
        process, highest = context.Process(target=_grow, args=(n, there)), 0.0
        process.start()
        there.close()
        while not here.poll(0.1) and process.is_alive():
            highest = max(highest, machine.memory(process.pid))
        if not here.poll():
            raise VwsdError(
                f"the process of {n} pictures ended early", remedy="Its own words stand above."
            )
        turn.seconds[f"{n} pictures"] = here.recv()
        process.join()
        turn.facts[f"peak memory, {n} pictures (MB)"] = highest
    times, sizes = list(turn.seconds.values()), np.array(pictures)
    slope, start = np.polyfit(sizes, times, 1)
    rest = np.array(times) - (slope * sizes + start)
    memory = [v for k, v in turn.facts.items() if k.startswith("peak")]
    turn.facts |= {
        "fit: ms a picture": 1000 * float(slope),
        "fit: R²": float(1 - (rest**2).sum() / ((times - np.mean(times)) ** 2).sum()),
        "memory at the largest to the smallest size (%)": (
            100 * memory[-1] / memory[0] if memory[0] else float("nan")
        ),
    }
    return turn


def _grow(n: int, answer) -> None:
    folder, names = inputs.small_pictures(n)
    data, _ = inputs.deal("en", -(-n // 9), names, folder)
    encoder = models.encoder("clip-vit-b32", tiny=True)
    with tempfile.TemporaryDirectory() as fresh:
        start = time.perf_counter()
        cosine_scores(data, VectorStore(encoder, Path(fresh)), texts_of(data.items, "phrase"))
        answer.send(time.perf_counter() - start)


def shards(pictures: int) -> Turn:
    """`vwsd encode` in one process and in two of torchrun, process start and loading included: the
    same vectors, bit for bit.
    """
    turn, (folder, names) = Turn(), inputs.pictures(pictures)
    os.environ["VWSD_MODELS"] = str(models.folder())
    sides, found = (
        {
            "one process": [],
            "two processes": [
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node",
                "2",
            ],
        },
        {},
    )
    for side, start in sides.items():
        with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as some:
            for name in names:
                (Path(some) / name).symlink_to(folder / name)
            command = [
                sys.executable,
                *start,
                "-m",
                "vwsd_companion.cli",
                "encode",
                some,
                "--encoder",
                "clip-vit-b32",
            ]
            with turn.timed(side):
                subprocess.run(
                    command,
                    check=True,
                    capture_output=True,
                    env=os.environ | {"VWSD_CACHE": cache, "CI": "1"},
                )
            store = VectorStore(models.encoder("clip-vit-b32"), Path(cache) / "vectors")
            turn.facts[f"shards, {side}"] = len(list(store.path.glob("*.keys")))
            found[side] = store.images([Path(some) / name for name in names])
    _agree(
        "vectors of one process and of two",
        float(np.abs(found["one process"] - found["two processes"]).max()),
        0.0,
        turn,
    )
    return turn


def crops(n: int, tiny: bool) -> Turn:
    """Random-crop saliency of a picture: one crop a pass, the text read anew each time, then ours
    on the same crops.
    """
    turn, picture, text = Turn(), inputs.base(0, (640, 480)), "river bank"
    loop, network = plain.load("clip-vit-b32", tiny), models.encoder("clip-vit-b32", tiny)
    (
        loop.cosines(text, [picture]),
        network.preparation(picture),
    )  # first use imports and compiles: not while the clock runs
    with turn.timed("plain"):
        theirs = plain.crop_map(loop, picture, text, draw_crops(picture.size, n))
    with turn.timed("ours"):
        ours = random_crop(network.encode_images, picture, network.encode_texts([text]), n)
    _agree(
        "maps, mean change of the cosine",
        float(np.abs(ours.by_visits[0] - theirs / np.maximum(ours.visits, 1)).max()),
        1e-5,
        turn,
    )
    turn.facts |= {
        "largest difference of maps, sum over crops": float(np.abs(ours.total[0] - theirs).max()),
        "crops": n,
    }
    return turn


class StandIn:
    """A card that is not there: it takes batches as an encoder on CUDA does, one at a time, and as
    long as one of `rate` pictures/s would; meanwhile other threads go on.
    """

    name, dim, batch_size, image_batch, streams = "stand-in", 512, 256, 64, 2
    device, preparation = "cuda:0", Square(224, 224)

    def __init__(self, rate: float):
        self.rate, self._busy = rate, Lock()

    def identity(self) -> dict:
        """Nothing of it is a model."""
        return {"model": self.name, "rate": self.rate}

    def encode_prepared(self, squares) -> np.ndarray:
        """uint8 [n, s, s, 3] -> [n, dim], all alike."""
        with self._busy:
            time.sleep(len(squares) / self.rate)
        return np.full((len(squares), self.dim), self.dim**-0.5, np.float32)


H100 = 5000  # pictures/s of ViT-B/32 in fp32, estimated


def overlap(pictures: int) -> Turn:
    """Decoding by workers while a stand-in for the network computes: the rate that is reached, as a
    share of the slower side's alone. The network at half the rate of decoding, at the same, and as
    an H100.
    """
    turn, (folder, names) = Turn(), inputs.small_pictures(pictures)
    paths = [folder / name for name in names]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pin_memory.*no accelerator")
        first = _decoded(paths)
        for label, rate in (("half", first / 2), ("the same", first), ("an H100", H100)):
            with tempfile.TemporaryDirectory() as fresh, turn.timed(label):
                VectorStore(StandIn(rate), Path(fresh)).images(paths)
            reached, again = len(paths) / turn.seconds[label], _decoded(paths)
            decoding = (first + again) / 2  # before and after: a shared machine wavers
            turn.facts |= {
                f"network alone, {label} (pictures/s)": rate,
                f"decoding alone, {label} (pictures/s)": decoding,
                f"reached, {label} (pictures/s)": reached,
                f"share of the slower side, {label} (%)": 100 * reached / min(rate, decoding),
            }
            first = again
    return turn


def _decoded(paths: Sequence[Path]) -> float:
    """Pictures/s that workers decode and shrink where nobody computes."""
    start, card = time.perf_counter(), StandIn
    for _ in squares(paths, card.preparation, card.image_batch, device=card.device):
        pass
    return len(paths) / (time.perf_counter() - start)


@dataclass(frozen=True)
class Scenario:
    """A function that does one turn, its sizes (for a real run, and to try it out), the side that
    others are held against, rough minutes a turn.
    """

    run: Callable[..., Turn]
    full: dict
    quick: dict
    base: str = ""
    minutes: float = 1.0


SCENARIOS: dict[str, Scenario] = {
    "cold": Scenario(
        cold, {"items": 200, "pictures": 1700}, {"items": 3, "pictures": 26}, "plain", 6
    ),
    "encoder": Scenario(
        towers,
        {"pictures": {"clip-vit-b32": 192, "clip-vit-b16": 64, "clipseg-rd64": 24}},
        {"pictures": {"clip-vit-b32": 16, "clip-vit-b16": 8, "clipseg-rd64": 4}},
        minutes=1.5,
    ),
    "rows": Scenario(
        rows, {"items": 20, "plain_every": 1}, {"items": 1, "plain_every": 1}, "plain", 20
    ),
    "warm": Scenario(warm, {"items": None}, {"items": 10}, minutes=0.5),
    "stages": Scenario(stages, {"pictures": 90}, {"pictures": 18}, minutes=0.5),
    "growth": Scenario(
        growth, {"pictures": (1000, 8000, 32000)}, {"pictures": (100, 200, 400)}, minutes=2
    ),
    "growth-large": Scenario(
        growth, {"pictures": (30000, 100000, 300000)}, {"pictures": (100, 200, 400)}, minutes=25
    ),
    "overlap": Scenario(overlap, {"pictures": 6000}, {"pictures": 300}, minutes=1),
    "shards": Scenario(shards, {"pictures": 200}, {"pictures": 12}, "one process", 1),
    "crops": Scenario(partial(crops, tiny=True), {"n": 2000}, {"n": 100}, "plain", 0.5),
    "crops-true-size": Scenario(partial(crops, tiny=False), {"n": 400}, {"n": 20}, "plain", 1),
}
