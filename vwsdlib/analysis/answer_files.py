"""A system's answers as they come: a text file, a submission zip (the task's, CodaLab's `res/`), or a folder of one file a language."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..data.textfile import decode, read_bounded
from ..errors import VwsdError

MOST_MEMBER = 64 << 20           # bytes of one unpacked member; a submission of the task has 100 KB
MOST_MEMBERS = 1000
TEXT_SUFFIXES = (".txt", ".tsv", ".csv", ".json", ".jsonl", "")
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, NotImplementedError, MemoryError, ImportError)


def read_answers(path: str | Path, language: str, several: bool = False) -> tuple[str, str]:
    """Text of a system's answers in a language, and what to call its place in a message.

    Of a zip or a folder the file `prediction.<language>.txt` is taken, or the only one where `several` languages are not asked for.
    Raises VwsdError where it cannot be read, is no text, or holds none or several for the language.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path, language, several)
    data = read_bounded(path)
    if not data.startswith(b"PK"):
        if several:
            raise VwsdError("several sets want a zip or a folder with a file a language", where=path,
                            remedy="Put prediction.en.txt, prediction.it.txt ... into it.")
        return decode(data, path), str(path)
    del data
    return _from_zip(path, language, several)


def _from_folder(path: Path, language: str, several: bool) -> tuple[str, str]:
    names = sorted(p.name for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    chosen = path / _choose(names, language, several, path)
    return decode(read_bounded(chosen), chosen), str(chosen)


def _from_zip(path: Path, language: str, several: bool) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir() and _visible(m.filename)]
            if len(members) > MOST_MEMBERS:
                raise VwsdError(f"the zip has more than {MOST_MEMBERS} files", where=path, remedy="Give a zip of the predictions alone.")
            name = _choose([m.filename for m in members], language, several, path)
            member = next(m for m in members if m.filename == name)
            if member.file_size > MOST_MEMBER:
                raise VwsdError(f"{name} would unpack to more than {MOST_MEMBER >> 20} MB", where=path,
                                remedy="Give a zip of the predictions alone.")
            with archive.open(member) as f:
                data = f.read(MOST_MEMBER + 1)
    except DAMAGED as e:
        raise VwsdError(f"the zip cannot be read: {e or type(e).__name__}", where=path, remedy="Pack it again, without a password.") from None
    if len(data) > MOST_MEMBER:
        raise VwsdError(f"{name} unpacks to more than {MOST_MEMBER >> 20} MB", where=path, remedy="Give a zip of the predictions alone.")
    where = f"{path}: {name}"
    return decode(data, where), where


def _visible(name: str) -> bool:
    """No file that a Mac adds, and no dot file."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" not in parts and not parts[-1].startswith(".")


def _choose(names: Sequence[str], language: str, several: bool, path: Path) -> str:
    texts = [name for name in names if PurePosixPath(name).suffix.lower() in TEXT_SUFFIXES]
    pattern = re.compile(rf"(?:.*[^a-z])?{re.escape(language)}(?:[^a-z].*)?", re.I | re.S)
    fitting = [name for name in texts if pattern.fullmatch(PurePosixPath(name).name)]
    predictions = [name for name in fitting if PurePosixPath(name).name.lower().startswith("prediction")]
    if len(predictions or fitting) == 1:
        return (predictions or fitting)[0]
    if len(texts) == 1 and not several:
        return texts[0]
    listed = ", ".join(sorted(texts)[:6]) or "no text file"
    which = "none" if not fitting else "more than one"
    raise VwsdError(f"{which} of its files is the prediction for {language!r}; it holds {listed}", where=path,
                    remedy=f"Name the file prediction.{language}.txt, or say with --language what the set is.")
