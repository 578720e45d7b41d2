"""Published checkpoints: which, at which commit, where they are on disk, and that their bytes are
the ones seen before.

A checkpoint is looked for in `$VWSD_MODELS` (a folder of folders, `<org>/<name>` or `<name>`), then
in the Hugging Face cache, and only where VWSD_MODELS is unset and HF_HUB_OFFLINE is not set on the
hub, at the pinned commit (`hub`). Its weights are safetensors, else pickled tensors, each in one
file or in shards that an index names, and so are those of a second part.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from ..data.sources import lasting, stamp
from ..errors import VwsdError, first_line
from ..paths import cache_dir, safe_name, sha256_bytes, sha256_file, write_text
from . import hub

CONFIGS = ("*.json", "*.txt", "*.model", "*.spm")  # configurations and tokenizers of every layout
FETCHED = re.compile(r"(\d_\w+/)?[^/]+\.(json|txt|model|spm)")  # those in a repository
PARTS = ("", "2_Dense/")  # folders of weights: the network's, and a linear map's after it
FORMS = ("model.safetensors", "pytorch_model.bin")  # pickled ones only where there is nothing else
INDEX = ".index.json"  # behind a form's name: which of its shards holds which tensor
MAIN = "main"
FETCH_AGAIN = "Fetch the checkpoint again: vwsd fetch models"
KNOWN = Path(__file__).with_name("weights.json")  # {"<repo>@<commit>": SHA-256}, verified ones only


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint."""

    repo: str
    # commit; "main" where none could be confirmed by two independent sources: what it is when it is
    # first used holds from then on
    revision: str
    megabytes: int  # what fetching it takes, about
    licence: str


TABLE = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8"))
CHECKPOINTS: dict[str, Checkpoint] = {key: Checkpoint(**line) for key, line in TABLE.items()}


@dataclass(frozen=True)
class OnDisk:
    """A checkpoint on disk: its folder, its commit ("local" in `$VWSD_MODELS`) and the hash of its
    weights.
    """

    folder: Path
    revision: str
    weights_sha256: str


def checkpoint(key: str) -> Checkpoint:
    """Table line of a checkpoint; VwsdError lists the alternatives."""
    if key not in CHECKPOINTS:
        raise VwsdError(
            f"no checkpoint named {key!r}", remedy=f"Checkpoints: {', '.join(CHECKPOINTS)}."
        )
    return CHECKPOINTS[key]


def find(key: str) -> OnDisk:
    """Folder, commit and weight hash of a checkpoint; VwsdError says how to get what is missing or
    names weights that are not as seen before.
    """
    line = checkpoint(key)
    local = _local(line)
    folder = local or _cached(line)
    if folder is None and not os.environ.get("VWSD_MODELS") and not hub.offline():
        folder = fetch(key)
    if folder is None:
        cut_off = hub.snapshot(line.repo, _commit(line))
        _refuse_missing(cut_off, f"Get the rest with: vwsd fetch models --only {key}")
        raise VwsdError(
            f"the checkpoint {line.repo} is not here",
            where=os.environ.get("VWSD_MODELS") or "Hugging Face cache",
            remedy=f"Get it ({line.megabytes} MB) with: vwsd fetch models --only {key}",
        )
    _refuse_missing(folder, "Copy all of the checkpoint's files there.")
    revision = "local" if folder == local else folder.name
    if revision != "local":
        _hold(line, folder)
    return OnDisk(folder, revision, _trusted_hash(line.repo, key, folder, revision))


def present(key: str) -> tuple[bool, int]:
    """(is it on disk?, bytes of its weights, or of what fetching it takes), without network."""
    line = checkpoint(key)
    try:
        folder = _local(line) or _cached(line)
    except VwsdError:  # `find` says it
        folder = None
    if folder is None or not _whole(folder):
        return False, line.megabytes * 10**6
    return True, sum(path.stat().st_size for path in weight_files(folder))


def bytes_missing(key: str) -> int:
    """What is still to be fetched of a checkpoint, about; 0 where it is here."""
    there, size = present(key)
    return 0 if there else max(0, size - hub.bytes_begun(checkpoint(key).repo))


def commit_of(key: str) -> str:
    """The commit that a checkpoint is read at from the hub's cache: the pinned one, else the one
    that `main` was when it was first used; empty before that.
    """
    return _commit(checkpoint(key))


def _commit(line: Checkpoint) -> str:
    return hub.held_commit(line.repo) if line.revision == MAIN else line.revision


def fetch(key: str, progress: bool = True) -> Path:
    """Download what is loaded of a checkpoint into the Hugging Face cache, going on where an
    earlier try stopped; its folder, or the one in `$VWSD_MODELS`, which is taken as it is.
    VwsdError as of `hub.download`.
    """
    line = checkpoint(key)
    here = _local(line) or (_cached(line) if hub.offline() else None)
    if here:
        return here
    again = f"vwsd fetch models --only {key}"
    choose = partial(_loaded, line.repo)
    folder = hub.download(line.repo, _commit(line) or MAIN, choose, again, progress)
    _hold(line, folder)
    _refuse_missing(folder, "The repository lacks it: choose another checkpoint.")
    return folder


def _hold(line: Checkpoint, folder: Path) -> None:
    if line.revision == MAIN:
        hub.hold(line.repo, folder.name)


def _loaded(repo: str, names: Sequence[str]) -> list[str]:
    """Those of a repository's files that are read, the weights last: who sees them sees all.
    VwsdError where there are no weights.
    """
    weights = [name for part in PARTS for name in _part_names(part, names)]
    if not _part_names(PARTS[0], names):
        raise VwsdError(
            "there is neither model.safetensors nor pytorch_model.bin",
            where=repo,
            remedy="This is a fault of the table of checkpoints.",
        )
    return [name for name in names if FETCHED.fullmatch(name)] + weights


def _part_names(part: str, names: Sequence[str]) -> list[str]:
    for form in FORMS:
        if part + form in names:
            return [part + form]
        if part + form + INDEX in names:
            stem, _, ending = form.partition(".")
            shard = re.compile(rf"{part}{stem}-\d+-of-\d+\.{ending}")
            return [name for name in names if shard.fullmatch(name)]
    return []


def _local(line: Checkpoint) -> Path | None:
    models = os.environ.get("VWSD_MODELS")
    if not models:
        return None
    names = (line.repo, line.repo.split("/")[1])
    folders = [Path(models).expanduser() / name for name in names]
    return next((folder for folder in folders if weight_files(folder)), None)


def _cached(line: Checkpoint) -> Path | None:
    """Folder in the hub's cache where all weights are there. It is the folder that counts, not what
    a newer version of a library would have fetched beside them.
    """
    commit = _commit(line)
    folder = hub.snapshot(line.repo, commit)
    return folder if commit and _whole(folder) else None


def weight_files(folder: Path) -> list[Path]:
    """The weight files that are loaded, part by part (`part_files`); none where the first part has
    none.
    """
    parts = [part_files(folder, part) for part in PARTS]
    return [file for files in parts for file in files] if parts[0] else []


def part_files(folder: Path, part: str = "") -> list[Path]:
    """The weight files of one part of a layout: safetensors where there are some, else pickled
    ones; where it is in shards, all that the index names, there or not. VwsdError for a damaged
    index.
    """
    for form in FORMS:
        whole, index = folder / part / form, folder / part / (form + INDEX)
        if whole.is_file():
            return [whole]
        if index.is_file():
            return [index.with_name(name) for name in _shards(index)]
    return []


def _shards(index: Path) -> list[str]:
    try:
        shard_of = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return [safe_name(name, index) for name in sorted(set(shard_of.values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        what = f"the index of the shards cannot be read: {first_line(e)}"
        raise VwsdError(what, where=index, remedy=FETCH_AGAIN) from e


def _whole(folder: Path) -> bool:
    try:
        files = weight_files(folder)
    except VwsdError:  # a damaged index
        return False
    return bool(files) and all(file.is_file() for file in files)


def _refuse_missing(folder: Path, remedy: str) -> None:
    files = weight_files(folder)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        what = f"{len(missing)} of {len(files)} shards are missing: {', '.join(missing[:3])}"
        raise VwsdError(what, where=folder, remedy=remedy)


def read_part(folder: Path, part: str = "") -> dict:
    """Name -> tensor of one part of a layout, from all of its files (`read_tensors`)."""
    tensors = {}
    for file in part_files(folder, part):
        tensors |= read_tensors(file)
    return tensors


def read_tensors(file: Path) -> dict:
    """Name -> tensor of one weight file, without building a model; pickled files may hold tensors
    only.

    VwsdError where the file cannot be read, or holds tensors that are no plain numbers in memory
    (sparse, quantised, without data).
    """
    import torch
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            tensors = load_file(file)
        else:
            tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as e:  # pickle, zip and torch raise what they like
        what = f"the weight file cannot be read: {first_line(e)}"
        raise VwsdError(what, where=file, remedy=FETCH_AGAIN) from e
    if not isinstance(tensors, dict):
        what = f"the weight file holds no tensors by name but {type(tensors).__name__}"
        raise VwsdError(what, where=file, remedy=FETCH_AGAIN)
    for name, tensor in tensors.items():
        odd = _odd_tensor(tensor)
        if odd:
            raise VwsdError(f"the weight {str(name)!r} is {odd}", where=file, remedy=FETCH_AGAIN)
    return tensors


def _odd_tensor(tensor) -> str:
    """Why a tensor cannot be used as it is; empty where it can."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        return f"no tensor but {type(tensor).__name__}"
    if tensor.is_meta:
        return "a tensor without numbers"
    if tensor.layout != torch.strided:
        return "a sparse tensor"
    if tensor.is_quantized:
        return "a quantised tensor"
    stored = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > stored:
        return f"a tensor of {tensor.numel():,} numbers over {stored:,} bytes"
    return ""


def stored_numbers(folder: Path) -> int:
    """How many numbers a folder's weight files can hold at most, by their sizes: two bytes each are
    the least that is published.
    """
    return sum(path.stat().st_size for path in weight_files(folder)) // 2


def files_sha256(folder: Path) -> str:
    """Hash of what decides a vector beside the weights: configurations and the tokenizer's files,
    those of CONFIGS in the folder and one below.
    """
    names = {}
    for pattern in CONFIGS:
        for path in (*folder.glob(pattern), *folder.glob(f"*/{pattern}")):
            if path.is_file():
                names[path.relative_to(folder).as_posix()] = path
    lines = [f"{name} {sha256_file(names[name])}\n" for name in sorted(names)]
    return sha256_bytes("".join(lines).encode())


def _trusted_hash(repo: str, key: str, folder: Path, revision: str) -> str:
    """Hash of the weights: of the file itself where there is one, else of names and hashes.
    Compared unless the folder is the user's own.
    """
    memory = cache_dir() / "weights.json"
    files, seen = _remembered(memory)
    hashed = {}  # path -> (stamp, SHA-256)
    for path in [str(path.absolute()) for path in weight_files(folder)]:
        state = stamp(path)
        known_state, known = files.get(path, ("", ""))
        hashed[path] = (state, known if known_state == state else sha256_file(path))
    digest = _one_digest(folder, {path: digest for path, (_, digest) in hashed.items()})
    kept = files | {path: note for path, note in hashed.items() if lasting(note[0])}
    if revision == "local":
        new = (kept, seen)
    else:
        name = f"{repo}@{revision}"
        _compare(name, digest, seen, key, folder)
        new = (kept, seen | {name: digest})
    if new != (files, seen):
        notes = {"files": new[0], "seen": new[1]}
        write_text(memory, json.dumps(notes, indent=1, sort_keys=True) + "\n")
    return digest


def _one_digest(folder: Path, digests: dict[str, str]) -> str:
    if len(digests) == 1:
        return next(iter(digests.values()))
    names = []
    for path, digest in sorted(digests.items()):
        names.append(f"{Path(path).relative_to(folder.absolute()).as_posix()} {digest}")
    return sha256_bytes("\n".join(names).encode())


def _compare(name: str, digest: str, seen: dict[str, str], key: str, folder: Path) -> None:
    """VwsdError where the weights of `name` are not those published, or not those seen before."""
    published = json.loads(KNOWN.read_text(encoding="utf-8"))
    expected = published.get(name) or seen.get(name) or digest
    if digest != expected:
        raise VwsdError(
            f"the weights of {name} are not the ones known: SHA-256 {digest[:16]}, {expected[:16]}"
            " expected",
            where=folder,
            remedy=f"Delete the folder and fetch again: vwsd fetch models --only {key}",
        )


def _remembered(path: Path) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """What is remembered of weight files: path -> stamp and SHA-256, and name -> SHA-256 seen."""
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
        seen = {str(name): str(digest) for name, digest in notes["seen"].items()}
        pairs = {name: tuple(note) for name, note in notes["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # none yet, or damaged: the weights are read again
        return {}, {}
    # notes of three are an older version's
    return {name: note for name, note in pairs.items() if len(note) == 2}, seen
