"""The named drawings that the picture side is trained on, from packages (sources.yml), and the
rules that keep EmojiWSD's held-out senses out of them.

Plain rule: no emoji of a sense, in any design. A drawing of an emoji set takes part only where its
code points are known, are no sense's, and its names are no name of one. Other artists' drawings of
the same concepts take part, as CLIP saw bats before it was asked for one. Strict rule, for
comparison: nor does any drawing whose name has the name of a sense in it.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import yaml
from PIL import Image, ImageEnhance, ImageOps

from vwsdlib.errors import VwsdError
from vwsdlib.paths import sha256_file

from ..emojiwsd.drawings import MARGIN, STYLES, drawable, package_folder
from ..emojiwsd.senses import sense_emoji
from .names import bare, code, names_of_senses, sense_names, squeezed, training_emoji

SOURCES = yaml.safe_load(Path(__file__).with_name("sources.yml").read_text(encoding="utf-8"))
MARGINS = MARGIN | {"": 0.06}  # share of the side left free at each edge: EmojiWSD's own, others
WHITE = 240  # a picture with no value below it shows nothing
# of a varied view: degrees it is turned by at most, its least size, how far colours fade or glow
TURN, SMALLEST, COLOURS = 15, 0.7, 0.5
SUFFIX = re.compile(r"(-(alt|\d+))+$")  # of an id: another drawing of the same


class Named(NamedTuple):
    """A drawing: its set, its id there, its name, the name with keywords or category, its SVG."""

    source: str
    id: str
    name: str
    more: str
    svg: str  # or the path of a file


def strict(drawings: Iterable[Named]) -> list[Named]:
    """Those whose name has no name of a sense in it."""
    return [drawing for drawing in drawings if not sense_names().search(drawing.name.lower())]


# ---------------------------------------------------------------- the packages


def source_file(folder: Path, package: str) -> Path:
    """A package's file in `folder`; VwsdError where it is not there or not the one that is
    expected.
    """
    about = SOURCES["packages"][package]
    path = folder / about["file"]
    if not path.is_file() or sha256_file(path) != about["sha256"]:
        state = "is not the one this project was measured with" if path.is_file() else "is missing"
        raise VwsdError(
            f"{about['what']} {state}", where=path, remedy=f"In {folder}: {about['get']}"
        )
    return path


def named_drawings(folder: Path) -> list[Named]:
    """All drawings under the plain rule, in a fixed order. folder: where the packages' files lie
    (`source_file`).
    """
    made: list[Named] = []
    with tarfile.open(source_file(folder, "iconify")) as packed:
        sets = {name: _read_set(packed, name) for name in SOURCES["sets"]}
    codes = _codes_by_id(sets)
    for name, rule in SOURCES["sets"].items():
        read = _emoji if rule.get("emoji") else _icons
        made += read(name, sets[name], codes)
    made += _clip_art(source_file(folder, "openclipart"))
    return made + list(_own_emoji())


def _own_emoji() -> Iterator[Named]:
    """Emoji in EmojiWSD's own two styles: those that are no sense's, and no variant of one."""
    for style in STYLES:
        for emoji in training_emoji(sense_emoji()):
            about = drawable()[emoji]
            more = f"{about.name}, {about.subgroup.replace('-', ' ')}"
            yield Named(style, code(emoji), about.name, more, str(getattr(about, style)))


def _read_set(packed: tarfile.TarFile, name: str) -> dict:
    file = packed.extractfile(f"package/json/{name}.json")
    if file is None:
        raise VwsdError(f"the icon set {name} is not in @iconify/json")
    return json.load(file)


def _codes_by_id(sets: dict[str, dict]) -> dict[str, set[str]]:
    """id -> code points, from the sets that state them: sets of one naming share them."""
    codes = defaultdict(set)
    for rows in sets.values():
        for points, id in rows.get("chars", {}).items():
            codes[id].add("-".join(p for p in points.split("-") if p != "fe0f"))
    return dict(codes)


def _emoji(name: str, rows: dict, codes: dict[str, set[str]]) -> Iterator[Named]:
    """A set's emoji that are certainly none of a sense."""
    taboo_codes = {code(emoji) for emoji in sense_emoji()}
    aliases = defaultdict(list)
    for alias, about in rows.get("aliases", {}).items():
        aliases[about["parent"]].append(alias)
    skipped = re.compile(SOURCES["icons"]["no_emoji"])
    for id, icon in rows["icons"].items():
        ids = [id, *aliases[id]]
        points = set().union(*(codes.get(one, set()) for one in ids))
        names = [SUFFIX.sub("", one).replace("-", " ").replace("_", " ") for one in ids]
        if icon.get("hidden") or skipped.search(id) or not points or points & taboo_codes:
            continue
        if not any(squeezed(bare(one)) in names_of_senses() for one in names):
            yield Named(name, id, names[0], names[0], _svg(rows, icon))


def _icons(name: str, rows: dict, codes: dict[str, set[str]]) -> Iterator[Named]:
    """A set's icons of things that can be seen."""
    rule, general = SOURCES["sets"][name], SOURCES["icons"]
    taken, left = re.compile(rule.get("only", "")), re.compile(rule.get("not", r"(?!)"))
    category = {}
    for words, ids in rows.get("categories", {}).items():
        for id in ids:
            category.setdefault(id, re.sub(r"(?<=[a-z])(?=[A-Z])", " ", words))
    for id, icon in rows["icons"].items():
        stem = SUFFIX.sub("", re.sub(general["style"], "", SUFFIX.sub("", id)))
        if icon.get("hidden") or not taken.search(id) or left.search(id):
            continue
        if len(squeezed(stem)) < 2 or re.search(general["no_things"], stem):
            continue
        shown = re.sub(r"[-_\s]+", " ", stem).strip()
        more = f"{shown}, {category[id]}" if id in category else shown
        yield Named(name, id, shown, more, _svg(rows, icon))


def _svg(rows: dict, icon: dict) -> str:
    """An icon as a document; what takes the text's colour is dark grey."""
    left, top = icon.get("left", 0), icon.get("top", 0)
    width = icon.get("width", rows.get("width", 16))
    height = icon.get("height", rows.get("height", 16))
    body = icon["body"].replace("currentColor", "#333")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{left} {top} {width} {height}">{body}</svg>'
    )


def _clip_art(package: Path) -> Iterator[Named]:
    """Open Clip Art's drawings of things, named by their titles."""
    rule = SOURCES["openclipart"]
    root, seen = _unpacked(package) / rule["folder"], set()
    for path in sorted(root.rglob("*.svg")):
        inside = path.relative_to(root).as_posix()
        if path.is_symlink() or any(f"/{part}/" in f"/{inside}" for part in rule["no_folders"]):
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        subjects = _subjects(text)
        name = _title(text, path.stem)
        known = squeezed(text[-3000:])  # one drawing lies under several subjects
        if set(subjects) & set(rule["no_subjects"]) or len(squeezed(name)) < 2 or known in seen:
            continue
        seen.add(known)
        words = [word for word in subjects if word not in rule["no_keywords"]][:4]
        yield Named("openclipart", inside, name, ", ".join([name, *words]), str(path))


def _unpacked(package: Path) -> Path:
    """Folder of a Debian package's files, whole or not there; VwsdError where there is no
    dpkg-deb.
    """
    folder = package.with_name("openclipart")
    if folder.is_dir():
        return folder
    if shutil.which("dpkg-deb") is None:
        raise VwsdError(
            "a Debian package is unpacked by dpkg-deb, which is not here",
            where=package,
            remedy="Install dpkg, or train on Debian or Ubuntu.",
        )
    part = package.with_name("openclipart.part")  # a killed run's is filled up
    subprocess.run(["dpkg-deb", "-x", str(package), str(part)], check=True)
    return part.rename(folder)


def _subjects(svg: str) -> list[str]:
    """Keywords of a file's metadata, each once."""
    held = re.search(r"<dc:subject>(.*?)</dc:subject>", svg, re.S)
    words = re.findall(r"<rdf:li>([^<]*)</rdf:li>", held[1]) if held else []
    clean = (html.unescape(word).strip().replace("_", " ") for word in words)
    return [word for word in dict.fromkeys(clean) if word]


def _title(svg: str, stem: str) -> str:
    """The name in a file's metadata, else its file's."""
    rule = SOURCES["openclipart"]
    held = re.search(r"<dc:title>([^<]*)</dc:title>", svg)
    for text in (html.unescape(held[1]) if held else "", stem):
        words = re.sub(rule["not_in_a_name"], " ", re.sub(r"[_\-.]+", " ", text.lower()))
        name = re.sub(r"\s+", " ", words).strip(" .,")
        if name and name not in rule["no_names"]:
            return name
    return ""


# ---------------------------------------------------------------- pictures


def render(drawing: Named, side: int) -> Image.Image | None:
    """A drawing over white: RGB, `side` pixels; None where it cannot be drawn or shows nothing."""
    package_folder("resvg_py")
    from resvg_py import svg_to_bytes

    inner = side - 2 * round(side * MARGINS.get(drawing.source, MARGINS[""]))
    given = {"svg_string" if drawing.svg.startswith("<") else "svg_path": drawing.svg}
    try:
        png = svg_to_bytes(**given, width=inner, height=inner, skip_system_fonts=True)
    except Exception:  # whatever resvg says of a broken file
        return None
    drawn = Image.open(BytesIO(png)).convert("RGBA")
    drawn.thumbnail((inner, inner))
    canvas, layer = Image.new("RGBA", (side, side), "white"), Image.new("RGBA", (side, side))
    layer.paste(drawn, ((side - drawn.width) // 2, (side - drawn.height) // 2))
    picture = Image.alpha_composite(canvas, layer).convert("RGB")
    return picture if np.asarray(picture).min() <= WHITE else None


def varied(picture: Image.Image, dice: Random) -> Image.Image:
    """The drawing seen otherwise: mirrored or not, turned a little, smaller and elsewhere, in
    stronger or fainter colours; over white.
    """
    side = picture.width
    if dice.random() < 0.5:
        picture = ImageOps.mirror(picture)
    picture = ImageEnhance.Color(picture).enhance(1 + dice.uniform(-COLOURS, COLOURS))
    angle = dice.uniform(-TURN, TURN)
    turned = picture.rotate(angle, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255))
    size = round(side * dice.uniform(SMALLEST, 1))
    canvas = Image.new("RGB", (side, side), "white")
    corner = (dice.randint(0, side - size), dice.randint(0, side - size))
    canvas.paste(turned.resize((size, size), Image.Resampling.BICUBIC), corner)
    return canvas
