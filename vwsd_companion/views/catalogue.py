"""All views by name, in the order of the report: this imports every module that registers some."""

from __future__ import annotations

from . import baseline, clipseg, multilingual, polclip, polclip_maps, saliency  # noqa: F401
from .base import VIEWS

TABLES = {view.name: view.table for view in VIEWS.values() if view.table}
FIGURES = {view.name: view.figure for view in VIEWS.values() if view.figure}
