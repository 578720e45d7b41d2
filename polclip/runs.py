"""Many runs of a study, the full model under several seeds and with parts taken away, each trained
once and kept.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain, repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from vwsdlib import device
from vwsdlib.data.sets import gold_glosses
from vwsdlib.errors import VwsdError, known
from vwsdlib.kept import digest
from vwsdlib.language.definitions import DEFINERS, Definitions, guard
from vwsdlib.paths import cache_dir, quiet, sha256_bytes
from vwsdlib.processes import end_with
from vwsdlib.progress import tqdm

from .backbone import load_backbone
from .batches import photo_text, pictures_of
from .checkpoints import put, read_checkpoint, tensors_sha256
from .config import Config, settings_in
from .evaluate import look_at, textual_scores, visual_scores
from .model import PolClip, count_parameters
from .states import PictureStates
from .study import Study, data_of, dev_of, load_study, paths_of
from .train import FORMAT, read_log, train, trainer

# language -> definer -> a definition for each item of the test set
Defined = Mapping[str, Mapping[str, Sequence[str]]]

# name -> (what a reader calls it, changes of the configuration)
ABLATIONS: dict[str, tuple[str, dict]] = settings_in("ablations.yml")
# modules and tensors -> the part of the model that they are counted under
PARTS = {
    "former": "former",
    "to_vision": "sense to image",
    "to_text": "image to sense",
    "transfer": "token transfer",
    "fusion": "fusion",
}
TEXT_TOWER = ("token_embedding", "position", "text_blocks", "ln_final", "text_projection")


@dataclass(frozen=True)
class Plan:
    """One run: its name, what it is called, "main" or "ablation", what is changed, its
    configuration.
    """

    name: str
    label: str
    group: str
    changed: str
    config: Config


@dataclass(frozen=True)
class Result:
    """One trained and tested run: scores of every test record and item, counts of its parameters,
    its log.
    """

    plan: Plan
    textual: dict[str, list[np.ndarray]]
    # language -> plain, fused, sum and sum+<definer> [n, 10]
    visual: dict[str, dict[str, np.ndarray]]
    counts: dict
    steps: list[dict]
    tests: list[dict]
    best: dict | None
    checkpoint: Path
    weights_sha256: str
    backbone: dict
    trained_by: list[dict]  # versions of code and torch that took its steps

    def about(self) -> dict:
        """The run for people and tables: name, what is changed, seed, counts, how long it was
        trained and which epoch was chosen.
        """
        return {
            "run": self.plan.name,
            "label": self.plan.label,
            "group": self.plan.group,
            "seed": self.plan.config.seed,
            "changed": self.plan.changed,
            **self.counts,
            "steps": len(self.steps),
            "epochs": self.plan.config.epochs,
            "best_epoch": self.best["epoch"] if self.best else None,
            "config": json.loads(self.plan.config.to_json()),
            **({} if self.trained_by == [trainer()] else {"trained_by": self.trained_by}),
        }

    def scores_of(self, i: int) -> dict[str, list[float]]:
        """Scores of the i-th test record's candidates: plain, fused, sum."""
        scores = {}
        for name, rows in self.textual.items():
            scores[name] = [float(str(x)) for x in np.asarray(rows[i], np.float32)]
        return scores

    def identity(self) -> dict:
        """All that decides a score: the backbone's identity, with the trained weights and the
        configuration they were trained under.
        """
        config = sha256_bytes(self.plan.config.to_json().encode())[:12]
        return {
            **{key: self.backbone[key] for key in ("processor", "dtype", "device")},
            "model": f"PolCLIP on {self.backbone['model']}",
            "revision": f"configuration {config} on {self.backbone['revision']}",
            "weights_sha256": self.weights_sha256,
        }


def plans(config: Config, seeds: Sequence[int], ablations: Sequence[str] = ()) -> list[Plan]:
    """The full model under each seed, then each ablation under the first; VwsdError for an ablation
    that changes nothing.
    """
    planned = []
    for seed in seeds:
        seeded = dataclasses.replace(config, seed=seed)
        planned.append(Plan(f"seed{seed}", "PolCLIP", "main", "", seeded))
    for name in ablations:
        changed, changes = ABLATIONS[known("ablation", name, ABLATIONS)]
        if dataclasses.replace(config, **changes) == config:
            raise VwsdError(
                f"the ablation {name!r} changes nothing under this configuration",
                remedy="Leave it out: its row would copy the full model's.",
            )
        other = dataclasses.replace(config, seed=seeds[0], **changes)
        planned.append(Plan(name, "PolCLIP", "ablation", changed, other))
    return planned


def run_all(
    study: str, plans: Sequence[Plan], workers: int = 1, defined: Defined | None = None, **settings
) -> Iterator[Result]:
    """Train and test every plan; what was trained before on the same data is only tested. Results
    in the order of the plans.

    study: a name of STUDIES, with its `settings`. defined: what main runs are tested with besides,
    language -> definer -> a definition an item. workers: processes side by side, each on one thread
    (for the CPU); 1 uses this process.
    """
    loaded = load_study(study, **settings)
    defined = defined or {}
    check_defined(loaded, defined)
    arguments = (repeat(study), plans, repeat(settings), repeat(defined))
    bar = tqdm(total=len(plans), desc="PolCLIP runs", unit="run", disable=quiet())
    if workers == 1:
        for result in map(run_one, *arguments):
            yield result
            bar.update()
        return
    _warm(loaded, plans[0].config)
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_starts, initargs=(os.getpid(),)
    ) as pool:
        for result in pool.map(run_one, *arguments):
            yield result
            bar.update()


def check_defined(study: Study, defined: Defined) -> None:
    """VwsdError where a definer's texts are not one for each item of its language's test set, or
    one that a model wrote is its item's gold gloss.
    """
    for data in study.test_sets:
        golds, ids = gold_glosses(data), tuple(item.id for item in data.items)
        for name, texts in defined.get(data.language, {}).items():
            if len(texts) != len(ids):
                what = f"{len(texts)} definitions by {name} for {len(ids)} items"
                raise VwsdError(what, data.name, "Define the items of this very set.")
            if name in DEFINERS and DEFINERS[name].kind == "generated":
                guard(Definitions(ids, tuple(texts), {}, "generated"), golds)


def _warm(study: Study, config: Config) -> None:
    """States of all pictures, so that processes find them and do not compute them twice."""
    if not study.keep_states:
        return
    backbone = load_backbone(config).to(device.choose())
    states = PictureStates(backbone, precision=config.precision)
    names = list(chain.from_iterable(map(pictures_of, study.batches(config)(0))))
    for data in (study.dev_set, *study.test_sets):
        if data is not None:
            names += chain.from_iterable(paths_of(data))
    names = list(dict.fromkeys(names))
    for start in range(0, len(names), 256):
        states(names[start : start + 256])


def _starts(parent: int) -> None:
    end_with(parent)
    torch.set_num_threads(1)  # threads that share two cores wait for each other


def run_one(study: str, plan: Plan, settings: dict, defined: Defined | None = None) -> Result:
    """Train one plan to its end (or take what was trained), choose the epoch on dev, and test
    it.
    """
    loaded, model = load_study(study, **settings), PolClip(plan.config)
    how = {"precision": plan.config.precision}
    states = PictureStates(model.backbone, loaded.keep_states, **how)
    folder = run_folder(loaded, plan, model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # a worker whose kernel was killed ends its run; who comes after waits, and reads it
    with FileLock(f"{folder}.lock"):
        train(model, data_of(loaded, plan.config, states), folder, dev_of(loaded, states))
    checkpoint = folder / "best.safetensors"
    if not checkpoint.exists():
        checkpoint = folder / "last.safetensors"
    _, about, tensors = read_checkpoint(checkpoint)
    put(model, tensors, checkpoint)
    model.eval()
    textual = textual_scores(model, loaded.test_records) if loaded.test_records else {}
    return Result(
        plan,
        textual,
        _visual(model, loaded, plan.group == "main", states, defined or {}),
        count_parameters(model) | {"parts": parts_of(model)},
        *read_log(folder),
        about.get("best"),
        checkpoint,
        tensors_sha256(tensors),
        model.backbone.identity(),
        about.get("trained_by", []),
    )


def _visual(
    model: PolClip, study: Study, main: bool, states: PictureStates, defined: Defined
) -> dict[str, dict[str, np.ndarray]]:
    """language -> scores [n, 10] of its test set; of ablations the first set alone, and without
    definitions.
    """
    seen = look_at(model, chain.from_iterable(map(paths_of, study.test_sets)), states)
    visual = {}
    for data in study.test_sets if main else study.test_sets[:1]:
        phrases, paths = [item.phrase for item in data.items], paths_of(data)
        texts = list(map(photo_text, phrases))
        visual[data.language] = visual_scores(model, texts, paths, states, seen)
        for name, definitions in defined.get(data.language, {}).items() if main else ():
            texts = list(map(photo_text, phrases, definitions))
            scores = visual_scores(model, texts, paths, states, seen)
            visual[data.language][f"sum+{name}"] = scores["sum"]
    return visual


def run_folder(study: Study, plan: Plan, model: PolClip) -> Path:
    """Where a run is kept: `<cache>/polclip/<study>-<run>-<hash of configuration, data, backbone
    and format>`. An update of this library or of torch orphans none.
    """
    weights = model.backbone.identity()["weights_sha256"]
    made_of = [FORMAT, plan.config.decisive(), study.facts, weights]
    return cache_dir() / "polclip" / f"{study.name}-{plan.name}-{digest(made_of)[:16]}"


def parts_of(model: PolClip) -> dict[str, list[int]]:
    """Parameters and trained ones of each part of the model, [all, trained]; targets that follow
    are copies and left out.
    """
    parts: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for name, p in model.named_parameters():
        head, _, rest = name.partition(".")
        if head == "target":
            continue
        tower = "text tower" if rest.startswith(TEXT_TOWER) else "vision tower"
        part = PARTS.get(head, tower)
        parts[part] += p.numel()
        trained[part] += p.numel() * p.requires_grad
    return {part: [count, trained[part]] for part, count in parts.items()}
