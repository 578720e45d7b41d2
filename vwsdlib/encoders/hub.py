"""The Hugging Face hub: what a repository holds at a commit, and its files into the hub's own
cache, going on where an earlier try stopped.

Files come over plain HTTP in ranges: huggingface_hub keeps nothing of a file that was cut off,
neither over HTTP nor through Xet. The cache is laid out as its documentation says, so that other
tools find what is fetched here.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..disk import nearest
from ..errors import VwsdError, first_line
from ..paths import REMEDIES, quiet, safe_name, sha256_file, unwritable, write_text
from ..progress import Bar, tqdm

FIRST_SECONDS, READ_SECONDS = 5, 30  # to wait for the hub's first answer, and for further bytes
PAUSES = (1, 4, 15, 60)  # seconds before the next tries of a file
STEADY = 16 << 20  # bytes of one try after which the tries are counted anew
LONGEST_WAIT = 120  # seconds that are waited where the hub asks for a pause; a longer one is said
HELD = "vwsd"  # the reference beside `main` in the cache: the commit that `main` was at first
COMMIT = re.compile("[0-9a-f]{40}")
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: path in it, bytes, its name in the cache, and whether that name is
    the SHA-256 of its bytes, as it is of large files.
    """

    name: str
    size: int
    etag: str
    hashed: bool


def hub_folder() -> Path:
    """The hub's cache (`HF_HUB_CACHE`, else below `HF_HOME`)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def offline() -> str:
    """The variable that forbids to ask the hub (`HF_HUB_OFFLINE`); empty where none does."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return name
    return ""


def snapshot(repo: str, commit: str) -> Path:
    """Folder of a repository's files at a commit, whether it is there or not."""
    return _store(repo) / "snapshots" / commit


def _store(repo: str) -> Path:
    return hub_folder() / f"models--{repo.replace('/', '--')}"


def held_commit(repo: str) -> str:
    """The commit that `main` of a repository stands for here: the one recorded when it was first
    used, else the one that the cache knows; empty where there is none.
    """
    for name in (HELD, "main"):
        path = _store(repo) / "refs" / name
        commit = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        if COMMIT.fullmatch(commit.strip()):
            return commit.strip()
    return ""


def hold(repo: str, commit: str) -> None:
    """Record the commit that `main` stands for from now on, unless one is recorded; a cache that
    cannot be written keeps what it has.
    """
    path = _store(repo) / "refs" / HELD
    if not path.is_file() and os.access(nearest(path), os.W_OK):
        write_text(path, commit)


def bytes_begun(repo: str) -> int:
    """Bytes of a repository's files that were cut off and will go on."""
    return sum(part.stat().st_size for part in (_store(repo) / "blobs").glob("*.incomplete"))


def check_room(wanted: int, what: str) -> None:
    """VwsdError, with the gigabytes that are missing, where `wanted` bytes do not fit on the disk
    of the hub's cache.
    """
    folder = hub_folder()
    free = shutil.disk_usage(nearest(folder)).free
    if wanted > free:
        raise VwsdError(
            f"{what} takes {wanted / 1e9:.1f} GB and {free / 1e9:.1f} GB are free:"
            f" {(wanted - free) / 1e9:.1f} GB are missing",
            where=folder,
            remedy="Free some space, or name a folder on another disk: HF_HOME=FOLDER.",
        )


def download(
    repo: str,
    revision: str,
    choose: Callable[[Sequence[str]], list[str]],
    again: str,
    progress: bool = True,
) -> Path:
    """The files that `choose` picks of a repository's names, in the cache; returns their folder.

    What is there is not fetched again, and a file that was cut off goes on at its last byte. The
    files appear in the folder in the order chosen, when all are here. again: the command that a
    message names. VwsdError, with a remedy that fits, for a refusal, a connection that drops again
    and again, and a disk that is too small.
    """
    files: list[RemoteFile] = []
    try:
        variable = offline()
        if variable:
            said = _sentence(repo, revision, f"{variable} is set")
            raise VwsdError(*said, f"Unset it, then: {again}")
        commit, remote = _patiently(lambda: listing(repo, revision), pauses=())
        files += [remote[name] for name in choose(list(remote))]
        _take(repo, commit, files, progress)
    except VwsdError:
        raise
    except Exception as e:  # the client raises its own errors and those of its HTTP library
        if getattr(e, "errno", None) in REMEDIES:
            raise unwritable(e, hub_folder(), "checkpoint") from e
        reason, remedy = _refused(e, repo, again) or _broken(e, repo, files, again)
        raise VwsdError(*_sentence(repo, revision, reason), remedy) from e
    return snapshot(repo, commit)


def listing(repo: str, revision: str) -> tuple[str, dict[str, RemoteFile]]:
    """(commit, files by name) of a repository, by one question without further tries: who has no
    network learns it in seconds. Raises what the client does.
    """
    from huggingface_hub import HfApi

    info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=FIRST_SECONDS)
    files = {}
    for sibling in info.siblings or ():
        etag = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        files[sibling.rfilename] = RemoteFile(
            sibling.rfilename, sibling.size or 0, safe_name(etag, repo), bool(sibling.lfs)
        )
    return safe_name(info.sha, repo), files


def _take(repo: str, commit: str, files: list[RemoteFile], progress: bool) -> None:
    """Fetch what is missing of `files`, one process at a time, then put all of them in place."""
    from filelock import FileLock
    from huggingface_hub import hf_hub_url

    folder, blobs = snapshot(repo, commit), _store(repo) / "blobs"
    if not _absent(folder, files):  # nor is anything written, say to a cache that many share
        return
    lock = hub_folder() / ".locks" / f"{_store(repo).name}.vwsd.lock"
    for place in (lock.parent, blobs):
        place.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        absent = _absent(folder, files)
        size, here = sum(file.size for file in absent), _bytes_here(repo, absent)
        check_room(size - here, repo)
        shown = {"unit": "B", "unit_scale": True, "disable": quiet() if progress else True}
        with tqdm(desc=repo, total=size, initial=here, **shown) as bar:
            for file in absent:
                url = hf_hub_url(repo, file.name, revision=commit)
                _bring(url, blobs / file.etag, file, bar)
        for file in absent:
            _link(blobs / file.etag, folder / file.name)


def _absent(folder: Path, files: list[RemoteFile]) -> list[RemoteFile]:
    return [file for file in files if not _whole(folder / file.name, file)]


def _bring(url: str, blob: Path, file: RemoteFile, bar: Bar) -> None:
    if not _whole(blob, file):
        part = _part(blob)
        _patiently(lambda: _go_on(url, part, file, bar), PAUSES, part)
        part.replace(blob)


def _part(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.incomplete")


def _bytes_here(repo: str, files: list[RemoteFile]) -> int:
    """Bytes of files that are in the cache, whole or in part."""
    here = 0
    for file in files:
        blob = _store(repo) / "blobs" / file.etag
        here += file.size if _whole(blob, file) else _size(_part(blob))
    return here


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _whole(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def _link(blob: Path, pointer: Path) -> None:
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.unlink(missing_ok=True)
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:  # a file system without links
        blob.replace(pointer)


def _go_on(url: str, part: Path, file: RemoteFile, bar: Bar) -> None:
    """Append to `part` what is missing of a file. ConnectionError where less came than was
    announced, or other bytes.
    """
    have = _size(part)
    if have < file.size or not part.exists():
        _append(url, part, have, bar)
    came = _size(part)
    if came < file.size:
        raise ConnectionError(f"{came:,} of {file.size:,} bytes of {file.name} came")
    if came > file.size or file.hashed and sha256_file(part) != file.etag:
        part.unlink()
        bar.update(-came)
        raise ConnectionError(f"other bytes came than those of {file.name}")


def _append(url: str, part: Path, have: int, bar: Bar) -> None:
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with get_session().stream("GET", url, headers=headers, timeout=READ_SECONDS) as response:
        hf_raise_for_status(response)
        goes_on = response.status_code == 206
        if not goes_on:
            bar.update(-have)
        with part.open("ab" if goes_on else "wb") as f:
            for chunk in response.iter_bytes():
                bar.update(f.write(chunk))
                f.flush()  # a kill loses nothing that came


def _patiently(ask: Callable, pauses: Sequence[float], part: Path | None = None):
    """What `ask` returns; after an error that may pass, again after a pause. A try that brought
    STEADY bytes into `part` begins the count anew.
    """
    tries = 0
    while True:
        before = _size(part) if part else 0
        try:
            return ask()
        except Exception as e:
            steady = part is not None and _size(part) - before >= STEADY
            tries = 1 if steady else tries + 1
            wait = _wait(e, pauses, tries)
            if wait is None:
                raise
        time.sleep(wait)


def _wait(error: Exception, pauses: Sequence[float], tries: int) -> float | None:
    """Seconds to wait before the next try; None where there is none to be made."""
    from huggingface_hub.errors import HTTPError, XetDownloadError

    passing = isinstance(error, (OSError, RuntimeError, HTTPError, XetDownloadError))
    if not passing or tries > len(PAUSES) or getattr(error, "errno", None) in REMEDIES:
        return None
    status, asked = _answer(error)
    if status == 429:
        wait = max(asked, PAUSES[tries - 1])
        return wait if wait <= LONGEST_WAIT else None
    refused = 400 <= status < 500 and status != 408
    return None if refused or tries > len(pauses) else pauses[tries - 1]


def _answer(error: BaseException) -> tuple[int, int]:
    """(HTTP status of an error, seconds that the hub asks to wait), each 0 where it has none."""
    response = getattr(error, "response", None)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    status = getattr(response, "status_code", 0)
    return status, int(asked) if asked.isdecimal() else 0


def _sentence(repo: str, revision: str, reason: str) -> tuple[str, str]:
    return f"{repo} at {revision[:12]} cannot be fetched: {reason}", "Hugging Face hub"


def _refused(e: Exception, repo: str, again: str) -> tuple[str, str] | None:
    """(reason, remedy) of a hub that answers, but not with what it was asked for."""
    from huggingface_hub import constants

    status, asked = _answer(e)
    page = f"{constants.ENDPOINT}/{repo}"
    later = f"what came is kept, and {again} goes on there."
    if status in (401, 403):
        reason = f"the hub shows it only to those whom its owners let in ({status})"
        return reason, f"Ask for access at {page} and log in: hf auth login (or set HF_TOKEN)."
    if status == 404:
        reason = "the hub does not have it (404)"
        return reason, f"It was moved or withdrawn: put a copy into $VWSD_MODELS/{repo}."
    if status == 429:
        pause = f"{asked} seconds" if asked else "some minutes"
        return f"the hub asks for a pause of {pause} (429)", f"Wait that long; {later}"
    if status >= 500:
        return f"the hub itself fails ({status})", f"Wait until {page} opens; {later}"
    return None


def _broken(e: Exception, repo: str, files: list[RemoteFile], again: str) -> tuple[str, str]:
    """(reason, remedy) of a connection that could not be made, or dropped."""
    said = first_line(e)
    if files:
        size = sum(file.size for file in files)
        came = f"{_bytes_here(repo, files) / 1e6:,.1f} of {size / 1e6:,.1f} MB"
        return (
            f"the download stopped at {came}: {said}",
            f"What came is kept: {again} goes on there.",
        )
    proxies = urllib.request.getproxies()
    proxy = next((name for name in PROXIES if name.removesuffix("_PROXY").lower() in proxies), "")
    if proxy and "Connect" in type(e).__name__ or "Proxy" in type(e).__name__:
        return f"the proxy does not answer: {said}", f"Correct {proxy}, or unset it."
    return said, f"Check the connection and HF_HUB_OFFLINE, then: {again}"
