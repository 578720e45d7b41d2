"""Pictures made small once, ahead of a training that would decode megapixels to look at 224 of
them: the shorter side becomes a few pixels more than a network takes.

They are JPEGs of RGB pictures turned upright. What a network sees of one is not bit for bit what it
sees of the original: it was resized twice, and compressed once more.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image

from vwsdlib.data.pictures import from_bytes, read_bytes
from vwsdlib.data.sources import picture_names
from vwsdlib.disk import free_gb, try_writing
from vwsdlib.encoders.streams import cores
from vwsdlib.errors import VwsdError
from vwsdlib.paths import quiet, write_bytes, write_text
from vwsdlib.progress import tqdm
from vwsdlib.schema import Stored, read_json

from .published import SUFFIXES

SIDE, QUALITY = 256, 95
TOGETHER = 256  # pictures after which the disk is looked at again
NOTE = ".vwsd-small.json"  # hidden: it is no picture
ELSEWHERE = "Name a new folder: nothing that is there is touched."


@dataclass
class Shrunk:
    """What became of a folder's pictures, by number; and the names of those that cannot be read."""

    written: int = 0
    there: int = 0  # before
    bytes: int = 0  # written
    unread: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = f"{self.written} pictures written, {self.bytes / 1e9:.2f} GB"
        if self.there:
            said += f"; {self.there} were there"
        if self.unread:
            said += f"; {len(self.unread)} cannot be read, {self.unread[0]} the first"
        return said


class _Note(Stored):
    """What the pictures in a folder were made by."""

    side: int
    quality: int


def shrink(source: str | Path, target: str | Path, side: int = SIDE, workers: int = 0) -> Shrunk:
    """Write each picture of the folder `source` into the folder `target` as STEM.jpg, its shorter
    side `side` pixels (a smaller one keeps its size), in `workers` threads (0: one a core).

    What is there is kept, so that a second run goes on; a picture that cannot be read is counted
    and left out. VwsdError, before anything is written, where the folders are one, lie within one
    another or hold something else, where two pictures have one stem, and where the disk is too
    small, by the size of those that are done.
    """
    source, target = Path(source), Path(target)
    goals = _goals(source, target)
    _begin(source, target, side)
    left = [(path, goal) for path, goal in goals.items() if not goal.exists()]
    shrunk = Shrunk(there=len(goals) - len(left))
    bar = tqdm(total=len(left), desc="Pictures", unit="picture", disable=quiet())
    with bar, ThreadPoolExecutor(workers or cores()) as pool:
        for some in _parts(left):
            for (path, _), size in zip(some, pool.map(partial(_one, side), some)):
                shrunk.written += size > 0
                shrunk.bytes += size
                shrunk.unread += [] if size else [path.name]
                bar.update()
            _refuse_full(shrunk, len(left), target)
    return shrunk


def _parts(left: Sequence) -> Iterator[Sequence]:
    for start in range(0, len(left), TOGETHER):
        yield left[start : start + TOGETHER]


def _goals(source: Path, target: Path) -> dict[Path, Path]:
    """Each picture of a folder with the file that is made of it."""
    goals: dict[Path, Path] = {}
    owners: dict[Path, str] = {}
    for name in sorted(picture_names(source)):
        if not name.lower().endswith(SUFFIXES[1:]):
            continue
        goal = target / f"{Path(name).stem}.jpg"
        if goal in owners:
            what = f"{owners[goal]} and {name} would both become {goal.name}"
            raise VwsdError(what, source, "Take one of them out of the folder.")
        owners[goal] = name
        goals[source / name] = goal
    if not goals:
        kinds = ", ".join(SUFFIXES[1:])
        remedy = "Name the folder they lie in; tensors (.pt, .pkl) are converted by: pictures."
        raise VwsdError(f"there are no pictures ({kinds})", source, remedy)
    return goals


def _begin(source: Path, target: Path, side: int) -> None:
    """Note how the folder's pictures are made; VwsdError where it is another's."""
    ours, theirs = target.resolve(), source.resolve()
    if ours == theirs or theirs in ours.parents or ours in theirs.parents:
        raise VwsdError("the small pictures would lie among the originals", target, ELSEWHERE)
    note = target / NOTE
    if note.exists():
        made = read_json(note, _Note, "note on small pictures", "Remove the folder.")
        if (made.side, made.quality) != (side, QUALITY):
            what = f"its pictures were made with a shorter side of {made.side} pixels, not {side}"
            raise VwsdError(what, target, f"Ask for --side {made.side}, or name a new folder.")
    elif picture_names(target):
        raise VwsdError("the folder holds other files", target, ELSEWHERE)
    try_writing(target, "small pictures", "Make it writable, or name another folder.")
    write_text(note, json.dumps({"side": side, "quality": QUALITY}) + "\n")


def _one(side: int, pair: tuple[Path, Path]) -> int:
    """Bytes of the small picture that was written; 0 where the original cannot be read."""
    path, goal = pair
    try:
        image = from_bytes(read_bytes(path), path, truncated="keep").image
    except VwsdError:
        return 0
    data = io.BytesIO()
    _small(image, side).save(data, "JPEG", quality=QUALITY)
    write_bytes(goal, data.getvalue())
    return data.tell()


def _small(image: Image.Image, side: int) -> Image.Image:
    shorter = min(image.size)
    if shorter <= side:
        return image
    size = [max(side, round(length * side / shorter)) for length in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.BICUBIC)


def _refuse_full(shrunk: Shrunk, total: int, target: Path) -> None:
    """VwsdError where the rest, at the size of what was written, does not fit on the disk."""
    done = shrunk.written + len(shrunk.unread)
    needed = (total - done) * shrunk.bytes / max(1, shrunk.written) / 1e9
    if needed > (free := free_gb(target)):
        raise VwsdError(
            f"the {total - done} pictures that are left take about {needed:.1f} GB, and"
            f" {free:.1f} GB are free",
            target,
            "Free some space and run it again: it goes on from here.",
        )
