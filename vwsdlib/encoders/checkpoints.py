"""Published checkpoints: which, at which commit, where they are on disk, and that their bytes are
the ones seen before.

A checkpoint is looked for in `$VWSD_MODELS` (a folder of folders, `<org>/<name>` or `<name>`), then
in the Hugging Face cache, and only where VWSD_MODELS is unset and HF_HUB_OFFLINE is not set on the
hub, at the pinned commit.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from ..data.sources import lasting, stamp
from ..errors import VwsdError, first_line
from ..paths import cache_dir, quiet, sha256_bytes, sha256_file, write_text

CONFIGS = ("*.json", "*.txt", "*.model", "*.spm")  # configurations and tokenizers of every layout
SAFETENSORS = ("model.safetensors", "2_Dense/model.safetensors")
PICKLED = ("pytorch_model.bin", "2_Dense/pytorch_model.bin")  # only where there is nothing else
HUB_SECONDS = 5  # to wait for the hub's first answer
KNOWN = Path(__file__).with_name("weights.json")  # {"<repo>@<commit>": SHA-256}, verified ones only


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint."""

    repo: str
    revision: str  # commit; "main" where no commit could be confirmed by two independent sources
    megabytes: int  # what fetching it takes, about
    licence: str


CHECKPOINTS: dict[str, Checkpoint] = {
    "clip-vit-b32": Checkpoint(
        "openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268", 608, "MIT"
    ),
    "clip-vit-b16": Checkpoint(
        "openai/clip-vit-base-patch16", "57c216476eefef5ab752ec549e440a49ae4ae5f3", 602, "MIT"
    ),
    "clip-vit-l14": Checkpoint(
        "openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41", 1714, "MIT"
    ),
    "clip-vit-l14-336": Checkpoint(
        "openai/clip-vit-large-patch14-336", "ce19dc912ca5cd21c8a653c79e251e808ccabcd1", 1715, "MIT"
    ),
    "clipseg-rd64": Checkpoint(
        "CIDAS/clipseg-rd64-refined", "999e0328d9e10b484360c477313983f9afdd7050", 605, "Apache-2.0"
    ),
    "siglip-multilingual": Checkpoint(
        "google/siglip-base-patch16-256-multilingual",
        "8952a4eafcde3cb7ab46b1dd629b33f8784ca9c6",
        1500,
        "Apache-2.0",
    ),
    "siglip2-base": Checkpoint(
        "google/siglip2-base-patch16-256",
        "3f9f96cb90da5dbc758b01813f2f6f1aee24c1ab",
        1540,
        "Apache-2.0",
    ),
    "siglip2-large": Checkpoint(
        "google/siglip2-large-patch16-256",
        "787800c8990e6f058423089178e718139608408c",
        3560,
        "Apache-2.0",
    ),
    "siglip2-so400m": Checkpoint(
        "google/siglip2-so400m-patch16-256",
        "e8708ab72d125807e45b36fb7d4e0aacbb59f379",
        4580,
        "Apache-2.0",
    ),
    "openclip-h14": Checkpoint(
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        "1c2b8495b28150b8a4922ee1c8edee224c284c0c",
        3950,
        "MIT",
    ),
    # text towers; their pictures are seen by clip-vit-b32
    "mclip": Checkpoint(
        "M-CLIP/XLM-Roberta-Large-Vit-B-32", "main", 2260, "MIT (code; the card states none)"
    ),  # commit not confirmed
    "clip-b32-multilingual": Checkpoint(
        "sentence-transformers/clip-ViT-B-32-multilingual-v1", "main", 545, "Apache-2.0"
    ),  # commit not confirmed
    # translators
    "opus-mt-it-en": Checkpoint(
        "Helsinki-NLP/opus-mt-it-en", "main", 350, "Apache-2.0"
    ),  # commit not confirmed
    "mt5-fa-en": Checkpoint(
        "persiannlp/mt5-base-parsinlu-opus-translation_fa_en", "main", 2335, "CC-BY-NC-SA-4.0"
    ),  # commit not confirmed
    "nllb-200-600m": Checkpoint(
        "facebook/nllb-200-distilled-600M",
        "f8d333a098d19b4fd9a8b18f94170487ad3f821d",
        2480,
        "CC-BY-NC-4.0",
    ),
    "nllb-200-1.3b": Checkpoint(
        "facebook/nllb-200-distilled-1.3B",
        "7be3e24664b38ce1cac29b8aeed6911aa0cf0576",
        5500,
        "CC-BY-NC-4.0",
    ),
    # definer
    "qwen2.5-1.5b-instruct": Checkpoint(
        "Qwen/Qwen2.5-1.5B-Instruct", "main", 3100, "Apache-2.0"
    ),  # commit not confirmed
}


@dataclass(frozen=True)
class Found:
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


def find(key: str) -> Found:
    """Folder, commit and weight hash of a checkpoint; VwsdError says how to get what is missing or
    names weights that are not as seen before.
    """
    its = checkpoint(key)
    folder = _local(its) or _cached(its)
    if folder is None and not os.environ.get("VWSD_MODELS") and not _offline():
        folder = fetch(key)
    if folder is None:
        raise VwsdError(
            f"the checkpoint {its.repo} is not here",
            where=os.environ.get("VWSD_MODELS") or "Hugging Face cache",
            remedy=f"Get it ({its.megabytes} MB) with: vwsd fetch models --only {key}",
        )
    revision = "local" if folder == _local(its) else folder.name
    return Found(folder, revision, _trusted_hash(its, key, folder, revision))


def present(key: str) -> tuple[bool, int]:
    """(is it on disk?, bytes of its weights, or of what fetching it takes), without network."""
    its = checkpoint(key)
    folder = _local(its) or _cached(its)
    return (
        (True, sum(p.stat().st_size for p in weight_files(folder)))
        if folder
        else (False, its.megabytes * 10**6)
    )


def fetch(key: str, progress: bool = True) -> Path:
    """Download a checkpoint into the Hugging Face cache, going on where an earlier try stopped;
    VwsdError when the hub cannot be reached.
    """
    its = checkpoint(key)
    try:
        _reach_hub()
        for weights in (SAFETENSORS, PICKLED):
            folder = _snapshot(
                its, weights, tqdm_class=None if progress and not quiet() else _NoBar
            )
            if weight_files(folder):
                return folder
    except (
        Exception
    ) as e:  # the hub's client raises OSErrors, its own errors and those of its HTTP library
        raise VwsdError(
            f"{its.repo} at {its.revision[:12]} cannot be fetched: {first_line(e)}",
            where="Hugging Face hub",
            remedy=f"Check the connection and HF_HUB_OFFLINE, then: vwsd fetch models --only {key}",
        ) from e
    raise VwsdError(
        "there is neither model.safetensors nor pytorch_model.bin",
        where=its.repo,
        remedy="This is a fault of the table of checkpoints.",
    )


def _reach_hub() -> None:
    """One question to the hub, without the client's five further tries: who has no network learns
    it in seconds. Raises what the client does.
    """
    from huggingface_hub import constants, logging, utils

    logging.set_verbosity_error()  # what it would say of each try is said once, by the error
    if not constants.HF_HUB_OFFLINE:
        utils.get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)


class _NoBar(tqdm):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{**kwargs, "disable": True})


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _snapshot(its: Checkpoint, weights: tuple[str, ...], **options) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            its.repo, revision=its.revision, allow_patterns=[*CONFIGS, *weights], **options
        )
    )


def _local(its: Checkpoint) -> Path | None:
    if not (models := os.environ.get("VWSD_MODELS")):
        return None
    folders = (
        Path(models).expanduser() / its.repo,
        Path(models).expanduser() / its.repo.split("/")[1],
    )
    return next((f for f in folders if weight_files(f)), None)


def _cached(its: Checkpoint) -> Path | None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    for weights in (SAFETENSORS, PICKLED):
        try:
            folder = _snapshot(its, weights, local_files_only=True)
        except LocalEntryNotFoundError:  # absent, or cut off half-way
            continue
        if weight_files(folder):
            return folder
    return None


def weight_files(folder: Path) -> list[Path]:
    """The weight files that are loaded: for each part of a layout safetensors where there are some,
    else pickled ones.
    """
    parts = [
        [p for p in pair if p.is_file()]
        for pair in ((folder / s, folder / b) for s, b in zip(SAFETENSORS, PICKLED))
    ]
    return [part[0] for part in parts if part] if parts[0] else []


def read_tensors(file: Path) -> dict:
    """Name -> tensor of one weight file, without building a model; pickled files may hold tensors
    only.

    VwsdError where the file cannot be read, or holds tensors that are no plain numbers in memory
    (sparse, quantised, without data).
    """
    import torch
    from safetensors.torch import load_file

    again = "Fetch the checkpoint again: vwsd fetch models"
    try:
        read = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except Exception as e:  # pickle, zip and torch raise what they like
        raise VwsdError(
            f"the weight file cannot be read: {first_line(e)}", where=file, remedy=again
        ) from e
    if not isinstance(read, dict):
        raise VwsdError(
            f"the weight file holds no tensors by name but {type(read).__name__}",
            where=file,
            remedy=again,
        )
    for name, tensor in read.items():
        odd = _odd_tensor(tensor)
        if odd:
            raise VwsdError(f"the weight {str(name)!r} is {odd}", where=file, remedy=again)
    return read


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
    files = {
        path
        for pattern in CONFIGS
        for path in (*folder.glob(pattern), *folder.glob(f"*/{pattern}"))
        if path.is_file()
    }
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return sha256_bytes(
        "".join(f"{name} {sha256_file(names[name])}\n" for name in sorted(names)).encode()
    )


def _trusted_hash(its: Checkpoint, key: str, folder: Path, revision: str) -> str:
    """Hash of the weights: of the file itself where there is one, else of names and hashes.
    Compared unless the folder is the user's own.
    """
    memory = cache_dir() / "weights.json"
    notes = _read(memory)
    files = {}  # path -> (stamp, SHA-256)
    for path in map(str, map(Path.absolute, weight_files(folder))):
        state = stamp(path)
        old = notes["files"].get(path, ("", ""))
        files[path] = old if old[0] == state else (state, sha256_file(path))
    names = [
        f"{Path(path).relative_to(folder.absolute()).as_posix()} {digest}"
        for path, (_, digest) in sorted(files.items())
    ]
    digest = names[0].split()[-1] if len(names) == 1 else sha256_bytes("\n".join(names).encode())
    name, seen = f"{its.repo}@{revision}", notes["seen"]
    expected = json.loads(KNOWN.read_text(encoding="utf-8")).get(name) or seen.get(name) or digest
    if revision != "local" and digest != expected:
        raise VwsdError(
            f"the weights of {name} are not the ones known: SHA-256 {digest[:16]}, {expected[:16]}"
            " expected",
            where=folder,
            remedy=f"Delete the folder and fetch again: vwsd fetch models --only {key}",
        )
    lasting_ones = {path: note for path, note in files.items() if lasting(note[0])}
    new = {
        "files": notes["files"] | lasting_ones,
        "seen": seen if revision == "local" else seen | {name: digest},
    }
    if new != notes:
        write_text(memory, json.dumps(new, indent=1, sort_keys=True) + "\n")
    return digest


def _read(path: Path) -> dict:
    """What is remembered of weight files: `files` (path -> stamp and SHA-256) and `seen` (name ->
    SHA-256).
    """
    nothing = {"files": {}, "seen": {}}
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
        seen = {str(name): str(digest) for name, digest in notes["seen"].items()}
        files = {
            name: tuple(note) for name, note in notes["files"].items() if len(note) == 2
        }  # notes of three are an older version's
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ):  # none yet, or damaged: read the weights again
        return nothing
    return {"files": files, "seen": seen}
