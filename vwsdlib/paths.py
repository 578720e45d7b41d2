"""Where things live on disk, and how a file is written so that a kill never leaves half of it.

One root holds everything: the checkout (or `VWSD_HOME`). Below it `data/` (sets), `.cache/`
(vectors, fitted maps, logs), `runs/<profile>/` (what was run here) and, in git,
`results/<profile>/` (the reference). `VWSD_CACHE` and `VWSD_RESULTS` move the cache and the runs,
for shared disks and for tests.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from .errors import VwsdError

PACKAGE = Path(__file__).resolve().parent
# the packages of this project, each importing only from those before it
PACKAGES = ("vwsdlib", "polclip", "vwsd_standins", "vwsd_companion")
# bytes of a name that becomes a file's; suffixes and a temporary's marks still fit into 255
LONGEST_NAME = 200
# writers of one target at a time whose leftovers, should they be killed, the next one removes
WRITERS = 8
DRIVE = re.compile(r"[A-Za-z]:")
# parts of a profile's results that are facts: all else is made from them
FACTS = ("predictions", "audit", "measured", "translations", "definitions")
STREAMS = ("/dev/stdin", "/dev/stdout", "/dev/stderr")


def root() -> Path:
    """The project's folder: `VWSD_HOME`, else the checkout this package sits in, else the working
    folder.

    VwsdError where `VWSD_HOME` leads nowhere, say to a home folder that does not exist.
    """
    home = os.environ.get("VWSD_HOME")
    if home:
        try:
            return Path(home).expanduser().resolve()
        except (RuntimeError, OSError) as e:
            raise VwsdError(
                f"VWSD_HOME leads nowhere: {e}", home, "Set it to the project's folder."
            ) from e
    checkout = PACKAGE.parent
    return checkout if (checkout / "notebooks" / "pipeline.yml").exists() else Path.cwd()


def packaged(name: str) -> Any:
    """What a table of this package holds: YAML or JSON, named from the package on, as
    `data/kinds.yml`.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((PACKAGE / name).read_bytes(), loader)


def data_dir() -> Path:
    """Folder of the data sets (`VWSD_DATA`, default `<root>/data`)."""
    return Path(os.environ.get("VWSD_DATA") or root() / "data")


def cache_dir() -> Path:
    """Folder of everything that can be recomputed (`VWSD_CACHE`, default `<root>/.cache`)."""
    return Path(os.environ.get("VWSD_CACHE") or root() / ".cache")


def reference_dir(profile: str) -> Path:
    """Folder of the committed results of a profile, which runs are compared with; it need not be
    there. VwsdError for a profile whose name is no plain name.
    """
    return root() / "results" / safe_name(profile, "profile")


def run_dir(profile: str) -> Path:
    """Folder that a run of a profile writes to (`VWSD_RESULTS`, default `<root>/runs`, then the
    profile's name). VwsdError for a profile whose name is no plain name.
    """
    folder = Path(os.environ.get("VWSD_RESULTS") or root() / "runs")
    return folder / safe_name(profile, "profile")


def results_dir(profile: str) -> Path:
    """Folder of results to read: the run's where it holds any fact or `VWSD_RESULTS` names it, else
    the reference. VwsdError for a profile whose name is no plain name.
    """
    run, reference = run_dir(profile), reference_dir(profile)
    if os.environ.get("VWSD_RESULTS") or not reference.is_dir():
        return run
    ran = any(any(run.glob(f"{part}/*.json*")) for part in FACTS)
    return run if ran else reference


def shown(path: Path) -> str:
    """A path for people: below the root without it, else in full."""
    path = path.absolute()
    return str(path.relative_to(root())) if path.is_relative_to(root()) else str(path)


def safe_name(name: str, where: object = "") -> str:
    """`name` itself where it can be one file's or folder's name and nothing else; else VwsdError
    with `where`.

    Whatever comes from a stored fact or a command line and becomes part of a path goes through
    here. Letters of any language may stand in it; a separator, a control character, a leading dot
    or a drive's letter may not.
    """
    if not isinstance(name, str):
        complaint = f"is no text but {type(name).__name__}"
    elif not name.strip():
        complaint = "is empty"
    elif "/" in name or "\\" in name:
        complaint = "holds a path's separator"
    elif any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        complaint = "holds a control character"
    elif name.startswith("."):
        complaint = "begins with a dot"
    elif DRIVE.match(name):
        complaint = "begins like a drive's letter"
    elif len(name.encode("utf-8")) > LONGEST_NAME:
        complaint = f"is longer than {LONGEST_NAME} bytes"
    else:
        return name
    what = f"the name {name!r} {complaint}, so no file is named after it"
    raise VwsdError(what, where, "Give a plain name: no separators, no leading dot.")


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


FULL = "Free some space or choose another folder; nothing that was there before is lost."
REMEDIES = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EACCES: "Choose a folder that you may write to, or change its permissions.",
    errno.EPERM: "Choose a folder that you may write to, or change its permissions.",
    errno.EROFS: "Choose a folder that you may write to: this file system is read-only.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ENOTDIR: "A file stands where a folder is needed: move it, or choose another place.",
    errno.EEXIST: "A file stands where a folder is needed: move it, or choose another place.",
    errno.ELOOP: "A link in the path leads back to itself: remove it, or choose another place.",
}
OTHER_REMEDY = "Choose another place; nothing that was there before is lost."


def unwritable(error: OSError, where: object, what: str = "file") -> VwsdError:
    """The sentence for `what`, to be written at `where`, that failed with `error`; its remedy fits
    the reason."""
    remedy = REMEDIES.get(error.errno, OTHER_REMEDY)
    return VwsdError(f"cannot write the {what}: {error.strerror or error}", where, remedy)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and move it into place, on
    failure remove it.

    A new file gets the mode that the umask leaves, one that is replaced keeps its own. A link is
    written through: what it leads to is replaced. Temporaries that killed writers of this file left
    are removed first. Raises VwsdError for a folder, a device, a pipe or a socket, and where the
    file cannot be written.
    """
    temporary = handle = None
    try:
        target = _regular(Path(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary, handle = _temporary(target)
        yield temporary
        with open(temporary, "rb+") as f:
            os.fsync(f.fileno())
        if target.exists():
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
        temporary = None
    except OSError as e:
        raise unwritable(e, path) from e
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _regular(path: Path) -> Path:
    """`path`, or what it leads to where it is a link; VwsdError where something stands there that
    is no file."""
    name = os.path.abspath(path)
    if name in STREAMS or name.startswith(("/dev/fd/", "/proc/")):
        raise VwsdError("the output is a stream, not a file", path, "Name a file to be written.")
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    if not stat.S_ISREG(mode):
        raise VwsdError(
            f"the output is {what_stands(mode)}, not a file", path, "Name a file to be written."
        )
    return target


def refuse_special(path: str | Path, what: str = "file", remedy: str = "Name a file.") -> None:
    """VwsdError where a pipe, a socket or a device stands at `path`: reading it would wait, or
    never end. What is not there, or cannot be looked at, is left to who opens it."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise VwsdError(f"the {what} is {what_stands(mode)}, which is not opened", path, remedy)


def what_stands(mode: int) -> str:
    """What stands at a path that is no regular file, in words, by its `st_mode`."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


# A living writer holds a lock on its temporary, which ends with its process; one whose lock can
# be had belongs to nobody.


def _temporary(target: Path) -> tuple[Path, int]:
    """A new, locked temporary file beside `target` and its open descriptor; those of dead writers
    are removed first."""
    for number in range(WRITERS):
        with _unowned(_beside(target, number, "tmp"), os.O_RDWR) as path:
            if path:
                path.unlink(missing_ok=True)
    for number in count():
        path = _beside(target, number, "tmp")
        with suppress(FileExistsError):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            if _locked(handle, path):
                return path, handle
            os.close(handle)
    raise AssertionError("unreachable")


def _beside(target: Path, number: int, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{number}.{suffix}")


def _locked(handle: int, path: Path) -> bool:
    """Lock an open file or folder; True where it is ours now and still the one at `path`."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: nothing is cleaned there, all else works
        pass
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


@contextmanager
def _unowned(path: Path, flags: int) -> Iterator[Path | None]:
    """Yield `path`, locked, where it is the leftover of a dead process; else None."""
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.path.samestat(os.fstat(handle), os.lstat(path))
    except OSError:
        ours = False
    try:
        yield path if ours else None
    finally:
        os.close(handle)


@contextmanager
def staging_folder(target: str | Path, mark: str, what: str = "folder") -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes its place on success; on failure what was
    there stays.

    mark: name of a file that says who wrote the folder; it is put in, and a folder of other things
    is left alone. Whatever killed runs for this target left is removed first, and the former folder
    put back where one of them had just moved it away. Raises VwsdError, calling the folder `what`,
    where it is not ours or cannot be written.
    """
    target = Path(os.path.realpath(target))
    handle = None
    try:
        _rescue(target)
        _own_folder(target, mark, what)
        target.parent.mkdir(parents=True, exist_ok=True)
        staging, handle = _staging(target)
    except OSError as e:
        raise unwritable(e, target, what) from e
    new, old = staging / "new", staging / "old"
    try:
        new.mkdir()
        (new / mark).write_text(f"{what}\n", encoding="utf-8")
        yield new
        if target.exists():
            target.rename(old)
        new.rename(target)
    except OSError as e:
        raise unwritable(e, e.filename or target, what) from e
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(staging, ignore_errors=True)
        os.close(handle)


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """Yield an empty folder of the system's temporary one, which goes afterwards; those of killed
    runs go too."""
    target = Path(tempfile.gettempdir()) / f"vwsd-{safe_name(name)}-{os.getuid()}"
    try:
        _rescue(target)
        staging, handle = _staging(target)
    except OSError as e:
        raise unwritable(e, target, "scratch folder") from e
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(handle)


def _own_folder(target: Path, mark: str, what: str) -> None:
    """VwsdError where `target` is there and neither empty nor written by us."""
    if not target.exists():
        return
    if target.is_dir() and ((target / mark).exists() or not any(target.iterdir())):
        return
    raise VwsdError(
        f"this is not a {what} that this command wrote, so it is left alone",
        target,
        "Give --out another folder.",
    )


def _rescue(target: Path) -> None:
    """Remove the staging folders of dead processes; put the former folder back that one of them had
    moved away."""
    for number in range(WRITERS):
        with _unowned(_beside(target, number, "staging"), os.O_RDONLY | os.O_DIRECTORY) as leftover:
            if leftover is None:
                continue
            if (leftover / "old").exists() and not target.exists():
                (leftover / "old").rename(target)
            shutil.rmtree(leftover, ignore_errors=True)


def _staging(target: Path) -> tuple[Path, int]:
    """A new, locked folder beside `target` and its open descriptor."""
    for number in count():
        path = _beside(target, number, "staging")
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            continue
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:  # taken for a leftover before it was locked
            continue
        if _locked(handle, path):
            return path, handle
        os.close(handle)
    raise AssertionError("unreachable")


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write `data` atomically; returns the path."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 `text` with LF line ends atomically; returns the path."""
    return write_bytes(path, text.encode("utf-8"))


def quiet() -> bool | None:
    """For tqdm's `disable`: True in CI and under the runner, whose executed notebooks must not
    depend on what was cached.
    """
    return True if os.environ.get("CI") or os.environ.get("TQDM_DISABLE") else None
