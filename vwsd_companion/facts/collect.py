"""All stored facts of one profile in memory: predictions, audits, and the rows that follow from
them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from vwsdlib import schema
from vwsdlib.data.sets import VwsdSet, load_set
from vwsdlib.data.wsd import WsdItem
from vwsdlib.encoders.registry import ENCODERS
from vwsdlib.errors import VwsdError
from vwsdlib.language.translate import read_translations

from .audits import read_audit
from .measurements import Measurement, read_measurement
from .numbers import answers_of, audit_rows, prediction_rows, truth_rows, wsd_rows
from .predictions import AGAIN, Predictions, read_predictions

ROWS = (
    (read_predictions, "predictions/*.jsonl", prediction_rows),
    (read_measurement, "measured/saliency_truth.jsonl", truth_rows),
    (read_measurement, "measured/wsd_answers.jsonl", wsd_rows),
)
SUFFIXES = (".jsonl", ".meta.json", ".safetensors")  # of one fact


@dataclass(frozen=True)
class Collection:
    """What lies below `folder` (results/<profile>), and below `staging`, which goes before it,
    while a notebook runs.
    """

    profile: str
    folder: Path
    staging: Path | None = None

    def _files(self, pattern: str) -> list[Path]:
        files: dict[str, Path] = {}
        for folder in (self.folder, self.staging):
            if folder:
                files |= {path.name: path for path in folder.glob(pattern)}
        return [files[name] for name in sorted(files)]

    def _stored(self, read: Callable, pattern: str, make: Callable | None = None) -> list:
        """What each file holds, or what `make` makes of it: once a process, until the file changes;
        shared, so nobody may alter it.
        """
        made = []
        for path in self._files(pattern):
            beside = [path.with_name(path.stem + suffix) for suffix in SUFFIXES]
            made.append(_made(read, path, tuple(map(_state, beside)), make))
        return made

    def _named(self, read: Callable, pattern: str, key: str) -> dict[str, Any]:
        """Name -> fact; VwsdError where one stands under another name than its meta says."""
        facts = self._stored(read, pattern)
        for path, fact in zip(self._files(pattern), facts, strict=True):
            if path.stem != getattr(fact, key):
                raise VwsdError(
                    f"the file holds '{getattr(fact, key)}', not what its name says",
                    where=path,
                    remedy="Give it its name back, or remove it with its .meta.json.",
                )
        return {getattr(fact, key): fact for fact in facts}

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """Run name -> predictions, ordered by name."""
        return self._named(read_predictions, "predictions/*.jsonl", "run")

    @cached_property
    def audits(self) -> dict[str, dict]:
        """`<language>.<split>` -> the audit that 01_data wrote, English first; VwsdError where one
        is damaged.
        """
        files = self._files("audit/*.json")
        files.sort(key=lambda path: language_place(path.name.split(".")[0]))
        return {path.stem: read_audit(path) for path in files}

    @property
    def metas(self) -> dict[str, dict]:
        """File, below the folder of results, -> what made it: of each prediction, audit and
        measurement.
        """
        return {
            **{f"predictions/{name}.jsonl": p.meta for name, p in self.predictions.items()},
            **{f"audit/{name}.json": audit for name, audit in self.audits.items()},
            **{f"measured/{name}.jsonl": m.meta for name, m in self.measured.items()},
        }

    @cached_property
    def rows(self) -> dict[str, dict]:
        """Row id -> row, of all runs and audits; VwsdError where two facts give one id."""
        made = [audit_rows(audit) for audit in self.audits.values()]
        for how in ROWS:
            made += self._stored(*how)
        rows: dict[str, dict] = {}
        for row in itertools.chain.from_iterable(made):
            if rows.setdefault(row["id"], row) is not row:
                raise VwsdError(
                    f"two stored facts give the row {row['id']}",
                    where=self.folder,
                    remedy="Two files hold one run; remove or rename one.",
                )
        return rows

    @cached_property
    def measured(self) -> dict[str, Measurement]:
        """Name -> measurement, ordered by name."""
        return self._named(read_measurement, "measured/*.jsonl", "name")

    @cached_property
    def answered(self) -> dict[tuple[str, str], tuple[list[WsdItem], dict[str, tuple[str, ...]]]]:
        """Textual WSD: (system, score) -> (items, item id -> its answer); empty before notebook
        06."""
        answers = self._stored(read_measurement, "measured/wsd_answers.jsonl", answers_of)
        return answers[0] if answers else {}

    @cached_property
    def translations(self) -> dict[str, tuple[list[dict], dict]]:
        """`<translator>.<language>.<split>` -> (records, meta)."""
        return {p.stem: _translations(p) for p in self._files("translations/*.jsonl")}

    @cached_property
    def baselines(self) -> list[str]:
        """Encoders that notebook 02 has scored (the bare word is its mark): the registry's before
        others, in its order, the control last.

        Built-in ones go first under the profile demo, published ones elsewhere; while notebook 02
        runs, its own goes before those of earlier runs.
        """
        words = self.staging.glob("predictions/*.word.*.jsonl") if self.staging else ()
        staged = {path.name.split(".")[0] for path in words}

        def order(name: str) -> tuple:
            plain = name.split("@")[0]
            entry = ENCODERS.get(plain)
            published = bool(entry and entry.checkpoints)
            return (
                name not in staged,
                entry is None,
                plain == "random",
                published == (self.profile == "demo"),
                [*ENCODERS, plain].index(plain),
                name,
            )

        return sorted(
            {p.encoder for p in self.predictions.values() if p.variant == "word"}, key=order
        )

    @property
    def baseline(self) -> str | None:
        """The encoder that the others are set against: the first of `baselines`."""
        return next(iter(self.baselines), None)

    def select(self, encoder: str | None = None, **wanted: object) -> list[Predictions]:
        """Runs whose meta has these values, e.g. select(encoder="lite", variant="phrase",
        split="test"); English first, then by name.
        """
        runs = []
        for p in self.predictions.values():
            as_wanted = all(p.meta.get(key) == value for key, value in wanted.items())
            if as_wanted and encoder in (None, p.encoder):
                runs.append(p)
        return sorted(runs, key=lambda p: (language_place(p.meta["language"]), p.run))

    def data(self, of: dict) -> VwsdSet:
        """The set that an audit or a run's meta speaks of; VwsdError where the set on disk is not
        the one it was made from.
        """
        data = load_set(of["dataset"], of["language"], of["split"]).head(of["limit"])
        if data.sha256 != of["data_sha256"]:
            raise VwsdError(
                f"the set {of['dataset']} {of['language']} {of['split']} on disk is not the one"
                " these results were made from",
                where=self.folder,
                remedy=f"Run `vwsd run --profile {self.profile}` again.",
            )
        return data


def _translations(path: Path) -> tuple[list[dict], dict]:
    """Records and meta of a file of translations in their forms."""
    from .shapes import shape

    records, meta = read_translations(path)
    meta_path, what = path.with_suffix(".meta.json"), "translations' meta"
    known = schema.read_json(meta_path, shape("translation_meta"), what, AGAIN)
    schema.read_jsonl(path, shape("translation"), "translations", AGAIN)
    language_place(known.source)
    for number, record in enumerate(records, start=1):
        if record["language"] != known.source:
            raise VwsdError(
                f"language is {record['language']!r}, and {known.source!r} in the meta",
                where=f"{path}:{number}",
                remedy=AGAIN,
            )
    return records, meta


@lru_cache(maxsize=4096)
def _made(read: Callable, path: Path, states: tuple, make: Callable | None = None):
    return make(_made(read, path, states)) if make else read(path)


def _state(path: Path) -> tuple[int, int] | None:
    if not path.exists():
        return None
    status = path.stat()
    return status.st_size, status.st_mtime_ns


LANGUAGE_NAMES = {
    "en": "English",
    "it": "Italian",
    "fa": "Farsi",
}  # in the order of every table and figure


def language_place(language: str) -> int:
    """Place of a language in every order; VwsdError for one that has none: an order is not
    guessed."""
    if language not in LANGUAGE_NAMES:
        raise VwsdError(
            f"the language '{language}' has no name and no place in tables",
            where="LANGUAGE_NAMES in vwsd_companion/facts/collect.py",
            remedy=(
                "Add it there; docs/adding-a-language.md lists what else a language of the"
                " notebooks wants."
            ),
        )
    return [*LANGUAGE_NAMES].index(language)
