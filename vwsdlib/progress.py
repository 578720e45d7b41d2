"""Bars of work that takes long: `tqdm` of this module is what the project draws them with.

On a terminal it is tqdm's own. Under the runner it is `RecordedBar`: executed notebooks must not
depend on what was stored, so bars draw nothing there and write how far they are into the file that
`VWSD_PROGRESS` names, for the runner to say.
"""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from weakref import WeakValueDictionary

from tqdm.auto import tqdm as drawn
from tqdm.std import tqdm as plain

Bar = plain  # what `tqdm` makes, for annotations
SECONDS = 1.0  # between two records, and before a bar's first
OPEN: WeakValueDictionary = WeakValueDictionary()  # the bars of this process, oldest first


class RecordedBar(plain):
    """A bar that writes, at most once a second, the state of all open bars in place of drawing
    itself; also where it is told to be quiet.

    A record is a JSON list, the outermost first: what, done, total (None where unknown), unit, rate
    (a second; None at first).
    """

    monitor_interval = 0  # no thread of tqdm's own
    recorded = False

    def __init__(self, *args, **settings):
        own = {"disable": False, "mininterval": SECONDS, "miniters": 1, "delay": SECONDS}
        super().__init__(*args, **{**settings, **own, "file": io.StringIO()})
        OPEN[id(self)] = self

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write the record, where a bar of the terminal would be drawn."""
        if not self.disable:  # it is, once it is closed
            self.recorded = True
            _record()

    def close(self) -> None:
        """Say that this work is over."""
        super().close()
        OPEN.pop(id(self), None)
        if self.recorded:
            self.recorded = False
            _record()


def _record() -> None:
    """Write the open bars' state; a disk that takes nothing costs the line, not the work."""
    path, bars = Path(os.environ.get("VWSD_PROGRESS", "")), []
    for bar in list(OPEN.values()):
        if time.time() - bar.start_t < SECONDS:
            continue
        state = bar.format_dict
        shown = {"what": state["prefix"], "done": state["n"], "total": state["total"]}
        bars.append({**shown, "unit": state["unit"].strip(), "rate": state["rate"]})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(bars), encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        pass


tqdm: type[plain] = RecordedBar if os.environ.get("VWSD_PROGRESS") else drawn
