"""The explorer: an item's ten pictures, or your own, under any text, by one encoder or two.
`notebooks/explore.ipynb` shows it.

`work` computes and knows no widget; `widget` lays it out.
"""

from . import widget, work
from .widget import Explorer

__all__ = ["Explorer", "widget", "work"]
