"""How figures look: Okabe and Ito's colours, told apart by colour-blind readers, a style sheet."""

from __future__ import annotations

from pathlib import Path

import matplotlib

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#8C8C8C"
RED, SKY, BLACK, PURPLE = "#D55E00", "#56B4E9", "#222222", "#CC79A7"
DIVERGING, SEQUENTIAL = "RdBu_r", "viridis"  # colours of maps
LANGUAGE_COLOURS = {"en": BLUE, "it": ORANGE, "fa": GREEN}
MARKERS = {"en": "o", "it": "s", "fa": "D"}
DASHED = {"color": GREY, "ls": "--", "lw": 1}  # lines of chance and of no difference
SHEET = matplotlib.rc_params_from_file(
    Path(__file__).with_name("vwsd.mplstyle"), use_default_template=False
)
# of the session, not of the drawing
SESSION = ("backend", "backend_fallback", "interactive", "toolbar", "timezone")
# matplotlib's own defaults stand below the sheet, so that a user's theme (seaborn's, a
# matplotlibrc) moves no figure
DEFAULTS = {key: value for key, value in matplotlib.rcParamsDefault.items() if key not in SESSION}
STYLE = {**DEFAULTS, **SHEET}
