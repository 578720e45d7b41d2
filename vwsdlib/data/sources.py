"""Where pictures lie: files, files at a URL (fsspec), or members of tar shards, as WebDataset packs sets of hundreds of gigabytes.

A picture's place is a path or a string: `/sets/images/a.jpg`, `s3://bucket/images/a.jpg`, `tar://a.jpg::https://host/train-000.tar`.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import VwsdError

Place = str | Path
PICTURES = (".jpg", ".jpeg", ".jpe", ".png", ".gif", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm")   # names of pictures, in lower case


def remote(place: object) -> bool:
    """Is it a URL (or a member of a shard) that fsspec has to open?"""
    return "://" in str(place)


def _fsspec(place: object, action):
    """`action(file system, path there)`; VwsdError names the place where it fails or a package is missing."""
    import fsspec

    try:
        return action(*fsspec.core.url_to_fs(str(place)))
    except ImportError as e:
        raise VwsdError(f"this kind of place needs another package: {e}", where=place, remedy="Install it (s3fs for s3://, gcsfs for gs://, aiohttp for https://).") from e
    except (OSError, ValueError, KeyError) as e:
        raise VwsdError(f"cannot be read: {e or type(e).__name__}", where=place, remedy="Check the address, the connection and your credentials.") from e


def read_remote(place: Place) -> bytes:
    """The bytes at a URL."""
    return _fsspec(place, lambda fs, path: fs.cat_file(path))


def stamp(place: Place) -> str:
    """What changes when the bytes at a place change: size and time of change, or what the server says (ETag). Raises OSError, VwsdError."""
    if not remote(place):
        status = os.stat(place)
        return f"{status.st_size}:{status.st_mtime_ns}"
    _, shard, url = str(place).partition("::")                                        # of a member: its shard's
    return stamp(url) if shard else _fsspec(place, lambda fs, path: str(fs.ukey(path)))


@dataclass(frozen=True)
class Remote:
    """A folder at a URL."""

    url: str

    def __truediv__(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}"

    def names(self) -> set[str]:
        """Names of the files in it."""
        return {path.rsplit("/", 1)[-1] for path in _fsspec(self.url, lambda fs, path: fs.ls(path, detail=False))}


@dataclass(frozen=True)
class Shards:
    """Tar files, by a pattern: `train-*.tar`, `s3://bucket/train-*.tar`. Names of members are unique over all shards."""

    pattern: str

    @cached_property
    def index(self) -> dict[str, str]:
        """Name of a picture -> its place, shard by shard, in the order of the tar: read from the tars' headers once. VwsdError where no shard fits, or a name stands twice."""
        if remote(self.pattern):
            shards = _fsspec(self.pattern, lambda fs, path: [fs.unstrip_protocol(p) for p in fs.glob(path)])
        else:
            shards = glob.glob(os.path.abspath(os.path.expanduser(self.pattern)))
        if not shards:
            raise VwsdError("no shard fits the pattern", where=self.pattern, remedy="Quote the pattern, as in --images 'train-*.tar'.")
        members = [(path, shard) for shard in sorted(shards) for path in _fsspec(f"tar://::{shard}", lambda fs, path: fs.find(""))
                   if path.lower().endswith(PICTURES)]
        index = {path.rsplit("/", 1)[-1]: f"tar://{path}::{shard}" for path, shard in members}
        if len(index) < len(members):
            raise VwsdError(f"{len(members) - len(index)} names stand in more than one place", where=self.pattern, remedy="Pack each picture once.")
        return index

    def __truediv__(self, name: str) -> str:
        if name not in self.index:
            raise VwsdError(f"{name} is in no shard", where=self.pattern, remedy="Name all shards of the set.")
        return self.index[name]

    def names(self) -> set[str]:
        """Names of the pictures in all shards."""
        return set(self.index)


def pictures_at(place: Place) -> Path | Remote | Shards:
    """A folder, a folder at a URL, or shards; `at / name` is a picture's place. VwsdError where there is no such folder."""
    text = str(place)
    if text.endswith(".tar"):
        return Shards(text)
    if remote(text):
        return Remote(text)
    if not Path(text).is_dir():
        raise VwsdError("no such folder of pictures", where=place, remedy="Give the folder that holds the image files of this set.")
    return Path(text)


def picture_names(place: str | Path | Remote | Shards) -> set[str]:
    """Names of the files there, without those still being written; empty where there is no folder."""
    if isinstance(place, (Remote, Shards)):
        return place.names()
    return {entry.name for entry in os.scandir(place) if not entry.name.startswith(".")} if os.path.isdir(place) else set()
