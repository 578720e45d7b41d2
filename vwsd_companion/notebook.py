"""What a notebook calls: `run = start("01_data", profile=profile, ...)` first, `run.finish(...)`
last.

Under the runner (runner.py) files go to a staging folder and `finish` leaves the record that the
runner demands; by hand in Jupyter they go straight to `runs/<profile>/`.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vwsdlib.data.sets import prepare_profile
from vwsdlib.errors import VwsdError
from vwsdlib.paths import reference_dir, run_dir, write_text

if TYPE_CHECKING:
    import numpy as np
    from IPython.display import Image, Markdown

    from vwsdlib.data.sets import VwsdSet

    from .facts.collect import Collection
    from .facts.measurements import Measurement
    from .facts.predictions import Predictions
    from .views.tables import Table

FINISH = "finish.json"
LEFT_OUT = "left out"  # what the runner's record calls a notebook that cannot run here


class Run:
    """One execution of one notebook: where its files go, and its promise that it came to the
    end."""

    def __init__(self, notebook: str, parameters: dict):
        self.notebook, self.parameters = notebook, parameters
        self.profile = parameters["profile"]
        staging = os.environ.get("VWSD_STAGING")
        self.staged = bool(staging)
        self.folder = Path(staging) if staging else run_dir(self.profile)
        self._outputs: list[str] = []
        self._without: dict[str, str] = {}

    def path(self, name: str) -> Path:
        """Where to write the output `name` (such as `predictions/vit_b32.en.jsonl`); its folder
        exists afterwards. VwsdError for a name that leads out of the results.
        """
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise VwsdError(
                f"output '{name}' lies outside the results folder",
                where=self.notebook,
                remedy="Name it by its path below runs/<profile>/.",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        if name not in self._outputs:
            self._outputs.append(name)
        return path

    def predictions(
        self,
        data: VwsdSet,
        name: str,
        variant: str,
        texts: Sequence[str],
        scores: np.ndarray,
        identity: dict,
    ) -> Predictions:
        """Write the run `<name>.<variant>.<language>.<split>`: scores [n, 10] of each item's text
        over its ten pictures, of which those that are missed go last.
        """
        from vwsdlib.analysis.scorers import missed_last

        from .facts.predictions import write_predictions

        return write_predictions(
            self.folder,
            f"{name}.{variant}.{data.language}.{data.split}",
            data,
            texts,
            missed_last(data, scores),
            profile=self.profile,
            variant=variant,
            identity={**identity, "image_variant": data.image_variant, **data.damage.facts()},
            limit=self.parameters.get("limit", 0),
            seed=self.parameters.get("seed", 0),
        )

    def measure(
        self,
        name: str,
        data: VwsdSet,
        records: Iterable[dict],
        maps: dict[str, np.ndarray] | None = None,
        **meta: object,
    ) -> Measurement:
        """Write the measurement `name`, made on `data`; `meta` says what else made it."""
        from .facts.measurements import write_measurement

        facts = {
            "profile": self.profile,
            "dataset": data.name,
            "language": data.language,
            "split": data.split,
            "limit": self.parameters.get("limit", 0),
            "seed": self.parameters.get("seed", 0),
            "data_sha256": data.sha256,
            "image_variant": data.image_variant,
            **data.damage.facts(),
        }
        return write_measurement(self.folder, name, records, maps, **facts, **meta)

    def sign(self, path: Path, data: VwsdSet) -> Path:
        """Say in the meta of a file that a writer of texts wrote what made it, on `data`; returns
        the file's path.
        """
        from .facts.fact import sign

        about = {"profile": self.profile, "limit": self.parameters.get("limit", 0)}
        return sign(path, **about, dataset=data.name, data_sha256=data.sha256)

    def _facts(self) -> Collection:
        """What earlier notebooks stored and this one has written so far; by hand, what was not run
        here is the reference's.
        """
        from .facts.collect import Collection

        run = run_dir(self.profile)
        if self.staged:
            return Collection(self.profile, run, self.folder)
        if os.environ.get("VWSD_RESULTS"):
            return Collection(self.profile, run)
        return Collection(self.profile, reference_dir(self.profile), run)

    def table(self, name: str, otherwise: str | None = None) -> Table | Markdown:
        """A table of results/tables from the stored facts; shows itself as the value of a cell.
        `otherwise`: shown where there are no facts.
        """
        from .views.catalogue import TABLES

        return _made(TABLES, name, self._facts(), otherwise)

    def figure(self, name: str, otherwise: str | None = None) -> Image | Markdown:
        """A figure of results/figures from the stored facts, as a picture for a cell; the report
        writes the files.
        """
        from IPython.display import Image

        from .views.catalogue import FIGURES, VIEWS
        from .views.figures import png

        made = _made(FIGURES, name, self._facts(), otherwise)
        return Image(data=png(made[0]), alt=VIEWS[name].about) if isinstance(made, tuple) else made

    def without(self, name: str, missing: VwsdError | None) -> str:
        """Note what is missing, if anything is: outputs that it excuses (`without` in pipeline.yml)
        need not be written. Returns the sentence to show in place of what is left out, or "".
        """
        if missing is None:
            return ""
        left_out = f"Left out: {missing.what}. {missing.remedy}"
        if missing.what not in self._without.values():
            print(left_out)
        self._without[name] = missing.what
        return left_out

    def usable(self, encoders: Sequence[str]) -> list[str]:
        """Those of some encoders that this machine can run; the others are noted as missing, each
        under its name (`without`).
        """
        from vwsdlib.encoders.registry import entry
        from vwsdlib.registry import resolve

        usable = []
        for name in encoders:
            fault = entry(name).fault
            if not self.without(name, resolve(fault)() if fault else None):
                usable.append(name)
        return usable

    def finish(self, **checks) -> None:
        """Declare the notebook complete; every check is a named boolean, such as `chance_row=True`.

        Raises VwsdError when a check is false or a path was asked for and never written.
        """
        failed = [name for name, held in checks.items() if not held]
        if failed:
            raise VwsdError(
                f"sanity check failed: {', '.join(failed)}",
                where=self.notebook,
                remedy="Look at the cells above: the numbers are not what they should be.",
            )
        unwritten = [name for name in self._outputs if not (self.folder / name).exists()]
        if unwritten:
            raise VwsdError(
                f"never written: {', '.join(unwritten)}",
                where=self.notebook,
                remedy="Write the file that run.path() was asked for, or do not ask.",
            )
        if self.staged:
            record = {
                "notebook": self.notebook,
                "outputs": sorted(self._outputs),
                "checks": sorted(checks),
                **({"without": self._without} if self._without else {}),
            }
            write_text(self.folder / FINISH, json.dumps(record, indent=1) + "\n")
        print(
            f"{self.notebook}: complete" + (f", checks held: {', '.join(checks)}" if checks else "")
        )


def start(notebook: str, **parameters) -> Run:
    """Begin `notebook`: seed Python's and NumPy's generators with the parameter `seed` (default 0),
    return its Run.

    `parameters` are those of the parameters cell, `profile` among them. Raises VwsdError when
    `profile` is missing or the runner is executing a notebook of another name.
    """
    if "profile" not in parameters:
        raise VwsdError(
            "start() was not given the profile",
            where=notebook,
            remedy=f"Write start({notebook!r}, profile=profile, ...).",
        )
    expected = os.environ.get("VWSD_NOTEBOOK", notebook)
    if expected != notebook:
        raise VwsdError(
            f"the notebook calls itself '{notebook}'",
            where=expected,
            remedy=f"Write start({expected!r}, ...) in it.",
        )
    prepare_profile(parameters["profile"])
    from .facts.fact import begin

    begin(notebook, parameters)
    seed = int(parameters.get("seed") or 0)
    random.seed(seed)
    try:
        import numpy
    except ImportError:
        pass
    else:
        numpy.random.seed(seed)
    return Run(notebook, parameters)


def _made(registry: dict, name: str, facts: Collection, otherwise: str | None):
    if name not in registry:
        raise VwsdError(
            f"no table or figure named '{name}'", remedy=f"There are: {', '.join(registry)}."
        )
    made = registry[name](facts)
    if made is None and otherwise is None:
        raise VwsdError(
            f"nothing is stored for '{name}' yet",
            remedy="Write the predictions or the audit first.",
        )
    if made is None:
        from IPython.display import Markdown

        return Markdown(f"*{otherwise}*")
    return made
