"""A system's answers as they come: a text file, a submission zip (the task's, CodaLab's `res/`),
or a folder of one file a language.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath

from ..data.archives import DAMAGE
from ..data.textfile import MOST_TABLE, decode_text, read_bounded, read_text
from ..errors import VwsdError

MOST_MEMBERS = 1000  # of a zip; the task asks for three
TEXT_SUFFIXES = (".txt", ".tsv", ".csv", ".json", ".jsonl", "")
ALONE = "Give a zip of the predictions alone."


def read_answers(path: str | Path, language: str, several: bool = False) -> tuple[str, str]:
    """Text of a system's answers in a language, and what to call its place in a message.

    Of a zip or a folder the file `prediction.<language>.txt` is taken, or the only one where
    `several` languages are not asked for. Raises VwsdError where it cannot be read, is no text, or
    holds none or several for the language.
    """
    path = Path(path)
    if os.path.isdir(path):  # unlike Path.is_dir, False for a name that is too long
        return _from_folder(path, language, several)
    data = read_bounded(path, MOST_TABLE)
    if not data.startswith(b"PK"):
        if several:
            what = "several sets want a zip or a folder with a file a language"
            raise VwsdError(what, path, "Put prediction.en.txt, prediction.it.txt ... into it.")
        return decode_text(data, path), str(path)
    return _from_zip(data, path, language, several)


def _from_folder(path: Path, language: str, several: bool) -> tuple[str, str]:
    try:
        names = sorted(p.name for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    except OSError as e:
        what = f"the folder cannot be read: {e.strerror}"
        raise VwsdError(what, path, "Check its permissions.") from None
    chosen = path / _choose(names, language, several, path)
    return read_text(chosen, MOST_TABLE), str(chosen)


def _from_zip(data: bytes, path: Path, language: str, several: bool) -> tuple[str, str]:
    most = f"{MOST_TABLE >> 20} MB"
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            infos = [m for m in archive.infolist() if _visible(m.filename) and not m.is_dir()]
            if len(infos) > MOST_MEMBERS:
                raise VwsdError(f"the zip has more than {MOST_MEMBERS} files", path, ALONE)
            name = _choose([m.filename for m in infos], language, several, path)
            member = next(m for m in infos if m.filename == name)
            if member.file_size > MOST_TABLE:
                raise VwsdError(f"{name} would unpack to more than {most}", path, ALONE)
            with archive.open(member) as f:
                unpacked = f.read(MOST_TABLE + 1)
    except DAMAGE as e:
        what = f"the zip cannot be read: {e or type(e).__name__}"
        raise VwsdError(what, path, "Pack it again, without a password.") from None
    if len(unpacked) > MOST_TABLE:
        raise VwsdError(f"{name} unpacks to more than {most}", path, ALONE)
    where = f"{path}: {name}"
    return decode_text(unpacked, where), where


def _visible(name: str) -> bool:
    """No file that a Mac adds, no dot file, and none without a name."""
    path = PurePosixPath(name)
    return bool(path.name) and not path.name.startswith(".") and "__MACOSX" not in path.parts


def _choose(names: Sequence[str], language: str, several: bool, path: Path) -> str:
    texts = [name for name in names if PurePosixPath(name).suffix.lower() in TEXT_SUFFIXES]
    pattern = re.compile(rf"(?:.*[^a-z])?{re.escape(language)}(?:[^a-z].*)?", re.I | re.S)
    fitting = [name for name in texts if pattern.fullmatch(_base(name))]
    predictions = [name for name in fitting if _base(name).lower().startswith("prediction")]
    if len(predictions or fitting) == 1:
        return (predictions or fitting)[0]
    if len(texts) == 1 and not several:
        return texts[0]
    listed = ", ".join(sorted(texts)[:6]) or "no text file"
    which = "none" if not fitting else "more than one"
    raise VwsdError(
        f"{which} of its files is the prediction for {language!r}; it holds {listed}",
        path,
        f"Name the file prediction.{language}.txt, or say with --language what the set is.",
    )


def _base(name: str) -> str:
    """The last part of a member's name."""
    return PurePosixPath(name).name
