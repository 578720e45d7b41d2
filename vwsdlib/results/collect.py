"""All stored facts of one profile in memory: predictions, audits, and the rows that follow from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from ..data.sets import VwsdSet, load_set
from ..data.wsd import WsdItem
from ..errors import VwsdError
from ..language.translate import read_translations
from .measurements import Measurement, read_measurement
from .predictions import Predictions, read_predictions
from .rows import answers_of, audit_rows, prediction_rows, truth_rows, wsd_rows


ROWS = ((read_predictions, "predictions/*.jsonl", prediction_rows), (read_measurement, "measured/saliency_truth.jsonl", truth_rows),
        (read_measurement, "measured/wsd_answers.jsonl", wsd_rows))


@dataclass(frozen=True)
class Collection:
    """What lies below `folder` (results/<profile>), and below `staging`, which goes before it, while a notebook runs."""

    profile: str
    folder: Path
    staging: Path | None = None

    def _files(self, pattern: str) -> list[Path]:
        found = {p.name: p for folder in (self.folder, self.staging) if folder for p in folder.glob(pattern)}
        return [found[name] for name in sorted(found)]

    def _stored(self, read: Callable, pattern: str, make: Callable | None = None) -> list:
        """What each file holds, or what `make` makes of it: once a process, until the file changes; shared, so nobody may alter it."""
        return [_made(read, path, tuple(_state(path.with_name(path.stem + its)) for its in (".jsonl", ".meta.json", ".safetensors")), make)
                for path in self._files(pattern)]

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """Run name -> predictions, ordered by name."""
        return {p.run: p for p in self._stored(read_predictions, "predictions/*.jsonl")}

    @cached_property
    def audits(self) -> dict[str, dict]:
        """`<language>.<split>` -> the audit that 01_data wrote, English first."""
        found = {}
        for path in sorted(self._files("audit/*.json"), key=lambda p: LANGUAGE_ORDER.index(p.name[:2])):
            try:
                found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as e:
                raise VwsdError(f"the audit cannot be read: {e}", where=path, remedy="Run 01_data again with --force.") from e
        return found

    @property
    def metas(self) -> list[dict]:
        """What made each prediction, audit and measurement."""
        return [*(p.meta for p in self.predictions.values()), *self.audits.values(), *(m.meta for m in self.measured.values())]

    @cached_property
    def rows(self) -> dict[str, dict]:
        """Row id -> row, of all runs and audits."""
        found = [row for a in self.audits.values() for row in audit_rows(a)]
        found += [row for how in ROWS for rows in self._stored(*how) for row in rows]
        return {row["id"]: row for row in found}

    @cached_property
    def measured(self) -> dict[str, Measurement]:
        """Name -> measurement, ordered by name."""
        return {m.name: m for m in self._stored(read_measurement, "measured/*.jsonl")}

    @cached_property
    def answered(self) -> dict[tuple[str, str], tuple[list[WsdItem], dict[str, tuple[str, ...]]]]:
        """Textual WSD: (system, score) -> (items, item id -> its answer); empty before notebook 06."""
        return next(iter(self._stored(read_measurement, "measured/wsd_answers.jsonl", answers_of)), {})

    @cached_property
    def translations(self) -> dict[str, tuple[list[dict], dict]]:
        """`<translator>.<language>.<split>` -> (records, meta)."""
        return {p.stem: read_translations(p) for p in self._files("translations/*.jsonl")}

    @cached_property
    def baseline(self) -> str | None:
        """The encoder of notebook 02: the first by name that also scored the bare word."""
        return min((p.encoder for p in self.predictions.values() if p.variant == "word"), default=None)

    def select(self, encoder: str | None = None, **wanted: object) -> list[Predictions]:
        """Runs whose meta has these values, e.g. select(encoder="lite", variant="phrase", split="test"); English first, then by name."""
        runs = [p for p in self.predictions.values() if all(p.meta.get(k) == v for k, v in wanted.items()) and encoder in (None, p.encoder)]
        return sorted(runs, key=lambda p: (LANGUAGE_ORDER.index(p.meta["language"]), p.run))

    def data(self, of: dict) -> VwsdSet:
        """The set that an audit or a run's meta speaks of; VwsdError where the set on disk is not the one it was made from."""
        found = load_set(of["dataset"], of["language"], of["split"]).head(of["limit"])
        if found.sha256 != of["data_sha256"]:
            raise VwsdError(f"the set {of['dataset']} {of['language']} {of['split']} on disk is not the one these results were made from", where=self.folder,
                            remedy=f"Run `vwsd run --profile {self.profile}` again.")
        return found


@lru_cache(maxsize=4096)
def _made(read: Callable, path: Path, states: tuple, make: Callable | None = None):
    return make(_made(read, path, states)) if make else read(path)


def _state(path: Path) -> tuple[int, int] | None:
    return ((found := path.stat()).st_size, found.st_mtime_ns) if path.exists() else None


LANGUAGE_ORDER = ("en", "it", "fa")
LANGUAGE_NAMES = {"en": "English", "it": "Italian", "fa": "Farsi"}
