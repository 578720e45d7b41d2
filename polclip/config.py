"""One configuration object for model, batches and optimisation; presets: the paper as its figure
shows it, the released code with its faults, the demo.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from vwsdlib.errors import VwsdError, did_you_mean

LOSSES = ("sig", "w2s", "isg", "w2i")
CHOICES = {
    "roles": ("figure", "code"),
    "readout": ("first", "eot", "mean"),
    "w2i_query": ("caption", "target"),
    "context": ("span", "sentence"),
    "schedule": ("clean", "code"),
    "precision": ("no", "bf16", "fp16"),
}

# field -> the least and the most that it can be; what is no number, or larger than any machine's
# memory, is refused before it is built
RANGES: dict[str, tuple[float, float]] = {
    "borrowed": (1, 96),
    "former_layers": (1, 96),
    "fusion_layers": (1, 96),
    "heads": (1, 1024),
    "mlp": (1, 64),
    "hidden": (1, 65_536),
    "open_text": (0, 1000),
    "open_vision": (0, 1000),
    "senses": (1, 100_000),
    "pictures": (1, 1_000_000),
    "per_sense": (1, 100_000),
    "epochs": (1, 1_000_000),
    "accumulate": (1, 1_000_000),
    "seed": (-(1 << 63), (1 << 63) - 1),
    "temperature": (1e-6, 1e6),
    "rate": (1e-12, 100.0),
    "text_rate": (0.0, 1e6),
    "vision_rate": (0.0, 1e6),
    "new_rate": (0.0, 1e6),
    "weight_decay": (0.0, 1e3),
    "clip": (0.0, 1e9),
    "ema": (0.0, 0.999999),
}


def _typed(name: str, value: object, example: object) -> None:
    """VwsdError for a value that is not of its example's type; a whole number may stand for a
    fraction, a list for a tuple, no truth for a number.
    """
    kind = type(example)
    alike = (kind is float and type(value) is int) or (kind is tuple and isinstance(value, list))
    if kind is not type(value) and not alike:
        raise VwsdError(
            f"{name} takes {kind.__name__}, not {value!r}",
            where="PolCLIP's configuration",
            remedy=f"Give a value like {example!r}.",
        )
    if kind is tuple and not all(isinstance(part, str) for part in value):
        raise VwsdError(
            f"{name} takes names, not {value!r}",
            where="PolCLIP's configuration",
            remedy=f"Give a value like {example!r}.",
        )


@dataclass(frozen=True)
class Config:
    """Everything that decides what a training run does; the defaults are the preset `paper`.

    What the released code does otherwise stands beside each field, and together in the preset
    `code`.
    """

    # the model
    backbone: str = "clip-vit-l14"  # key of a CLIP checkpoint, or "lite"
    borrowed: int = 4  # last blocks of each tower that the generators run through (code: 2)
    # fusion for pictures: the picture's tokens ask (figure), or the generated ones do (code)
    roles: str = "figure"
    fuse: bool = True  # without, the plain vectors stand where the fused ones would
    # which place of the fused sequence is the vector: the first, that of the end token, the mean
    readout: str = "first"
    # targets follow at this rate; 0: targets are the model itself without gradient (code, in
    # effect)
    ema: float = 0.995
    former_layers: int = 2
    fusion_layers: int = 4
    heads: int = 8  # of former and fusion
    mlp: int = 4  # inner width of their blocks, in widths
    hidden: int = 2048  # inner width of the map after fusion
    # padding stays out of former, borrowed blocks, fusion and means (neither figure nor code)
    mask_pads: bool = False
    context: str = (
        "span"  # u: mean of the target's tokens (figure and code), or the whole sentence's vector
    )
    causal: bool = True  # the text tower's causal mask stays on in its borrowed blocks
    # what is trained
    open_text: int = 12  # last blocks of the text tower
    open_vision: int = 0  # last blocks of the vision tower
    train_text_projection: bool = False  # constant in the released code, which is why
    # the losses
    losses: tuple[str, ...] = LOSSES
    temperature: float = 1.0
    normalise_targets: bool = (
        False  # a sense with five pictures then weighs as much as one with a single picture
    )
    merge_duplicates: bool = False  # the same sense twice in a batch is no negative of itself
    multi_positive: bool = False  # all golds are right, not the first alone
    # who looks for pictures: a caption of each sense (code), or each target in its context (figure)
    w2i_query: str = "caption"
    # faults of the released code's text preparation, off by default
    # takes the target out of a phrase as a set of characters: "andromeda tree" leaves "t"
    strip_target: bool = False
    target_first: bool = False  # puts a phrase's target before the phrase
    last_occurrence: bool = False  # the last equal word is the target, whichever was marked
    drop_end: bool = False  # a long text loses its end token, and is read out at its start
    # batches: the published budgets; for a GPU up to 24 GB the paper's README advises 10 or 20
    # senses and 50 or 100 pictures
    senses: int = 50
    pictures: int = 250
    per_sense: int = 5
    repack: bool = True  # new batches each epoch (code: packed once)
    count_pictures: bool = True  # code: counts senses that have pictures, so the budget never binds
    drop_last: bool = False  # code: the last batch is lost
    # optimisation
    epochs: int = 20
    rate: float = 1e-4
    # the text tower's, in rates (the released code sets the factors and then overwrites them with
    # one value)
    text_rate: float = 1.0
    vision_rate: float = 0.5  # what is trained of the vision tower
    new_rate: float = 0.5  # everything that begins untrained
    schedule: str = (
        "clean"  # half a cosine over all steps; code: one value an epoch, see train.rate
    )
    weight_decay: float = 0.05  # on every parameter, as in the code
    clip: float = (
        1.0  # largest norm of the gradient; 0: none (code: clips after the step, so in effect none)
    )
    accumulate: int = 1  # batches a step and process
    precision: str = "no"
    # forget the picture side's activations and compute them again: less memory, more time
    checkpointing: bool = False
    seed: int = 42

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _typed(field.name, getattr(self, field.name), field.default)
        object.__setattr__(self, "losses", tuple(self.losses))
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise VwsdError(
                    f"{name} cannot be {getattr(self, name)!r}",
                    where="PolCLIP's configuration",
                    remedy=f"Choose one of: {', '.join(choices)}.",
                )
        if not self.losses or set(self.losses) - set(LOSSES):
            raise VwsdError(
                f"losses cannot be {self.losses!r}",
                where="PolCLIP's configuration",
                remedy=f"Name at least one of: {', '.join(LOSSES)}.",
            )
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:  # nor is a NaN within
                raise VwsdError(
                    f"a number is out of range: {name} is {getattr(self, name)}",
                    where="PolCLIP's configuration",
                    remedy=f"It is from {least} to {most}.",
                )

    def to_json(self) -> str:
        """The configuration as JSON, fields in order."""
        return json.dumps(dataclasses.asdict(self), indent=1)


PRESETS: dict[str, Config] = {
    "paper": Config(),
    "code": Config(
        borrowed=2,
        roles="code",
        ema=0.0,
        strip_target=True,
        target_first=True,
        last_occurrence=True,
        drop_end=True,
        repack=False,
        count_pictures=False,
        drop_last=True,
        schedule="code",
        vision_rate=1.0,
        new_rate=1.0,
        clip=0.0,
    ),
    # small enough to be trained many times in minutes on two cores; padding masked, as the lite
    # encoder's text tower was trained
    "demo": Config(
        backbone="lite",
        borrowed=1,
        former_layers=1,
        fusion_layers=1,
        mlp=2,
        hidden=768,
        mask_pads=True,
        open_text=1,
        merge_duplicates=True,
        temperature=0.07,
        normalise_targets=True,
        senses=20,
        pictures=40,
        per_sense=2,
        epochs=1,
        rate=1e-3,
        text_rate=0.02,
        vision_rate=0.02,
        new_rate=1.0,
        context="sentence",
        seed=0,
    ),
}


def make_config(preset: str = "paper", **changes: object) -> Config:
    """A preset with changes; VwsdError names the nearest preset or field where one is misspelt, and
    a value of the wrong type.
    """
    known = {field.name: field for field in dataclasses.fields(Config)}
    for name, valid in [(preset, PRESETS), *((change, known) for change in changes)]:
        if name not in valid:
            raise VwsdError(
                f"unknown name {name!r}",
                where="PolCLIP's configuration",
                remedy=did_you_mean(name, valid) or f"There are: {', '.join(valid)}.",
            )
    base = PRESETS[preset]
    for name, value in changes.items():
        kind = type(getattr(base, name))
        if kind is tuple and isinstance(value, str):  # one loss, named without brackets
            value = changes[name] = (value,)
        if kind is float and isinstance(value, str):  # YAML takes 1e-4 for a text
            try:
                value = changes[name] = float(value)
            except ValueError:
                pass
        _typed(name, value, getattr(base, name))
    return dataclasses.replace(base, **changes)
