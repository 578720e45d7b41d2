"""Shapes of the stored facts and of what is made from them: what each file must hold before a
number is taken from it.

One place for all of `results/<profile>/` and `results/reported.yml`; `schema.py` reads by them and
words the refusal.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from vwsdlib.errors import VwsdError
from vwsdlib.paths import safe_name
from vwsdlib.schema import Stored

CANDIDATES = 10


def _safe(name: str) -> str:
    try:
        return safe_name(name)
    except VwsdError as e:
        raise ValueError(e.what) from None


# becomes part of a path
Name = Annotated[str, AfterValidator(_safe)]
# stands in a line of the official layout
Cell = Annotated[str, StringConstraints(pattern=r"^[^\t\n\r\x00]*$")]
MOST = (1 << 63) - 1  # what other people's formats hold in a whole number
Count = Annotated[int, Field(ge=0, le=MOST)]
Some = Annotated[int, Field(ge=1, le=MOST)]
Seed = Annotated[int, Field(ge=-MOST, le=MOST)]
Percent = Annotated[float, Field(ge=-1e-9, le=100 + 1e-9)]
Share = Annotated[float, Field(ge=-1e-6, le=1 + 1e-6)]
Interval = Annotated[list[float], Field(min_length=2, max_length=2)]


class Made(Stored):
    """What made a fact."""

    dataset: Name
    language: Name
    split: Name
    profile: Name
    limit: Count
    seed: Seed | None = 0
    data_sha256: str
    code_sha256: str
    versions: dict[str, str]
    model: str = ""
    revision: str = ""
    weights_sha256: str = ""
    processor: str = ""
    image_variant: str = ""
    dtype: str = ""
    device: str = ""


def _within_limit(limit: int, n: int) -> None:
    if limit and n > limit:
        raise ValueError(f"limit says the first {limit} items only, and there are {n}")


class PredictionMeta(Made):
    """predictions/<run>.meta.json."""

    run: Name
    n: Some
    variant: str
    lines_sha256: str | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        _within_limit(self.limit, self.n)
        return self


class Line(Stored):
    """A line of predictions/<run>.jsonl: an item, the text as scored, ten scores, the gold's
    rank."""

    id: Name
    language: str
    target: Cell
    phrase: Cell
    text: str
    candidates: Annotated[list[Cell], Field(min_length=CANDIDATES, max_length=CANDIDATES)]
    gold: str
    scores: Annotated[list[float], Field(min_length=CANDIDATES, max_length=CANDIDATES)]
    rank: Annotated[int, Field(ge=1, le=CANDIDATES)]

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if len(set(self.candidates)) != CANDIDATES:
            raise ValueError("a candidate stands twice")
        if self.gold not in self.candidates:
            raise ValueError(f"the gold {self.gold!r} is not among the candidates")
        return self


class Audit(Made):
    """audit/<language>.<split>.json."""

    official: bool | None
    n: Some
    chance: Percent
    rarest: Percent
    most_frequent: Percent
    gold_as_distractor: Count
    position_counts: list[Count]
    images: Count
    targets: Count
    p_gold_once: Percent | None
    p_gold_repeated: Percent | None
    intervals: dict[Literal["chance", "rarest", "most_frequent"], Interval]
    mean_words: float
    meanings: dict[str, Count]
    mean_meanings: float
    facts_sha256: str | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        _within_limit(self.limit, self.n)
        if sum(self.position_counts) != self.n:
            total = sum(self.position_counts)
            raise ValueError(f"position_counts sum to {total}, and there are {self.n} items")
        for rule in ("chance", "rarest", "most_frequent"):
            if rule not in self.intervals:
                raise ValueError(f"intervals has no {rule}")
        return self


# ---------------------------------------------------------------- measurements


class MeasurementMeta(Stored):
    """measured/<name>.meta.json, of whatever kind."""

    name: Name
    records: Count
    code_sha256: str
    versions: dict[str, str]
    lines_sha256: str | None = None
    maps_sha256: str | None = None


class MeasuredMeta(MeasurementMeta, Made):
    """The same, of a measurement that the report is made from: what made it must be there."""

    seed: int


class Contrasted(MeasuredMeta):
    """Of masks against cosines."""

    segmenter: str
    dual: str


class Decoded(Contrasted):
    """Of a decoder's scores."""

    dev: str


class Trained(MeasuredMeta):
    """Of PolCLIP's runs."""

    config: dict


class Identified(MeasuredMeta):
    """Of several models, each with its identity."""

    identities: dict[str, dict]


class CentreBias(Stored):
    """Expected visits of random crops by place."""

    picture: str
    size: str
    centre: float
    top: float
    corner: float
    ratio: float


class Contrast(Stored):
    """Mask and cosine of an item's own phrase and of another's over its gold picture."""

    id: str
    other: str
    target: str
    own: float
    foreign: float
    own_cosine: float
    foreign_cosine: float


class Map(Stored):
    """A map that a figure shows, by its name in the safetensors beside."""

    map: str


class CropMap(Map):
    """A map of random crops."""

    picture: str
    phrase: str
    model: str
    kind: str


class SceneMap(Map):
    """A map over a scene."""

    picture: str
    phrase: str
    method: str
    model: str


class Panel(Map):
    """A mask with its statistics."""

    group: str
    picture: str
    phrase: str
    match: bool
    mean: Share
    area: Share
    low: Share
    high: Share


class CropSeeds(Stored):
    """Maps of one picture under several seeds."""

    picture: str
    phrase: str
    model: str
    seeds: Some
    crops: Some


class InnerTensor(Stored):
    """A tensor of CLIPSeg's inner CLIP against the published one."""

    name: str
    equal: bool
    max_abs_difference: float | None


class Step(Stored):
    """A step of the ladder."""

    encoder: str
    change: str
    split: str


class Ranked(Stored):
    """A sense or a picture in a ranking."""

    kind: str
    sense: str
    score: float


class Multimodal(Stored):
    """An item of the ranking of senses and pictures together."""

    id: str
    lemma: str
    sentence: str
    gold: str
    ranking: list[Ranked]
    sense_right: bool
    picture_right: bool
    first_right: bool


class Attention(Map):
    """What PolCLIP's queries look at."""

    sense: str
    gloss: str
    tokens: list[str]


class Point(Stored):
    """A place on the map of senses."""

    lemma: str
    sense: str
    kind: str
    picture: str
    x: float
    y: float


class TrainedRun(Stored):
    """A run of PolCLIP's study."""

    run: str
    label: str
    group: str
    seed: int
    changed: str
    parameters: Count
    tensors: Count
    trained: Count
    trained_tensors: Count
    parts: dict[str, list[int]]
    steps: Count
    epochs: Count
    best_epoch: Count | None
    config: dict = {}


class Dev(Stored):
    """Scores on the development set."""

    textual: float
    visual: float


class TrainingStep(Stored):
    """A line of a training's log."""

    run: str
    step: Count
    epoch: Count
    rate: float | None = None
    norm: float | None = None
    loss: float | None = None
    dev: Dev | None = None


class Truth(Stored):
    """A map scored on a scene whose masks are known."""

    scene: str
    phrase: str
    model: str
    method: str
    area: Share
    pointing: Share
    rival: Share
    energy: Share
    iou: Share
    deletion: float | None
    insertion: float | None


class Translator(Stored):
    """Which translator made a variant."""

    variant: str
    language: str
    translator: str


class WsdAnswer(Stored):
    """An instance of textual WSD with a score for each candidate sense."""

    id: str
    lemma: str
    pos: str
    set: str
    golds: Annotated[list[str], Field(min_length=1)]
    candidates: Annotated[list[str], Field(min_length=1)]
    system: str
    scores: dict[str, list[float]]

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        wanted = len(self.candidates)
        for name, values in self.scores.items():
            if len(values) != wanted:
                raise ValueError(f"{len(values)} scores '{name}' for {wanted} candidates")
        return self


# name -> (a record's shape, the meta's)
MEASURED: dict[str, tuple[type[Stored], type[MeasuredMeta]]] = {
    "centre_bias": (CentreBias, MeasuredMeta),
    "contrast": (Contrast, Contrasted),
    "crop_maps": (CropMap, MeasuredMeta),
    "crop_seeds": (CropSeeds, MeasuredMeta),
    "decoder": (Stored, Decoded),
    "inner_clip": (InnerTensor, MeasuredMeta),
    "ladder": (Step, MeasuredMeta),
    "mask_panels": (Panel, MeasuredMeta),
    "multimodal": (Multimodal, MeasuredMeta),
    "polclip_attention": (Attention, MeasuredMeta),
    "polclip_map": (Point, MeasuredMeta),
    "polclip_runs": (TrainedRun, Trained),
    "polclip_training": (TrainingStep, MeasuredMeta),
    "saliency_truth": (Truth, Identified),
    "scene_maps": (SceneMap, MeasuredMeta),
    "translators": (Translator, MeasuredMeta),
    "wsd_answers": (WsdAnswer, MeasuredMeta),
}


# ---------------------------------------------------------------- texts


class Translation(Stored):
    """A line of translations/<translator>.<language>.<split>.jsonl."""

    id: str
    language: str
    target: str
    phrase: str
    phrase_en: str
    target_en: str
    flags: list[str]


class TranslationMeta(Stored):
    """Its meta."""

    translator: Name
    source: Name
    split: Name
    n: Count
    model: str = ""
    revision: str = ""


# ---------------------------------------------------------------- what is made from facts, and
# what papers report


class Claim(Stored):
    """A claim of report.json."""

    id: str
    about: str
    reported: str
    unit: str
    count: int | None
    n: int | None
    notebook: str
    ours: float | None
    ours_k: int | None
    ours_n: int | None
    ci_low: float | None
    ci_high: float | None
    off_by: int | None
    p: float | None
    verdict: str


class Report(Stored):
    """report.json."""

    profile: Name
    rows: Count
    claims: list[Claim]
    verdicts: dict[str, str]
    provenance: dict[str, list[str] | dict[str, str]]
    runs: list[Name]
    tables: list[Name]
    figures: list[Name]


class Reported(Stored):
    """An entry of results/reported.yml."""

    id: str
    paper: Literal["clipseg", "polclip", "task", "context"]
    about: str
    value: str
    unit: str
    notebook: str
    source: str
    decimals: Count | None = None
    n: Some | list[Some] | None = None
    count: int | None = None
    test: Literal["mcnemar"] | None = None
    run: Name | None = None
    against: Name | None = None
    metric: str | None = None
    sets: list[str] | None = None
    set: str | None = None
    note: str = ""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.paper == "context":
            self._of_context()
        elif isinstance(self.n, list):
            raise ValueError("n is a list, and only an entry of context has several sets")
        elif self.run and not self.test and (self.count is None or self.n is None):
            raise ValueError("an entry that a run answers needs count and n")
        elif self.count is not None and self.n is not None and abs(self.count) > self.n:
            raise ValueError(f"count {self.count} is more than n {self.n}")
        elif self.paper == "task" and not self.value.isdecimal():
            raise ValueError("the size of a set is a whole number")
        return self

    def _of_context(self) -> None:
        values = self.value.split()
        counts = self.n if isinstance(self.n, list) else []
        if self.sets is None or not len(self.sets) == len(counts) == len(values):
            raise ValueError("an entry of context has as many values and n as sets")
        if not all(math.isfinite(float(value)) for value in values):
            raise ValueError("a value is not finite")
