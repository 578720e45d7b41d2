"""A study: what is trained on, what is tested on, and many runs of it (seeds, ablations), each
trained once and kept.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm.auto import tqdm

from vwsdlib.data.sets import VwsdSet, gold_glosses, load_set
from vwsdlib.data.wsd import WsdItem
from vwsdlib.errors import VwsdError, known
from vwsdlib.finite import best
from vwsdlib.language.definitions import DEFINERS, Definitions, guard
from vwsdlib.paths import cache_dir, data_dir, quiet, sha256_bytes
from vwsdlib.processes import end_with
from vwsdlib.registry import Line, Registry

from . import paper
from .backbone import load_backbone
from .batches import photo_text, pictures_of
from .checkpoints import put, read_checkpoint, tensors_sha256
from .config import Config
from .evaluate import look_at, textual_scores, visual_scores
from .model import PolClip, count_parameters
from .packing import pack
from .records import Record, as_item
from .states import PictureStates
from .train import Batches, Data, Dev, read_log, train

Defined = Mapping[
    str, Mapping[str, Sequence[str]]
]  # language -> definer -> a definition for each item of the test set

# name -> (what a reader calls it, changes of the configuration); each is compared with the full
# model of the same seed
ABLATIONS: dict[str, tuple[str, dict]] = {
    "no-sig": ("without SIG", {"losses": ("w2s", "isg", "w2i")}),
    "no-w2s": ("without W2S", {"losses": ("sig", "isg", "w2i")}),
    "no-isg": ("without ISG", {"losses": ("sig", "w2s", "w2i")}),
    "no-w2i": ("without W2I", {"losses": ("sig", "w2s", "isg")}),
    "no-fusion": ("plain vectors in place of fused ones", {"fuse": False}),
    "borrow-2": ("two borrowed blocks", {"borrowed": 2}),
    "roles": ("fusion roles as released", {"roles": "code"}),
    "mean": ("read-out: mean", {"readout": "mean"}),
    "eot": ("read-out: end token", {"readout": "eot"}),
    "no-ema": ("targets without EMA", {"ema": 0.0}),
    "temperature-1": ("temperature 1", {"temperature": 1.0}),
    "target": ("W2I asked by the target, not a caption", {"w2i_query": "target"}),
    "span": ("contexts read at the target's tokens", {"context": "span"}),
}


@dataclass(frozen=True)
class Study:
    """Sources of one study. `batches(config)` gives the packed batches of an epoch; `chosen_on` are
    records and a set to choose epochs on.
    """

    name: str
    batches: Callable[[Config], Batches]
    dev_records: list[Record]
    dev_set: VwsdSet | None
    test_records: list[Record]
    test_sets: list[VwsdSet]  # the first is the one that ablations are tested on
    facts: dict = field(default_factory=dict)
    per_epoch: Callable[[Config], int] | None = (
        None  # how many batches an epoch, where they are streamed
    )
    keep_states: bool = True  # pictures' frozen states go to disk (0.5 MB each with ViT-L/14)

    def test_items(self) -> list[WsdItem]:
        """The test contexts for those who know words alone."""
        return [as_item(record) for record in self.test_records]

    def answer(self, record: Record) -> dict:
        """What an answer to a record is judged by: id, lemma, pos, set, golds, candidates."""
        return {
            "id": record.id,
            "lemma": record.target.lower(),
            "pos": record.pos,
            "set": record.set,
            "golds": list(record.golds),
            "candidates": [c.id for c in record.candidates],
        }


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
    visual: dict[
        str, dict[str, np.ndarray]
    ]  # language -> plain, fused, sum and sum+<definer> [n, 10]
    counts: dict
    steps: list[dict]
    tests: list[dict]
    best: dict | None
    checkpoint: Path
    weights_sha256: str
    backbone: dict

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
        }

    def scores_of(self, i: int) -> dict[str, list[float]]:
        """Scores of the i-th test record's candidates: plain, fused, sum."""
        return {
            name: [float(str(x)) for x in np.asarray(found[i], np.float32)]
            for name, found in self.textual.items()
        }

    def identity(self) -> dict:
        """All that decides a score: the backbone's identity, with the trained weights and the
        configuration they were trained under.
        """
        return {
            **{k: self.backbone[k] for k in ("processor", "dtype", "device")},
            "model": f"PolCLIP on {self.backbone['model']}",
            "revision": (
                f"configuration {sha256_bytes(self.plan.config.to_json().encode())[:12]} on"
                f" {self.backbone['revision']}"
            ),
            "weights_sha256": self.weights_sha256,
        }


def plans(config: Config, seeds: Sequence[int], ablations: Sequence[str] = ()) -> list[Plan]:
    """The full model under each seed, then each ablation under the first; VwsdError for an ablation
    that changes nothing.
    """
    main = [
        Plan(f"seed{seed}", "PolCLIP", "main", "", dataclasses.replace(config, seed=seed))
        for seed in seeds
    ]
    for name in ablations:
        if (
            dataclasses.replace(config, **ABLATIONS[known("ablation", name, ABLATIONS)][1])
            == config
        ):
            raise VwsdError(
                f"the ablation {name!r} changes nothing under this configuration",
                remedy="Leave it out: its row would copy the full model's.",
            )
    return main + [
        Plan(
            name,
            "PolCLIP",
            "ablation",
            changed,
            dataclasses.replace(config, seed=seeds[0], **changes),
        )
        for name, (changed, changes) in ((name, ABLATIONS[name]) for name in ablations)
    ]


@cache
def code() -> str:
    """Hash of this room's sources: a run trained by other code is another run."""
    return sha256_bytes(
        b"\0".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    )


def run_all(
    study: str, plans: Sequence[Plan], workers: int = 1, defined: Defined = {}, **settings
) -> Iterator[Result]:
    """Train and test every plan; what was trained before by the same code on the same data is only
    tested. Results in the order of the plans.

    study: a name of STUDIES, with its `settings`. defined: what main runs are tested with besides,
    language -> definer -> a definition an item. workers: processes side by side, each on one thread
    (for the CPU); 1 uses this process.
    """
    check_defined(load_study(study, **settings), defined)
    bar = tqdm(total=len(plans), desc="PolCLIP runs", unit="run", disable=quiet())
    if workers == 1:
        for plan in plans:
            yield run_one(study, plan, settings, defined)
            bar.update()
        return
    _warm(load_study(study, **settings), plans[0].config)
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_starts, initargs=(os.getpid(),)
    ) as pool:
        for found in pool.map(
            run_one, [study] * len(plans), plans, [settings] * len(plans), [defined] * len(plans)
        ):
            yield found
            bar.update()


def check_defined(study: Study, defined: Defined) -> None:
    """VwsdError where a definer's texts are not one for each item of its language's test set, or
    one that a model wrote is its item's gold gloss.
    """
    for data in study.test_sets:
        golds = gold_glosses(data)
        for name, texts in defined.get(data.language, {}).items():
            if len(texts) != len(data.items):
                raise VwsdError(
                    f"{len(texts)} definitions by {name} for {len(data.items)} items",
                    where=data.name,
                    remedy="Define the items of this very set.",
                )
            if name in DEFINERS and DEFINERS[name].kind == "generated":
                guard(
                    Definitions(
                        tuple(item.id for item in data.items), tuple(texts), {}, "generated"
                    ),
                    golds,
                )


def _warm(study: Study, config: Config) -> None:
    """States of all pictures, so that processes find them and do not compute them twice."""
    if study.keep_states:
        states, packed = PictureStates(load_backbone(config)), study.batches(config)(0)
        tested = chain.from_iterable(
            chain.from_iterable(map(paths_of, [*filter(None, [study.dev_set]), *study.test_sets]))
        )
        names = list(dict.fromkeys([*chain.from_iterable(map(pictures_of, packed)), *tested]))
        for start in range(0, len(names), 256):
            states(names[start : start + 256])


def _starts(parent: int) -> None:
    end_with(parent)
    torch.set_num_threads(1)  # threads that share two cores wait for each other


def run_one(study: str, plan: Plan, settings: dict, defined: Defined = {}) -> Result:
    """Train one plan to its end (or find it trained), choose the epoch on dev, and test it."""
    its = load_study(study, **settings)
    model = PolClip(plan.config)
    states = PictureStates(model.backbone, its.keep_states)
    data = data_of(its, plan.config, states)
    folder = run_folder(its, plan, model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(
        f"{folder}.lock"
    ):  # a worker whose kernel was killed ends its run; who comes after waits, and finds it
        train(model, data, folder, dev_of(its, states))
    checkpoint = folder / (
        "best.safetensors" if (folder / "best.safetensors").exists() else "last.safetensors"
    )
    _, about, tensors = read_checkpoint(checkpoint)
    put(model, tensors, checkpoint)
    model.eval()
    textual = textual_scores(model, its.test_records) if its.test_records else {}
    seen = look_at(model, chain.from_iterable(map(paths_of, its.test_sets)), states)
    visual = {}
    for data in its.test_sets if plan.group == "main" else its.test_sets[:1]:
        texts = {
            "": [""] * len(data.items),
            **(defined.get(data.language, {}) if plan.group == "main" else {}),
        }
        found = {
            name: visual_scores(
                model,
                [photo_text(i.phrase, text) for i, text in zip(data.items, its_texts)],
                paths_of(data),
                states,
                seen,
            )
            for name, its_texts in texts.items()
        }
        visual[data.language] = found.pop("") | {
            f"sum+{name}": scores["sum"] for name, scores in found.items()
        }
    return Result(
        plan,
        textual,
        visual,
        count_parameters(model) | {"parts": parts_of(model)},
        *read_log(folder),
        about.get("best"),
        checkpoint,
        tensors_sha256(tensors),
        model.backbone.identity(),
    )


def data_of(study: Study, config: Config, states: Callable[[Sequence[str]], Tensor]) -> Data:
    """What a run of the study is trained on; VwsdError where that is nothing."""
    batches = study.batches(config)
    per_epoch = study.per_epoch(config) if study.per_epoch else len(batches(0))
    if not per_epoch:
        raise VwsdError(
            "there is not one batch to train on",
            where=study.name,
            remedy="Give more records, or budgets that a batch can fill.",
        )
    return Data(batches, per_epoch, states, study.facts)


def run_folder(study: Study, plan: Plan, model: PolClip) -> Path:
    """Where a run is kept: `<cache>/polclip/<study>-<run>-<hash of configuration, data, backbone
    and code>`.
    """
    made_of = [
        plan.config.to_json(),
        study.facts,
        model.backbone.identity(),
        code(),
        torch.__version__,
    ]
    digest = sha256_bytes(json.dumps(made_of, sort_keys=True).encode())[:16]
    return cache_dir() / "polclip" / f"{study.name}-{plan.name}-{digest}"


def dev_of(study: Study, states: PictureStates) -> Dev | None:
    """Scores on dev, percent: textual F1 (every item is answered) and visual hit@1, by the sum of
    plain and fused.
    """
    if not study.dev_records and study.dev_set is None:
        return None

    def dev(model: PolClip) -> dict[str, float]:
        found = {}
        if study.dev_records:
            scores = textual_scores(model, study.dev_records)["sum"]
            right = [r.candidates[best(s)].id in r.golds for r, s in zip(study.dev_records, scores)]
            found["textual"] = 100 * sum(right) / len(right)
        if study.dev_set is not None:
            its = study.dev_set
            scores = visual_scores(
                model, [photo_text(i.phrase) for i in its.items], paths_of(its), states
            )["sum"]
            found["visual"] = 100 * float(
                np.mean([best(s) == i.gold_index for s, i in zip(scores, its.items)])
            )
        return found

    return dev


def paths_of(data: VwsdSet) -> list[list[str]]:
    """Files of each item's ten pictures."""
    return [[str(data.path(name)) for name in item.candidates] for item in data.items]


def parts_of(model: PolClip) -> dict[str, list[int]]:
    """Parameters and trained ones of each part of the model, [all, trained]; targets that follow
    are copies and left out.
    """
    names = {
        "former": "former",
        "to_vision": "sense to image",
        "to_text": "image to sense",
        "transfer": "token transfer",
        "fusion": "fusion",
    }
    text = ("token_embedding", "position", "text_blocks", "ln_final", "text_projection")
    parts: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for name, p in model.named_parameters():
        head, _, rest = name.partition(".")
        if head == "target":
            continue
        part = names.get(head) or ("text tower" if rest.startswith(text) else "vision tower")
        parts[part] += p.numel()
        trained[part] += p.numel() * p.requires_grad
    return {part: [count, trained[part]] for part, count in parts.items()}


# ---------------------------------------------------------------- the studies there are; `limit`:
# only the first so many items of each test set


def packed(records: Sequence[Record], config: Config) -> Callable[[int], list[list[Record]]]:
    """epoch -> its batches under a configuration's budgets."""
    its = config
    return lambda epoch: list(
        pack(
            records,
            its.senses,
            its.pictures,
            its.per_sense,
            its.seed,
            epoch,
            its.drop_last,
            its.count_pictures,
        )
    )


def digest(records: Sequence[Record]) -> str:
    """Hash of records: words, candidates, glosses, golds and names of pictures without their
    folders.
    """
    lines = (
        repr(
            (
                r.id,
                r.words,
                r.span,
                r.golds,
                [(c.id, c.gloss, [Path(p).name for p in c.pictures]) for c in r.candidates],
            )
        )
        for r in records
    )
    return sha256_bytes("\n".join(lines).encode())


def published(train: str = "all", missing: str = "error", limit: int = 0) -> Study:
    """The paper: published batches replayed ("all", or "ie_semcor" alone), tested on the textual
    sets and on V-WSD in three languages.

    Epochs are chosen on SE07 and on V-WSD's trial items. The paper's test includes SE07, so it is
    tested on all the same, though it is no longer unseen. missing="drop" leaves out pictures that
    are not there. VwsdError names the files that are missing, their sizes and where they are to be
    had.
    """
    return dataclasses.replace(
        paper_study("published", data_dir() / "polclip", train, missing, "vwsd", limit),
        keep_states=False,
    )


def paper_study(name: str, folder: Path, train: str, missing: str, sets: str, limit: int) -> Study:
    """The paper's study of published batches in `folder`, with V-WSD items of the set `sets`."""
    source, test = paper.training(folder, train, missing), paper.textual(folder)
    dev, trial = [record for record in test if record.set == "SE07"], load_set(sets, "en", "trial")
    shown = [load_set(sets, language, "test").head(limit) for language in ("en", "it", "fa")]
    facts = {
        "study": name,
        "train": train,
        **source.facts,
        "dev": {"textual": digest(dev), "visual": trial.sha256},
    }
    return Study(
        name, source.batches, dev, trial, test[: limit or None], shown, facts, source.per_epoch
    )


STUDIES = Registry(
    Line, "polclip.studies", {"published": Line(published, "the paper's batches and test sets")}
)


@cache
def _study(name: str, settings: tuple) -> Study:
    return STUDIES[name](**dict(settings))


def load_study(name: str, **settings) -> Study:
    """A study by name; VwsdError lists the others."""
    known("study", name, STUDIES)
    return _study(name, tuple(sorted(settings.items())))
