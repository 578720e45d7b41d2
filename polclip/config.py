"""One configuration object for model, batches and optimisation; presets (presets.yml): the paper as
its figure shows it, the released code with its faults, the demo.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from vwsdlib.errors import VwsdError, known

LOSSES = ("sig", "w2s", "isg", "w2i")
WHERE = "PolCLIP's configuration"


def _within(default: float, least: float, most: float) -> Any:
    """A field's default and range; what lies outside is refused before it is built."""
    return Field(default, ge=least, le=most)


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class Config:
    """Everything that decides what a training run does; the defaults are the preset `paper`.

    What the released code does otherwise stands beside each field, and together in the preset
    `code`. VwsdError for a value of another type (a whole number may stand for a fraction, a list
    for a tuple, no truth for a number), outside its range or not among its choices.
    """

    # the model
    backbone: str = "clip-vit-l14"  # a backbone's name: key of a CLIP checkpoint, or "lite"
    # last blocks of each tower that the generators run through (code: 2)
    borrowed: int = _within(4, 1, 96)
    # fusion for pictures: the picture's tokens ask (figure), or the generated ones do (code)
    roles: Literal["figure", "code"] = "figure"
    fuse: bool = True  # without, the plain vectors stand where the fused ones would
    # which place of the fused sequence is the vector: the first, that of the end token, the mean
    readout: Literal["first", "eot", "mean"] = "first"
    # targets follow at this rate; 0: targets are the model itself without gradient (code, in
    # effect)
    ema: float = _within(0.995, 0.0, 0.999999)
    former_layers: int = _within(2, 1, 96)
    fusion_layers: int = _within(4, 1, 96)
    heads: int = _within(8, 1, 1024)  # of former and fusion
    mlp: int = _within(4, 1, 64)  # inner width of their blocks, in widths
    hidden: int = _within(2048, 1, 65_536)  # inner width of the map after fusion
    # padding stays out of former, borrowed blocks, fusion and means (neither figure nor code)
    mask_pads: bool = False
    # u: mean of the target's tokens (figure and code), or the whole sentence's vector
    context: Literal["span", "sentence"] = "span"
    causal: bool = True  # the text tower's causal mask stays on in its borrowed blocks
    # what is trained
    open_text: int = _within(12, 0, 1000)  # last blocks of the text tower
    open_vision: int = _within(0, 0, 1000)  # last blocks of the vision tower
    train_text_projection: bool = False  # constant in the released code, which is why
    # the losses
    losses: tuple[Literal["sig", "w2s", "isg", "w2i"], ...] = Field(
        default=LOSSES, strict=False, min_length=1
    )
    temperature: float = _within(1.0, 1e-6, 1e6)
    # a sense with five pictures then weighs as much as one with a single picture
    normalise_targets: bool = False
    merge_duplicates: bool = False  # the same sense twice in a batch is no negative of itself
    multi_positive: bool = False  # all golds are right, not the first alone
    # who looks for pictures: a caption of each sense (code), or each target in its context (figure)
    w2i_query: Literal["caption", "target"] = "caption"
    # faults of the released code's text preparation, off by default
    # takes the target out of a phrase as a set of characters: "andromeda tree" leaves "t"
    strip_target: bool = False
    target_first: bool = False  # puts a phrase's target before the phrase
    last_occurrence: bool = False  # the last equal word is the target, whichever was marked
    drop_end: bool = False  # a long text loses its end token, and is read out at its start
    # batches: the published budgets; for a GPU up to 24 GB the paper's README advises 10 or 20
    # senses and 50 or 100 pictures
    senses: int = _within(50, 1, 100_000)
    pictures: int = _within(250, 1, 1_000_000)
    per_sense: int = _within(5, 1, 100_000)
    repack: bool = True  # new batches each epoch (code: packed once)
    count_pictures: bool = True  # code: counts senses that have pictures, so the budget never binds
    drop_last: bool = False  # code: the last batch is lost
    # optimisation
    epochs: int = _within(20, 1, 1_000_000)
    rate: float = _within(1e-4, 1e-12, 100.0)
    # the text tower's, in rates (the released code sets the factors and then overwrites them with
    # one value)
    text_rate: float = _within(1.0, 0.0, 1e6)
    vision_rate: float = _within(0.5, 0.0, 1e6)  # what is trained of the vision tower
    new_rate: float = _within(0.5, 0.0, 1e6)  # everything that begins untrained
    # half a cosine over all steps; code: one value an epoch, see train.rate
    schedule: Literal["clean", "code"] = "clean"
    weight_decay: float = _within(0.05, 0.0, 1e3)  # on every parameter, as in the code
    # largest norm of the gradient; 0: none (code: clips after the step, so in effect none)
    clip: float = _within(1.0, 0.0, 1e9)
    accumulate: int = _within(1, 1, 1_000_000)  # batches a step and process
    precision: Literal["no", "bf16", "fp16"] = "no"
    # forget the picture side's activations and compute them again: less memory, more time, the
    # same numbers but for last bits; auto: on a card whose memory would not do
    checkpointing: Literal["auto", True, False] = "auto"
    seed: int = _within(42, -(1 << 63), (1 << 63) - 1)

    @model_validator(mode="wrap")
    @classmethod
    def _refused(cls, values, validate):
        """pydantic's first complaint as a VwsdError."""
        try:
            return validate(values)
        except ValidationError as e:
            complaint = e.errors(include_url=False)[0]
            name = str(complaint["loc"][0])
            raise _error(name, values.kwargs[name], complaint["type"]) from None

    def decisive(self) -> dict[str, Any]:
        """What decides the trained weights: two runs that differ in none of it, on the same data
        and backbone, are one run.
        """
        fields = json.loads(self.to_json())
        return {name: value for name, value in fields.items() if name != "checkpointing"}

    def to_json(self) -> str:
        """The configuration as JSON, fields in order."""
        return json.dumps(dataclasses.asdict(self), indent=1)


def _error(name: str, value: Any, complaint: str) -> VwsdError:
    """The sentence for a field's value, by the type of pydantic's complaint."""
    field = vars(Config)["__pydantic_fields__"].get(name)
    if field is None:
        return VwsdError(f"unknown name {name!r}", WHERE, "Leave it out.")
    if complaint == "literal_error" and name != "losses":
        choices = ", ".join(map(str, get_args(field.annotation)))
        return VwsdError(f"{name} cannot be {value!r}", WHERE, f"Choose one of: {choices}.")
    if complaint in ("greater_than_equal", "less_than_equal"):
        least, most = field.metadata
        what = f"a number is out of range: {name} is {value}"
        return VwsdError(what, WHERE, f"It is from {least.ge} to {most.le}.")
    if complaint in ("literal_error", "too_short") and all(type(part) is str for part in value):
        remedy = f"Name at least one of: {', '.join(LOSSES)}."
        return VwsdError(f"losses cannot be {tuple(value)!r}", WHERE, remedy)
    kind = "names" if complaint == "literal_error" else type(field.default).__name__
    return VwsdError(
        f"{name} takes {kind}, not {value!r}", WHERE, f"Give a value like {field.default!r}."
    )


def settings_in(name: str) -> dict:
    """A .yml that lies beside the modules."""
    return yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))


PRESETS = {name: Config(**changes) for name, changes in settings_in("presets.yml").items()}


def make_config(preset: str = "paper", **changes: object) -> Config:
    """A preset with changes; VwsdError names the nearest preset or field where one is misspelt, and
    a value of the wrong type.
    """
    base = PRESETS[known("name", preset, PRESETS, WHERE)]
    defaults = dataclasses.asdict(base)
    for name, value in changes.items():
        default = defaults[known("name", name, defaults, WHERE)]
        if isinstance(value, str):
            changes[name] = _from_text(value, type(default))
    return dataclasses.replace(base, **changes)


def _from_text(text: str, kind: type) -> object:
    """A text of the command line where YAML does not make it what a field takes: one loss without
    brackets, 1e-4; else the text itself.
    """
    if kind is tuple:
        return (text,)
    if kind is float:
        try:
            return float(text)
        except ValueError:
            pass
    return text
