"""All stored facts of one profile in memory: predictions, audits, and the rows that follow from
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

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


@dataclass(frozen=True)
class Collection:
    """What lies below `folder` (results/<profile>), and below `staging`, which goes before it,
    while a notebook runs.
    """

    profile: str
    folder: Path
    staging: Path | None = None

    def _files(self, pattern: str) -> list[Path]:
        found = {
            p.name: p
            for folder in (self.folder, self.staging)
            if folder
            for p in folder.glob(pattern)
        }
        return [found[name] for name in sorted(found)]

    def _stored(self, read: Callable, pattern: str, make: Callable | None = None) -> list:
        """What each file holds, or what `make` makes of it: once a process, until the file changes;
        shared, so nobody may alter it.
        """
        return [
            _made(
                read,
                path,
                tuple(
                    _state(path.with_name(path.stem + its))
                    for its in (".jsonl", ".meta.json", ".safetensors")
                ),
                make,
            )
            for path in self._files(pattern)
        ]

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """Run name -> predictions, ordered by name."""
        files = self._files("predictions/*.jsonl")
        found = self._stored(read_predictions, "predictions/*.jsonl")
        for path, p in zip(files, found, strict=True):
            _named(path, p.run)
        return {p.run: p for p in found}

    @cached_property
    def audits(self) -> dict[str, dict]:
        """`<language>.<split>` -> the audit that 01_data wrote, English first; VwsdError where one
        is damaged.
        """
        files = self._files("audit/*.json")
        files.sort(key=lambda path: language_place(path.name.split(".")[0]))
        return {path.stem: read_audit(path) for path in files}

    @property
    def metas(self) -> list[dict]:
        """What made each prediction, audit and measurement."""
        return [
            *(p.meta for p in self.predictions.values()),
            *self.audits.values(),
            *(m.meta for m in self.measured.values()),
        ]

    @cached_property
    def rows(self) -> dict[str, dict]:
        """Row id -> row, of all runs and audits; VwsdError where two facts give one id."""
        found = [row for a in self.audits.values() for row in audit_rows(a)]
        found += [row for how in ROWS for rows in self._stored(*how) for row in rows]
        rows: dict[str, dict] = {}
        for row in found:
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
        files = self._files("measured/*.jsonl")
        found = self._stored(read_measurement, "measured/*.jsonl")
        for path, m in zip(files, found, strict=True):
            _named(path, m.name)
        return {m.name: m for m in found}

    @cached_property
    def answered(self) -> dict[tuple[str, str], tuple[list[WsdItem], dict[str, tuple[str, ...]]]]:
        """Textual WSD: (system, score) -> (items, item id -> its answer); empty before notebook
        06."""
        return next(
            iter(self._stored(read_measurement, "measured/wsd_answers.jsonl", answers_of)), {}
        )

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
        staged = (
            {path.name.split(".")[0] for path in self.staging.glob("predictions/*.word.*.jsonl")}
            if self.staging
            else set()
        )

        def order(name: str) -> tuple:
            plain = name.split("@")[0]
            its = ENCODERS.get(plain)
            published = bool(its and its.checkpoints)
            return (
                name not in staged,
                its is None,
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
        runs = [
            p
            for p in self.predictions.values()
            if all(p.meta.get(k) == v for k, v in wanted.items()) and encoder in (None, p.encoder)
        ]
        return sorted(runs, key=lambda p: (language_place(p.meta["language"]), p.run))

    def data(self, of: dict) -> VwsdSet:
        """The set that an audit or a run's meta speaks of; VwsdError where the set on disk is not
        the one it was made from.
        """
        found = load_set(of["dataset"], of["language"], of["split"]).head(of["limit"])
        if found.sha256 != of["data_sha256"]:
            raise VwsdError(
                f"the set {of['dataset']} {of['language']} {of['split']} on disk is not the one"
                " these results were made from",
                where=self.folder,
                remedy=f"Run `vwsd run --profile {self.profile}` again.",
            )
        return found


def _named(path: Path, name: str) -> None:
    """VwsdError where a stored fact stands under another name than its meta says."""
    if path.stem != name:
        raise VwsdError(
            f"the file holds '{name}', not what its name says",
            where=path,
            remedy="Give it its name back, or remove it with its .meta.json.",
        )


def _translations(path: Path) -> tuple[list[dict], dict]:
    """Records and meta of a file of translations in their forms."""
    from .shapes import Translation, TranslationMeta

    records, meta = read_translations(path)
    meta_path, what = path.with_suffix(".meta.json"), "translations' meta"
    known = schema.read_json(meta_path, TranslationMeta, what, AGAIN)
    schema.read_jsonl(path, Translation, "translations", AGAIN)
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
    return ((found := path.stat()).st_size, found.st_mtime_ns) if path.exists() else None


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
