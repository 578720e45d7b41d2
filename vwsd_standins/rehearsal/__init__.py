"""The rehearsal: the papers' code path end to end on tiny random checkpoints and generated
pictures, without a download.
"""

from __future__ import annotations

import os
from pathlib import Path


def prepare() -> Path:
    """Make data and checkpoints where they are not, and point `VWSD_MODELS` at the checkpoints;
    returns their folder.

    From here on this process and its kernels load nothing else: numbers under the profile
    `rehearsal` are of random weights.
    """
    from vwsdlib.data.sets import make_rehearsal

    from .data import models_folder
    from .models import make_models
    from .polclip import make_polclip, polclip_folder
    from .translators import make_translators

    make_rehearsal()
    make_polclip(polclip_folder())
    folder = models_folder()
    make_models(folder)
    make_translators(folder)
    os.environ["VWSD_MODELS"], os.environ["HF_HUB_OFFLINE"] = str(folder), "1"
    return folder
