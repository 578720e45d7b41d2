"""The rehearsal: the papers' code path end to end on tiny random checkpoints and generated
pictures, without a download.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from vwsdlib.data.official import layout_fingerprint
from vwsdlib.data.sets import VwsdSet, read_layout
from vwsdlib.paths import data_dir


def prepare(whole: bool = True) -> None:
    """Make data and checkpoints where they are not, and point `VWSD_MODELS` at the checkpoints.
    whole=False: only where the sets are built already.

    From here on this process and its kernels load nothing else: numbers under the profile
    `rehearsal` are of random weights.
    """
    from .data import models_folder
    from .models import make_models
    from .polclip import make_polclip, polclip_folder
    from .translators import make_translators

    if not whole and not record():
        return
    make_sets()
    make_polclip(polclip_folder())
    folder = models_folder()
    make_models(folder)
    make_translators(folder)
    os.environ["VWSD_MODELS"], os.environ["HF_HUB_OFFLINE"] = str(folder), "1"


def make_sets(texts: Path | None = None) -> Path:
    """Folder of the sets, built where they are not; official text is also looked for below
    `texts`.
    """
    from .data import make_data

    return make_data(data_dir() / "rehearsal", texts)


def record() -> dict:
    """What the sets were made from (`made_by`, `text` and `credit` of each split); empty where
    there are none yet.
    """
    path = data_dir() / "rehearsal" / "rehearsal.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def rehearsal_set(language: str, split: str) -> VwsdSet:
    """A part of the rehearsal's set."""
    folder = make_sets() / "vwsd" / split
    return read_layout("rehearsal", folder, language, split, record()["credit"][split])


def rehearsal_fingerprint() -> str:
    """Hash of the sets' text, of what made the pictures, and of their number."""
    return layout_fingerprint(make_sets() / "vwsd")


def state() -> str:
    """Whose text the sets have, or how they are built."""
    text = ", ".join(f"{kind} {split} text" for split, kind in record().get("text", {}).items())
    return text or "not built yet (`vwsd fetch rehearsal` or the first run does it)"
