"""What a notebook calls: `run = start("01_data", profile=profile, ...)` first, `run.finish(...)` last.

Under the runner (pipeline.py) files go to a staging folder and `finish` leaves the record that the runner demands;
by hand in Jupyter they go straight to `results/<profile>/`.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import VwsdError
from .paths import results_dir, write_text

if TYPE_CHECKING:
    from IPython.display import Image

    from .results.collect import Collection
    from .results.tables import Table

FINISH = "finish.json"


class Run:
    """One execution of one notebook: where its files go, and its promise that it came to the end."""

    def __init__(self, notebook: str, parameters: dict):
        self.notebook, self.parameters = notebook, parameters
        self.profile = parameters["profile"]
        staging = os.environ.get("VWSD_STAGING")
        self.staged = bool(staging)
        self.folder = Path(staging) if staging else results_dir(self.profile)
        self._outputs: list[str] = []

    def path(self, name: str) -> Path:
        """Where to write the output `name` (such as `predictions/vit_b32.en.jsonl`); its folder exists afterwards."""
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise VwsdError(f"output '{name}' lies outside the results folder", where=self.notebook,
                            remedy="Name it by its path below results/<profile>/.")
        path.parent.mkdir(parents=True, exist_ok=True)
        if name not in self._outputs:
            self._outputs.append(name)
        return path

    def _facts(self) -> Collection:
        """What earlier notebooks stored and this one has written so far."""
        from .results.collect import Collection

        return Collection(self.profile, results_dir(self.profile), self.folder if self.staged else None)

    def table(self, name: str) -> Table:
        """A table of results/tables.py from the stored facts; shows itself as the value of a cell."""
        from .results.tables import TABLES

        return _made(TABLES, name, self._facts())

    def figure(self, name: str) -> Image:
        """A figure of results/figures.py from the stored facts, as a picture for a cell; the report writes the files."""
        from IPython.display import Image

        from .results.figures import FIGURES, png

        return Image(data=png(_made(FIGURES, name, self._facts())), alt=FIGURES[name].__doc__)

    def finish(self, **checks) -> None:
        """Declare the notebook complete; every check is a named boolean, such as `chance_row=True`.

        Raises VwsdError when a check is false or a path was asked for and never written.
        """
        failed = [name for name, held in checks.items() if not held]
        if failed:
            raise VwsdError(f"sanity check failed: {', '.join(failed)}", where=self.notebook,
                            remedy="Look at the cells above: the numbers are not what they should be.")
        unwritten = [name for name in self._outputs if not (self.folder / name).exists()]
        if unwritten:
            raise VwsdError(f"never written: {', '.join(unwritten)}", where=self.notebook,
                            remedy="Write the file that run.path() was asked for, or do not ask.")
        if self.staged:
            record = {"notebook": self.notebook, "outputs": sorted(self._outputs), "checks": sorted(checks)}
            write_text(self.folder / FINISH, json.dumps(record, indent=1) + "\n")
        print(f"{self.notebook}: complete" + (f", checks held: {', '.join(checks)}" if checks else ""))


def start(notebook: str, **parameters) -> Run:
    """Begin `notebook`: seed Python's and NumPy's generators with the parameter `seed` (default 0), return its Run.

    `parameters` are those of the parameters cell, `profile` among them. Raises VwsdError when `profile` is missing
    or the runner is executing a notebook of another name.
    """
    if "profile" not in parameters:
        raise VwsdError("start() was not given the profile", where=notebook, remedy=f"Write start({notebook!r}, profile=profile, ...).")
    expected = os.environ.get("VWSD_NOTEBOOK", notebook)
    if expected != notebook:
        raise VwsdError(f"the notebook calls itself '{notebook}'", where=expected,
                        remedy=f"Write start({expected!r}, ...) in it.")
    seed = int(parameters.get("seed") or 0)
    random.seed(seed)
    try:
        import numpy
    except ImportError:
        pass
    else:
        numpy.random.seed(seed)
    return Run(notebook, parameters)


def _made(registry: dict, name: str, facts: Collection):
    if name not in registry:
        raise VwsdError(f"no table or figure named '{name}'", remedy=f"There are: {', '.join(registry)}.")
    if (made := registry[name](facts)) is None:
        raise VwsdError(f"nothing is stored for '{name}' yet", remedy="Write the predictions or the audit first.")
    return made
