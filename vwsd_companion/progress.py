"""What a running notebook is at, said while it runs: one living line on a terminal, else a line a
minute, on stderr. Its bars write records (vwsdlib/progress.py), papermill tells the cells.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIVE_SECONDS, LINE_SECONDS = 1.0, 60.0


class Cells(io.StringIO):
    """Where papermill draws its bar over the cells: `text` is the last state that it drew."""

    text = ""
    settings = property(
        lambda self: {"file": self, "bar_format": "{n_fmt}/{total_fmt}", "mininterval": 0}
    )

    def write(self, text: str) -> int:
        """Keep the state in place of drawing it."""
        self.text = text.strip() or self.text
        return len(text)


@contextmanager
def said(name: str, record: Path, live: bool) -> Iterator[Cells]:
    """While this lasts, say what the notebook `name` is at, by the file `record` and by the cells
    that are yielded; live: in one line that is drawn over.
    """
    cells, over, started = Cells(), threading.Event(), time.monotonic()

    def speak() -> None:
        while not over.wait(LIVE_SECONDS if live else LINE_SECONDS):
            seconds = time.monotonic() - started
            _print(line(name, cells.text, seconds, read_bars(record)), live)

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield cells
    finally:
        over.set()
        speaker.join()
        if live:
            _print("", live)


def _print(text: str, live: bool) -> None:
    """A line on stderr, which may be closed; live: over the last one, and what comes over it."""
    try:
        if live:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r{text[:width]:<{width}}\r")
        else:
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def read_bars(record: Path) -> list[dict]:
    """The open bars of a record, the outermost first; none where there is no record."""
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []


def line(name: str, cells: str, seconds: float, bars: list[dict]) -> str:
    """What a notebook is at: cells done, time, and its bars.

    >>> bar = {"what": "pictures", "done": 1200, "total": 8100, "unit": "picture", "rate": 100.0}
    >>> line("02", "5/12", 65, [bar])
    '02  5/12 cells, 1:05  pictures 1,200/8,100, 100 picture/s, 1:09 left'
    """
    begun = f"{cells} cells, " if cells else ""
    return "  ".join([name, begun + clock(seconds), *(_bar(**bar) for bar in bars)])


def _bar(what: str, done: float, total: float | None, unit: str, rate: float | None) -> str:
    scale, unit, size = (1e6, "MB", " MB") if unit == "B" else (1, unit, "")
    parts = [f"{done / scale:,.0f}" + (f"/{total / scale:,.0f}" if total else "") + size]
    if rate:
        each = rate / scale
        parts.append(f"{each:,.0f} {unit}/s" if each >= 1 else f"{1 / each:.1f} s/{unit}")
    if rate and total:
        parts.append(f"{clock((total - done) / rate)} left")
    return f"{what} {', '.join(parts)}".strip()


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss.

    >>> clock(65), clock(3665)
    ('1:05', '1:01:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
