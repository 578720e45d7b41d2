"""What `main` does with whatever is no VwsdError: one sentence, and a log file with the traceback
for those who mend it.

An OSError that names its file is a fault of the input or the machine (exit code 2); all else is a
fault of ours (exit code 3).
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shlex
import sys
import tempfile
import time
import traceback
from pathlib import Path

from vwsdlib import __version__
from vwsdlib.errors import VwsdError

LOGS_KEPT = 20
PACKAGES = (
    "numpy",
    "pillow",
    "pyyaml",
    "torch",
    "transformers",
    "pydantic",
    "pandas",
    "datasets",
    "papermill",
)
REMOVED = "[removed]"

NO_ROOM = "Free some space, or choose a folder on another disk."
OS_FAULTS = {  # errno -> what is wrong, what to do
    errno.ENOENT: ("there is no such file or folder", "Correct the path."),
    errno.EACCES: (
        "this user may not read or write it",
        "Change its permissions (chmod), or give another path.",
    ),
    errno.EPERM: (
        "the system does not permit it",
        "Change its permissions (chmod), or give another path.",
    ),
    errno.EROFS: ("its file system is read-only", "Choose a folder that can be written."),
    errno.EISDIR: ("it is a folder, where a file belongs", "Give the path of a file."),
    errno.ENOTDIR: (
        "a part of this path is a file, where a folder belongs",
        "Give another path, or move that file away.",
    ),
    errno.EEXIST: (
        "a file stands where a folder belongs",
        "Give another path, or move that file away.",
    ),
    errno.ELOOP: (
        "its symbolic links lead in a circle",
        "Correct the links, or give the file itself.",
    ),
    errno.ENAMETOOLONG: ("the name is longer than this file system allows", "Give a shorter path."),
    errno.ENOSPC: ("the disk is full", NO_ROOM),
    errno.EDQUOT: ("the quota of this disk is used up", NO_ROOM),
    errno.EFBIG: ("the file would be larger than is allowed here", NO_ROOM),
    errno.EMFILE: ("too many files are open", "Allow more of them: ulimit -n 4096."),
    errno.ENFILE: ("too many files are open on this machine", "Close other programs."),
    errno.ENOMEM: ("the memory does not suffice", "Close other programs, or give smaller input."),
    errno.EIO: ("the disk reports a fault", "Copy the file from another place."),
    errno.ENXIO: ("it is no ordinary file", "Give the path of a file."),
    errno.ENODEV: ("it is no ordinary file", "Give the path of a file."),
}
OF_THE_MACHINE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
)  # no mistake of ours, path or not


def as_error(fault: BaseException) -> VwsdError | None:
    """The fault as an error of the input or the machine, where that is what it is; None for a fault
    of ours.
    """
    if isinstance(fault, OSError):
        return _of_system(fault)
    if isinstance(fault, RuntimeError) and "home directory" in str(fault):  # pathlib's words
        return VwsdError(
            "this user has no home folder, or a path begins with ~ and the name of nobody here",
            remedy="Set HOME, or write the path out.",
        )
    if isinstance(fault, UnicodeEncodeError) and any(
        "\ud800" <= character <= "\udfff" for character in str(fault.object)
    ):
        return VwsdError(
            "a name or a text is not UTF-8",
            where=str(fault.object),
            remedy="Rename the file, or save the text as UTF-8.",
        )
    return None


def _of_system(fault: OSError) -> VwsdError | None:
    named = fault.filename if isinstance(fault.filename, (str, bytes, os.PathLike)) else None
    if named is None and fault.errno not in OF_THE_MACHINE:
        return None
    place = os.fsdecode(named) if named is not None else ""
    reason, remedy = OS_FAULTS.get(
        fault.errno,
        (
            fault.strerror or type(fault).__name__,
            "Look at this path; vwsd doctor looks at the folders.",
        ),
    )
    return VwsdError(
        f"cannot use this file or folder: {reason}" if place else reason, where=place, remedy=remedy
    )


def explain(fault: BaseException, command_line: list[str]) -> VwsdError:
    """The one sentence for a fault of ours, after its traceback was written to a log file.

    Where no log can be written the sentence says so and names --debug.
    """
    if isinstance(fault, MemoryError):
        what = "the memory did not suffice"
    elif isinstance(fault, RecursionError):
        what = "something is nested too deeply"
    else:
        what = "an internal fault, which is not meant to happen"
    last_line = traceback.format_exception_only(fault)[-1].strip()
    what = without_secrets(f"{what} ({last_line})")
    log = write_log(fault, command_line)
    if log is None:
        return VwsdError(
            what, remedy="No log could be written; run it again with --debug to see the traceback."
        )
    return VwsdError(what, remedy=f"The traceback is in {log}; please report it with that file.")


def write_log(fault: BaseException, command_line: list[str]) -> Path | None:
    """A new log file below the cache's `logs`, else in the system's folder of temporary files; None
    where neither can be written.
    """
    text = without_secrets(_log_text(fault, command_line))
    for folder in (_cache_logs, _temporary_logs):
        try:
            return _write_below(folder(), text)
        except (OSError, RuntimeError, MemoryError):  # RuntimeError: no home folder
            continue
    return None


def _cache_logs() -> Path:
    from vwsdlib.paths import cache_dir

    return cache_dir().absolute() / "logs"


def _temporary_logs() -> Path:
    return Path(tempfile.gettempdir()) / f"vwsd-logs-{os.getuid()}"


def _write_below(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name = time.strftime("fault-%Y%m%dT%H%M%SZ-", time.gmtime())
    handle, path = tempfile.mkstemp(dir=folder, prefix=name, suffix=".log")
    with open(handle, "w", encoding="utf-8", errors="backslashreplace") as f:
        f.write(text)
    logs = sorted(folder.glob("fault-*.log"), key=lambda log: log.name)
    for old in logs[:-LOGS_KEPT]:
        old.unlink(missing_ok=True)
    return Path(path)


def _log_text(fault: BaseException, command_line: list[str]) -> str:
    from importlib.metadata import PackageNotFoundError, version

    versions = [
        f"vwsdlib {__version__}",
        f"Python {platform.python_version()}",
        platform.platform(),
    ]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    trace = "".join(traceback.format_exception(fault))
    return "\n".join(
        [f"command: vwsd {shlex.join(command_line)}", f"versions: {', '.join(versions)}", "", trace]
    )


# ---------------------------------------------------------------- secrets

SECRET_NAME = (
    r"(?!\w*Error\b)[\w.-]*"
    r"(?:key|token(?!iz)|secret|passw(?:or)?d|credential|authorization|signature)[\w.-]*"
)
SECRETS = [
    re.compile(pattern, re.I)
    for pattern in (
        r"(?P<kept>://)[^/\s@]+(?=@)",  # user and password of an address
        # api_key=..., "token": "..."
        rf"(?P<kept>\b{SECRET_NAME}[\"']?\s*[=:]\s*[\"']?)(?!(?:bearer|basic)\s)[^\s\"',&;)\]]+",
        r"(?P<kept>\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}",
        r"(?P<kept>)\b(?:sk|pk|rk)-[\w-]{8,}",
        r"(?P<kept>)\b(?:hf|ghp|gho|ghs|ghu|github_pat|glpat|xox[abp])[_-][\w-]{8,}",
        r"(?P<kept>)\b(?:AKIA|ASIA|AIza)[\w-]{12,}",
        r"(?P<kept>)\beyJ[\w-]+\.[\w-]+\.[\w-]*",  # a JSON web token
        r"(?P<kept>)\b[0-9a-f]{32,}\b",  # keys of many services are hexadecimal
    )
]
LONG_WORD = re.compile(r"[\w-]{32,}", re.ASCII)


def without_secrets(text: str) -> str:
    """`text` without the values of secret variables of the environment and without whatever looks
    like a key.
    """
    for name, value in os.environ.items():
        if re.fullmatch(SECRET_NAME, name, re.I) and len(value) >= 4:
            text = text.replace(value, REMOVED)
    for pattern in SECRETS:
        text = pattern.sub(lambda match: match["kept"] + REMOVED, text)
    return LONG_WORD.sub(lambda match: REMOVED if _random(match[0]) else match[0], text)


def _random(word: str) -> bool:
    """Small letters, capitals and several digits in one long word: a key, hardly a name."""
    digits = sum(character.isdigit() for character in word)
    return digits >= 4 and word.lower() != word and word.upper() != word


# ---------------------------------------------------------------- the streams


def prepare_streams() -> None:
    """Let no print fail for a letter that the terminal lacks, and nothing written to stderr end up
    in stdout.
    """
    if sys.stderr is None:  # closed by the shell (2>&-); print would write to stdout instead
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class Watched:
    """A stream that remembers why it could not be written; argparse, for one, swallows the
    error."""

    def __init__(self, stream):
        self.stream = stream
        self.fault: OSError | None = None

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """As of the stream."""
        try:
            return self.stream.write(text)
        except OSError as fault:
            self._remember(fault)
            raise

    def flush(self) -> None:
        """As of the stream."""
        try:
            self.stream.flush()
        except OSError as fault:
            self._remember(fault)
            raise

    def finish(self) -> OSError | None:
        """Flush; what kept the stream from being written, or None."""
        try:
            self.flush()
        except (OSError, ValueError):  # ValueError: closed within this process, by who called us
            pass
        return self.fault

    def _remember(self, fault: OSError) -> None:
        if self.fault is None:
            self.fault = fault
            _give_up(self.stream)


def _give_up(stream) -> None:
    """Send what `stream` still holds to nowhere: the interpreter flushes it once more at its
    end."""
    try:
        target = stream.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, target)
    os.close(nowhere)
