"""What each notebook asks of a machine, reckoned from its parameters: pictures, texts, crops,
gradients, masks and training steps, in GFLOP and gigabytes. Made for the plan (forecast.py).

Counted as if nothing were stored; two operations a multiplication and addition. Networks, their
shapes and the sizes of sets are in costs.yml; a notebook that names others has no estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vwsdlib.encoders.checkpoints import CHECKPOINTS

from .facts.code import registered
from .machine import COSTS, Machine

BATCH = 64  # pictures that go through a network at once
CONTEXT_GB = 1.0  # what a process holds before it loads a network
PASS_BACK = 3  # a pass with its gradient, in passes
WINDOWS = 49  # of occlusion: a quarter of the side each, an eighth apart
TEXTS_OF_02 = 3  # word, phrase, "this is"
CANDIDATES = 10
CHANGED_SCENES = 8  # those of notebook 05 whose maps are tested by deletion and insertion
METHODS = 7  # of these maps
HALF = ("bf16", "fp16", "bf16-draft")  # variants that compute in 16 bits


class Unknown(LookupError):
    """A network or a set that costs.yml does not know."""


@dataclass(frozen=True)
class Pass:
    """So much through one network.

    gflop: all of it. memory_gb: weights and activations of a batch. decoded: pictures read from
    disk for it. number: the number format. written: one token after another.
    """

    gflop: float
    memory_gb: float
    decoded: int = 0
    number: str = "float32"
    written: bool = False

    def seconds(self, machine: Machine, kind: str) -> float:
        """Seconds that it takes where pictures of this kind are decoded while the network
        computes.
        """
        share = COSTS["share_written"] if self.written else machine.share
        computed = self.gflop / (1000 * machine.tflops[self.number] * share)
        return max(computed, self.decoded / machine.decoded[kind])


def tower_gflop(layers: int, width: int, inner: int, tokens: int) -> float:
    """Billions of operations (GFLOP) of one pass through a transformer: its products and its
    attention.
    """
    products = 2 * layers * tokens * (4 * width**2 + 2 * width * inner)
    return (products + 4 * layers * tokens**2 * width) / 1e9


def _network(name: str) -> dict:
    """Line of costs.yml of an encoder, a segmenter or a writer, also of a variant "name@variant";
    Unknown where there is none.
    """
    plain = name.partition("@")[0]
    if plain not in COSTS["networks"]:
        raise Unknown(name)
    return COSTS["networks"][plain]


def weights_gb(name: str) -> float:
    """Gigabytes of the checkpoints that a network reads."""
    keys: set[str] = set()
    for entry in registered(name.partition("@")[0]):
        keys.update(getattr(entry, "checkpoints", None) or [getattr(entry, "model", "")])
    return sum(CHECKPOINTS[key].megabytes for key in keys if key in CHECKPOINTS) / 1000


def _through(
    name: str, tower: str, count: int, batch: int = BATCH, back: bool = False, decoded: int = 0
) -> Pass:
    layers, width, inner, tokens = _network(name)[tower]
    activations = 4 * batch * tokens * (4 * width + 2 * inner) / 1e9
    if back:  # every layer's stay until the gradient comes
        activations *= layers
    number = "bfloat16" if name.partition("@")[2] in HALF else "float32"
    gflop = count * tower_gflop(layers, width, inner, tokens) * (PASS_BACK if back else 1)
    return Pass(gflop, CONTEXT_GB + weights_gb(name) + activations, decoded, number)


def pictures(name: str, count: int, read: bool = True) -> Pass:
    """`count` pictures through an encoder; read: from disk."""
    return _through(name, "picture", count, decoded=count if read else 0)


def gradients(name: str, count: int, batch: int = 16) -> Pass:
    """`count` passes of single pictures forward and back."""
    return _through(name, "picture", count, batch, back=True)


def texts(name: str, count: int) -> Pass:
    """`count` texts through an encoder."""
    return _through(name, "text", count)


def masks(name: str, count: int) -> Pass:
    """`count` masks by a segmenter's decoder, its pictures apart."""
    return _through(name, "mask", count)


def written(name: str, count: int) -> Pass:
    """`count` texts by a translator or a definer that runs here."""
    millions, beams, tokens = _network(name)["written"]
    memory = CONTEXT_GB + weights_gb(name) * 1.5  # the states of the beams beside the weights
    return Pass(2e-3 * millions * tokens * (1 + beams) * count, memory, written=True)


def size(dataset: str, part: str, what: str, limit: int = 0) -> int:
    """Items or pictures of "language.split" of a set; Unknown where costs.yml has none."""
    known = COSTS["sets"].get(dataset, {}).get(part)
    if not known:
        raise Unknown(dataset)
    if not limit or limit >= known["items"]:
        return known[what]
    return limit if what == "items" else min(known["pictures"], CANDIDATES * limit)


# ---------------------------------------------------------------- notebook by notebook


class Sizes:
    """Sizes of the parts that a notebook's parameters name."""

    def __init__(self, parameters: dict):
        self.dataset, self.split = parameters["dataset"], parameters["split"]
        self.limit = parameters.get("limit", 0)

    def items(self, language: str, split: str = "") -> int:
        """Items of a language."""
        part = f"{language}.{split or self.split}"
        return size(self.dataset, part, "items", self.limit)

    def pictures(self, language: str, split: str = "") -> int:
        """Distinct pictures of a language."""
        part = f"{language}.{split or self.split}"
        return size(self.dataset, part, "pictures", self.limit)


def data(p: dict) -> Iterator[Pass]:
    """01: texts are counted and compared, no network."""
    Sizes(p).items("en")
    yield Pass(0, CONTEXT_GB)


def baseline(p: dict) -> Iterator[Pass]:
    """02: one encoder, three languages, three texts an item."""
    sizes = Sizes(p)
    for language in ("en", "it", "fa"):
        yield pictures(p["encoder"], sizes.pictures(language))
        yield texts(p["encoder"], TEXTS_OF_02 * sizes.items(language))


def clipseg(p: dict) -> Iterator[Pass]:
    """03: English through many encoders; a mask for every candidate, and as many again for items
    that share a target.
    """
    sizes, encoder = Sizes(p), p["encoder"]
    variants = [f"{encoder}@{variant}" for variant in p["dtypes"]]
    for name in (*p["ladder"], *p["backbones"], *variants):
        yield pictures(name, sizes.pictures("en"))
        yield texts(name, sizes.items("en"))
    for split in (p["split"], p["dev"]):
        for name in (p["dual"], p["segmenter"]):
            yield pictures(name, sizes.pictures("en", split))
            yield texts(name, sizes.items("en", split))
        yield masks(p["segmenter"], 2 * CANDIDATES * sizes.items("en", split))


def multilingual(p: dict) -> Iterator[Pass]:
    """04: Italian and Farsi through every encoder, as they are and in every translation."""
    sizes = Sizes(p)
    for language, main, more in (
        ("it", p["translator_it"], p["more_it"]),
        ("fa", p["translator_fa"], p["more_fa"]),
    ):
        writers = [main, *more]
        for name in writers:
            yield written(name, sizes.items(language))
        for name in (p["encoder"], *p["encoders"]):
            yield pictures(name, sizes.pictures(language))
            yield texts(name, (1 + len(writers)) * sizes.items(language))


def saliency(p: dict) -> Iterator[Pass]:
    """05: random crops of the examples, masks of the pairs, and every method on the scenes."""
    encoder, dual, scenes = p["encoder"], p["dual"], p["scenes"]
    Sizes(p).items("en")
    for name in dict.fromkeys([encoder, dual]):
        yield pictures(name, len(p["examples"]) * p["crops"], read=False)
    yield pictures(encoder, p["seeds"] * p["crops"], read=False)
    shown = 2 * len(p["published_pairs"] + p["further_pairs"])
    for name in (p["segmenter"], *p["further_segmenters"]):
        yield pictures(name, shown + scenes)
        yield masks(name, 2 * shown + scenes)
    looked_at = scenes * (p["scene_crops"] + WINDOWS)
    looked_at += CHANGED_SCENES * METHODS * 2 * p["steps"]
    yield pictures(encoder, looked_at, read=False)
    yield gradients(encoder, scenes * (16 + 1))  # integrated gradients, relevance
    yield gradients(dual, scenes, batch=1)


def polclip_work(p: dict) -> Iterator[Pass]:
    """06: the zero-shot baselines, the definitions, and every training run with its test."""
    sizes, name = Sizes(p), p["zero_shot"]
    yield pictures(name, sizes.pictures("en"))
    yield texts(name, (1 + len(p["definers"])) * sizes.items("en"))
    for definer in p["definers"]:
        if definer in COSTS["networks"]:
            yield written(definer, sizes.items("en"))
    yield from trainings(p)


def trainings(p: dict) -> Iterator[Pass]:
    """All training runs of notebook 06; none where it has none."""
    from polclip.config import make_config
    from polclip.cost import SIZES, memory_gb, study_cost

    names = ("study", "preset", "overrides", "settings", "training_seeds", "ablations")
    cost = study_cost(*(p[name] for name in names))
    if cost is None or not cost.runs:
        return
    config = make_config(p["preset"], **p["overrides"])
    # activations of the picture side are computed again where a card is small
    memory = memory_gb(config, SIZES[config.backbone], checkpointing=True)
    decoded = cost.runs * cost.steps * config.pictures
    number = "float32" if config.precision == "no" else "bfloat16"
    yield Pass(1000 * cost.tflop, CONTEXT_GB + memory, decoded, number)


NOTEBOOKS: dict[str, Callable[[dict], Iterator[Pass]]] = {
    "01_data": data,
    "02_clip_baseline": baseline,
    "03_clipseg": clipseg,
    "04_multilingual": multilingual,
    "05_saliency": saliency,
    "06_polclip": polclip_work,
}


def work_of(notebook: str, parameters: dict) -> Sequence[Pass] | None:
    """The passes of a notebook under these parameters; None where they cannot be reckoned."""
    try:
        return list(NOTEBOOKS[notebook](parameters))
    except (Unknown, KeyError):  # KeyError: somebody's own notebook, or with other parameters
        return None
