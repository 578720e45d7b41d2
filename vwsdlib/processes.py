"""Processes that work for another one: they end with it, however it ends."""

from __future__ import annotations

import os
import threading
import time

LOOK = 1.0  # seconds between two looks at the parent


def end_with(parent: int) -> None:
    """Have this process end within seconds of the process `parent`, its own, even where that was
    killed.

    A worker that waits for a full or an empty pipe never hears of a parent's sudden end: its
    siblings hold the pipe's other end too. A thread looks instead who the parent is; the system
    gives an orphan another one.
    """
    threading.Thread(target=_watch, args=(parent,), name="end-with-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)
