"""What a training costs before it is begun: steps, TFLOP and memory, counted from the sizes of what
is multiplied. Estimates: a batch is taken to be full, and a card's speed is somebody else's figure.

A multiplication with its addition counts as two operations; norms, softmaxes and activations are
left out (under 2 % at the paper's size).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .config import Config, make_config, settings_in

# weight, gradient and the optimiser's two moments of what is trained, in bytes a parameter
TRAINED_BYTES, FROZEN_BYTES = 16, 4
VOCABULARY = 49_408  # CLIP's
PART = 32  # pictures that are computed again at once under checkpointing


class Corpus(NamedTuple):
    """One published corpus: its name, training instances, candidate senses of an instance (a mean),
    pictures, and sizes in GB of metadata and pictures.
    """

    name: str
    instances: int
    candidates: float
    pictures: int
    metadata_gb: float
    pictures_gb: int


# README of the release; candidates: SemCor's mean by Raganato et al. (2017, table 1), of VWSD-KB
# the senses of a word in the group's earlier knowledge base
CORPORA = {
    "semcor": Corpus("IE-SemCor", 226_036, 6.8, 181_123, 3.06, 195),
    "vwsd": Corpus("IE-VWSD-KB", 48_469, 4.8, 111_575, 0.97, 108),
}
TRAIN = {"all": ("semcor", "vwsd"), "ie_semcor": ("semcor",)}


@dataclass(frozen=True)
class Size:
    """Widths, layers and pixels of one backbone's towers (sizes.yml)."""

    width: int
    text_layers: int
    vision_width: int
    vision_layers: int
    side: int
    patch: int
    tokens: int = 77  # of a text
    mlp: int = 4  # inner width of the towers' blocks, in widths

    @property
    def places(self) -> int:
        """Places of a picture: patches and the class token."""
        return (self.side // self.patch) ** 2 + 1


SIZES = {name: Size(**line) for name, line in settings_in("sizes.yml").items()}


@dataclass(frozen=True)
class Cost:
    """What `runs` trainings cost: steps of each, and TFLOP of one step, in what is trained (forward
    and backward) and in the frozen tower that looks at the pictures.
    """

    steps: int
    trained_tflop: float
    frozen_tflop: float
    runs: int = 1

    @property
    def tflop(self) -> float:
        """Of all runs, in TFLOP."""
        return self.runs * self.steps * (self.trained_tflop + self.frozen_tflop)

    def hours(self, speed: float) -> float:
        """Hours of all runs on a card that sustains `speed` TFLOP a second."""
        return self.tflop / speed / 3600


def training_cost(config: Config, records: int, candidates: float = 6.8) -> Cost | None:
    """The cost of one run over `records` training records an epoch, with `candidates` senses each
    (a mean); None for a backbone whose sizes are not known here.
    """
    if config.backbone not in SIZES:
        return None
    batches = batches_of(config, records, candidates)
    steps = config.epochs * math.ceil(batches / config.accumulate)
    trained, frozen = _step_flop(config, SIZES[config.backbone], candidates)
    scale = config.accumulate / 1e12
    return Cost(steps, trained * scale, frozen * scale)


def batches_of(config: Config, records: int, candidates: float) -> int:
    """About how many batches an epoch has: a full one falls short of the budget by half a record's
    senses, on average.
    """
    room = max(candidates, config.senses - candidates / 2)
    return math.ceil(records * candidates / room)


def study_cost(
    study: str,
    preset: str,
    overrides: Mapping,
    settings: Mapping,
    training_seeds: Sequence[int],
    ablations: Sequence[str],
) -> Cost | None:
    """The cost of all runs of notebook 06 under these parameters; None for a study or a backbone
    that trains in minutes (the stand-ins).
    """
    if study != "published":
        return None
    config, runs = make_config(preset, **overrides), len(training_seeds) + len(ablations)
    costs = []
    for kind in TRAIN[settings.get("train", "all")]:
        corpus = CORPORA[kind]
        costs.append(training_cost(config, corpus.instances, corpus.candidates))
    if None in costs:
        return None
    first = costs[0]
    steps = sum(cost.steps for cost in costs)
    return Cost(steps, first.trained_tflop, first.frozen_tflop, runs)


# ---------------------------------------------------------------- operations of a step


def _block(width: int, mlp: int, keys: int) -> float:
    """Operations a token of one transformer block that looks at `keys` places."""
    return (8 + 4 * mlp) * width**2 + 4 * keys * width


def _counts(config: Config, candidates: float) -> tuple[int, int, float]:
    """Senses, pictures and contexts of a full batch."""
    pictures = min(config.pictures, config.senses * config.per_sense)
    return config.senses, pictures, config.senses / candidates


def _step_flop(config: Config, size: Size, candidates: float) -> tuple[float, float]:
    """(operations of what is trained, operations of the frozen tower) of one batch."""
    senses, pictures, contexts = _counts(config, candidates)
    read = size.tokens * size.text_layers * _block(size.width, size.mlp, size.tokens)  # a text
    look = size.places * _block(size.vision_width, size.mlp, size.places)  # a picture, a block
    opened = min(config.open_vision, size.vision_layers)
    # backward costs twice the forward; through frozen blocks, which have no gradient, once
    trained = 3 * (contexts + 2 * senses) * read
    trained += senses * _sense_flop(config, size)
    trained += pictures * (3 * opened * look + _picture_flop(config, size))
    trained += senses * read + pictures * opened * look  # the targets, forward alone
    frozen = pictures * (size.vision_layers - opened) * look
    return trained, frozen


def _sense_flop(config: Config, size: Size) -> float:
    """SIG and fusion of one sense, forward and backward."""
    width, vision = size.width, size.vision_width
    own = config.former_layers * _block(width, config.mlp, size.tokens) + 2 * width * vision
    own += 2 * vision * width
    if config.fuse:
        own += config.fusion_layers * _block(width, config.mlp, size.tokens)
    borrowed = config.borrowed * _block(vision, size.mlp, size.tokens)
    frozen = max(0, config.borrowed - config.open_vision) / config.borrowed
    return size.tokens * (3 * own + (3 - frozen) * borrowed)


def _picture_flop(config: Config, size: Size) -> float:
    """ISG and fusion of one picture, forward and backward."""
    width = size.width
    own = config.former_layers * _block(width, config.mlp, size.tokens) + 2 * width**2
    own += config.borrowed * _block(width, size.mlp, size.tokens)
    if config.fuse:
        own += config.fusion_layers * _block(width, config.mlp, size.tokens)
    before = (
        2 * size.places * width * (size.vision_width + size.tokens)
    )  # projection, token transfer
    return 3 * (size.tokens * own + before)


# ---------------------------------------------------------------- memory of a step


def memory_gb(config: Config, size: Size, checkpointing: bool, candidates: float = 6.8) -> float:
    """Gigabytes that training takes on a card: weights, moments, what is kept for the backward
    pass, and the pictures' states. With `checkpointing` the pictures' side is kept a part at a
    time.
    """
    senses, pictures, contexts = _counts(config, candidates)
    read = size.tokens * size.text_layers * _kept(config, size.width, size.mlp)
    kept = (contexts + 2 * senses) * read + senses * _kept_of_sense(config, size)
    shown = PART if checkpointing else pictures
    kept += min(shown, pictures) * _kept_of_picture(config, size)
    states = 2 * FROZEN_BYTES * pictures * size.places * size.vision_width
    return (_weight_bytes(config, size) + kept + states) / 1e9


def _kept(config: Config, width: int, mlp: int) -> float:
    """Bytes a token that one block keeps for its backward pass: inputs of norms, of matrix products
    and of the activation.
    """
    if config.precision == "no":
        return 4 * (9 + 3 * mlp) * width
    return 2 * (11 + 3 * mlp) * width


def _kept_of_sense(config: Config, size: Size) -> float:
    layers = config.former_layers + config.fusion_layers * config.fuse
    own = layers * _kept(config, size.width, config.mlp)
    return size.tokens * (own + config.borrowed * _kept(config, size.vision_width, size.mlp))


def _kept_of_picture(config: Config, size: Size) -> float:
    layers = config.former_layers + config.fusion_layers * config.fuse
    own = layers * _kept(config, size.width, config.mlp)
    own += config.borrowed * _kept(config, size.width, size.mlp)
    opened = min(config.open_vision, size.vision_layers)
    return size.tokens * own + opened * size.places * _kept(config, size.vision_width, size.mlp)


def _weight_bytes(config: Config, size: Size) -> float:
    """Weights with gradients and moments, and the towers that follow."""
    text = (4 + 2 * size.mlp) * size.width**2
    opened = min(config.open_text, size.text_layers) * text
    opened += (
        min(config.open_vision, size.vision_layers) * (4 + 2 * size.mlp) * size.vision_width**2
    )
    layers = config.former_layers + config.fusion_layers
    new = layers * (4 + 2 * config.mlp) * size.width**2 + 2 * config.hidden * size.width
    towers = (
        size.text_layers * text + size.vision_layers * (4 + 2 * size.mlp) * size.vision_width**2
    )
    words = VOCABULARY * size.width
    follows = FROZEN_BYTES * opened if config.ema else 0
    return TRAINED_BYTES * (opened + new) + FROZEN_BYTES * (towers - opened + words) + follows
