"""The studies by name, and what a run takes from one: batches to train on, scores on dev."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from vwsdlib.data.sets import VwsdSet
from vwsdlib.errors import VwsdError, known
from vwsdlib.finite import best
from vwsdlib.registry import Line, Registry

from .batches import photo_text
from .config import Config
from .evaluate import textual_scores, visual_scores
from .model import PolClip
from .paper import TrainingDataMissing, published_study
from .sources import Study
from .states import PictureStates
from .train import Data, Dev

STUDIES = Registry(
    Line,
    "polclip.studies",
    {"published": Line(published_study, "the paper's batches and test sets")},
)


@cache
def _study(name: str, settings: tuple) -> Study:
    return STUDIES[name](**dict(settings))


def load_study(name: str, **settings) -> Study:
    """A study by name, with its settings (`limit`: only the first so many items of each test set);
    VwsdError lists the others.
    """
    known("study", name, STUDIES)
    return _study(name, tuple(sorted(settings.items())))


def study_at_hand(name: str, **settings) -> Study:
    """`load_study`; where the training data alone are missing, what can be tested without them, and
    why in `missing`.
    """
    try:
        return load_study(name, **settings)
    except TrainingDataMissing:
        return load_study(name, **settings, untrained=True)


def no_training(study: Study, seeds: Sequence[int]) -> VwsdError | None:
    """Why the study is not trained, if it is not: its data are missing, or no run is asked for."""
    if study.missing or seeds:
        return study.missing
    return VwsdError("no run of training is asked for", remedy="Set training_seeds to [42], say.")


def no_test(study: Study) -> VwsdError | None:
    """Why nothing textual is tested, where the study has no test contexts."""
    if study.test_records:
        return None
    what = "there are no test contexts for the textual question"
    return study.missing or VwsdError(what, study.name, "Give the study's textual test.")


def data_of(study: Study, config: Config, states: PictureStates) -> Data:
    """What a run of the study is trained on; VwsdError where that is nothing."""
    if study.missing:
        raise study.missing
    batches = study.batches(config)
    per_epoch = study.per_epoch(config) if study.per_epoch else len(list(batches(0)))
    if not per_epoch:
        raise VwsdError(
            "there is not one batch to train on",
            study.name,
            "Give more records, or budgets that a batch can fill.",
        )
    if states.keep:
        return Data(batches, per_epoch, states, study.facts)
    return Data(batches, per_epoch, states.look, study.facts, states.read)


def dev_of(study: Study, states: PictureStates) -> Dev | None:
    """Scores on dev, percent: textual F1 (every item is answered) and visual hit@1, by the sum of
    plain and fused.
    """
    records, data = study.dev_records, study.dev_set
    if not records and data is None:
        return None

    def dev(model: PolClip) -> dict[str, float]:
        shares = {}
        if records:
            rows = textual_scores(model, records)["sum"]
            right = [r.candidates[best(row)].id in r.golds for r, row in zip(records, rows)]
            shares["textual"] = 100 * sum(right) / len(right)
        if data is not None:
            texts = [photo_text(item.phrase) for item in data.items]
            rows = visual_scores(model, texts, paths_of(data), states)["sum"]
            right = [best(row) == item.gold_index for row, item in zip(rows, data.items)]
            shares["visual"] = 100 * float(np.mean(right))
        return shares

    return dev


def paths_of(data: VwsdSet) -> list[list[str]]:
    """Files of each item's ten pictures."""
    paths = []
    for item in data.items:
        paths.append([str(data.path(name)) for name in item.candidates])
    return paths
