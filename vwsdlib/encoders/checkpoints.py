"""Published checkpoints: which, at which commit, where they are on disk, and that their bytes are the ones seen before.

A checkpoint is looked for in `$VWSD_MODELS` (a folder of folders, `<org>/<name>` or `<name>`), then in the Hugging Face cache, and only
where VWSD_MODELS is unset and HF_HUB_OFFLINE is not set on the hub, at the pinned commit.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from ..errors import VwsdError
from ..paths import cache_dir, quiet, sha256_bytes, sha256_file, write_text

CONFIGS = ("*.json", "*.txt", "*.model", "*.spm")                                    # configurations and tokenizers of every layout
SAFETENSORS = ("model.safetensors", "2_Dense/model.safetensors")
PICKLED = ("pytorch_model.bin", "2_Dense/pytorch_model.bin")                         # only where there is nothing else
KNOWN = Path(__file__).with_name("weights.json")                                     # {"<repo>@<commit>": SHA-256}, verified ones only


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint."""

    repo: str
    revision: str                        # commit; "main" where no commit could be confirmed by two independent sources
    megabytes: int                       # what fetching it takes, about
    licence: str


CHECKPOINTS: dict[str, Checkpoint] = {
    "clip-vit-b32": Checkpoint("openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268", 608, "MIT"),
    "clip-vit-b16": Checkpoint("openai/clip-vit-base-patch16", "57c216476eefef5ab752ec549e440a49ae4ae5f3", 602, "MIT"),
    "clip-vit-l14": Checkpoint("openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41", 1714, "MIT"),
    "clip-vit-l14-336": Checkpoint("openai/clip-vit-large-patch14-336", "ce19dc912ca5cd21c8a653c79e251e808ccabcd1", 1715, "MIT"),
    "clipseg-rd64": Checkpoint("CIDAS/clipseg-rd64-refined", "999e0328d9e10b484360c477313983f9afdd7050", 605, "Apache-2.0"),
    "siglip-multilingual": Checkpoint("google/siglip-base-patch16-256-multilingual", "8952a4eafcde3cb7ab46b1dd629b33f8784ca9c6", 1500, "Apache-2.0"),
    "siglip2-base": Checkpoint("google/siglip2-base-patch16-256", "3f9f96cb90da5dbc758b01813f2f6f1aee24c1ab", 1540, "Apache-2.0"),
    "siglip2-large": Checkpoint("google/siglip2-large-patch16-256", "787800c8990e6f058423089178e718139608408c", 3560, "Apache-2.0"),
    "siglip2-so400m": Checkpoint("google/siglip2-so400m-patch16-256", "e8708ab72d125807e45b36fb7d4e0aacbb59f379", 4580, "Apache-2.0"),
    "openclip-h14": Checkpoint("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "1c2b8495b28150b8a4922ee1c8edee224c284c0c", 3950, "MIT"),
    # text towers; their pictures are seen by clip-vit-b32
    "mclip": Checkpoint("M-CLIP/XLM-Roberta-Large-Vit-B-32", "main", 2260, "MIT (code; the card states none)"),           # commit not confirmed
    "clip-b32-multilingual": Checkpoint("sentence-transformers/clip-ViT-B-32-multilingual-v1", "main", 545, "Apache-2.0"),  # commit not confirmed
    # translators
    "opus-mt-it-en": Checkpoint("Helsinki-NLP/opus-mt-it-en", "main", 350, "Apache-2.0"),                                # commit not confirmed
    "mt5-fa-en": Checkpoint("persiannlp/mt5-base-parsinlu-opus-translation_fa_en", "main", 2335, "CC-BY-NC-SA-4.0"),     # commit not confirmed
    "nllb-200-600m": Checkpoint("facebook/nllb-200-distilled-600M", "f8d333a098d19b4fd9a8b18f94170487ad3f821d", 2480, "CC-BY-NC-4.0"),
    "nllb-200-1.3b": Checkpoint("facebook/nllb-200-distilled-1.3B", "7be3e24664b38ce1cac29b8aeed6911aa0cf0576", 5500, "CC-BY-NC-4.0"),
    # definer
    "qwen2.5-1.5b-instruct": Checkpoint("Qwen/Qwen2.5-1.5B-Instruct", "main", 3100, "Apache-2.0"),                       # commit not confirmed
}


@dataclass(frozen=True)
class Found:
    """A checkpoint on disk: its folder, its commit ("local" in `$VWSD_MODELS`) and the hash of its weights."""

    folder: Path
    revision: str
    weights_sha256: str


def checkpoint(key: str) -> Checkpoint:
    """Table line of a checkpoint; VwsdError lists the alternatives."""
    if key not in CHECKPOINTS:
        raise VwsdError(f"no checkpoint named {key!r}", remedy=f"Checkpoints: {', '.join(CHECKPOINTS)}.")
    return CHECKPOINTS[key]


def find(key: str) -> Found:
    """Folder, commit and weight hash of a checkpoint; VwsdError says how to get what is missing or names weights that are not as seen before."""
    its = checkpoint(key)
    folder = _local(its) or _cached(its)
    if folder is None and not os.environ.get("VWSD_MODELS") and not _offline():
        folder = fetch(key)
    if folder is None:
        raise VwsdError(f"the checkpoint {its.repo} is not here", where=os.environ.get("VWSD_MODELS") or "Hugging Face cache",
                        remedy=f"Get it ({its.megabytes} MB) with: vwsd fetch models --only {key}")
    revision = "local" if folder == _local(its) else folder.name
    return Found(folder, revision, _trusted_hash(its, key, folder, revision))


def present(key: str) -> tuple[bool, int]:
    """(is it on disk?, bytes of its weights, or of what fetching it takes), without network."""
    its = checkpoint(key)
    folder = _local(its) or _cached(its)
    return (True, sum(p.stat().st_size for p in weight_files(folder))) if folder else (False, its.megabytes * 10**6)


def fetch(key: str, progress: bool = True) -> Path:
    """Download a checkpoint into the Hugging Face cache, going on where an earlier try stopped; VwsdError when the hub cannot be reached."""
    its = checkpoint(key)
    try:
        for weights in (SAFETENSORS, PICKLED):
            folder = _snapshot(its, weights, tqdm_class=None if progress and not quiet() else _NoBar)
            if weight_files(folder):
                return folder
    except OSError as e:                                                              # the hub's own errors are among them
        raise VwsdError(f"{its.repo} at {its.revision[:12]} cannot be fetched: {str(e).splitlines()[0]}", where="Hugging Face hub",
                        remedy=f"Check the connection and HF_HUB_OFFLINE, then: vwsd fetch models --only {key}") from e
    raise VwsdError("there is neither model.safetensors nor pytorch_model.bin", where=its.repo, remedy="This is a fault of the table of checkpoints.")


class _NoBar(tqdm):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{**kwargs, "disable": True})


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _snapshot(its: Checkpoint, weights: tuple[str, ...], **options) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(its.repo, revision=its.revision, allow_patterns=[*CONFIGS, *weights], **options))


def _local(its: Checkpoint) -> Path | None:
    if not (models := os.environ.get("VWSD_MODELS")):
        return None
    folders = (Path(models).expanduser() / its.repo, Path(models).expanduser() / its.repo.split("/")[1])
    return next((f for f in folders if weight_files(f)), None)


def _cached(its: Checkpoint) -> Path | None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    for weights in (SAFETENSORS, PICKLED):
        try:
            folder = _snapshot(its, weights, local_files_only=True)
        except LocalEntryNotFoundError:                                               # absent, or cut off half-way
            continue
        if weight_files(folder):
            return folder
    return None


def weight_files(folder: Path) -> list[Path]:
    """The weight files that are loaded: for each part of a layout safetensors where there are some, else pickled ones."""
    parts = [[p for p in pair if p.is_file()] for pair in ((folder / s, folder / b) for s, b in zip(SAFETENSORS, PICKLED))]
    return [part[0] for part in parts if part] if parts[0] else []


def read_tensors(file: Path) -> dict:
    """Name -> tensor of one weight file, without building a model; pickled files may hold tensors only."""
    import torch
    from safetensors.torch import load_file

    return load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)


def _trusted_hash(its: Checkpoint, key: str, folder: Path, revision: str) -> str:
    """Hash of the weights: of the file itself where there is one, else of names and hashes. Compared unless the folder is the user's own."""
    memory = cache_dir() / "weights.json"
    notes = _read(memory)
    files = {str(p): [p.stat().st_size, p.stat().st_mtime_ns, None] for p in map(Path.absolute, weight_files(folder))}
    for path, note in files.items():
        old = notes.get("files", {}).get(path, [None] * 3)
        note[2] = old[2] if old[:2] == note[:2] else sha256_file(path)
    names = [f"{Path(path).relative_to(folder.absolute()).as_posix()} {note[2]}" for path, note in sorted(files.items())]
    digest = names[0].split()[-1] if len(names) == 1 else sha256_bytes("\n".join(names).encode())
    name, seen = f"{its.repo}@{revision}", notes.get("seen", {})
    expected = _read(KNOWN).get(name) or seen.get(name) or digest
    if revision != "local" and digest != expected:
        raise VwsdError(f"the weights of {name} are not the ones known: SHA-256 {digest[:16]}, {expected[:16]} expected", where=folder,
                        remedy=f"Delete the folder and fetch again: vwsd fetch models --only {key}")
    new = {"files": notes.get("files", {}) | files, "seen": seen if revision == "local" else seen | {name: digest}}
    if new != notes:
        write_text(memory, json.dumps(new, indent=1, sort_keys=True) + "\n")
    return digest


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):                                                     # none yet, or damaged: read the weights again
        return {}
