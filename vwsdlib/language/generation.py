"""What a local checkpoint is told when it writes, and what names its answers: every setting with its value, hashes of its files, versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from ..errors import VwsdError
from ..paths import sha256_bytes, sha256_file

SHIPPED = "as shipped"    # a setting that is read from the checkpoint's own files; its value stands in the identity
# All that generate() can be told and that could move an answer, with the library's default; the token ids are the checkpoint's.
DEFAULTS = {"num_beams": 1, "do_sample": False, "early_stopping": False, "length_penalty": 1.0, "no_repeat_ngram_size": 0, "repetition_penalty": 1.0,
            "renormalize_logits": False, "bad_words_ids": None, "forced_eos_token_id": None}
GREEDY = DEFAULTS | dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"), SHIPPED)
INSTALL = "Install what it needs: pip install 'vwsdlib[paper]' sentencepiece protobuf. If that is there, fetch the checkpoint again."


def settings_of(asked: Mapping, folder: Path) -> dict:
    """Every generation setting with its value; `SHIPPED` ones from generation_config.json, else config.json, else the library's default."""
    files = [folder / name for name in ("config.json", "generation_config.json") if (folder / name).exists()]
    shipped = {name: value for path in files for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    return {name: shipped.get(name, DEFAULTS.get(name)) if value == SHIPPED else value for name, value in {**GREEDY, **asked}.items()}


def local_facts(key: str, found, settings: Mapping, packages: Sequence[str], shapes: str) -> dict:
    """Identity of what a checkpoint (`checkpoints.find`) writes in float32; VwsdError names a package that is missing."""
    from ..encoders import checkpoints

    try:
        import torch

        versions = {name: version(name) for name in packages}
    except ImportError as e:
        raise VwsdError(f"generating text needs the package {e.name}", remedy=INSTALL) from e
    files = [p for p in sorted(found.folder.iterdir()) if p.suffix in (".json", ".model", ".spm", ".txt")]   # tokenizer and configuration
    return {"model": checkpoints.checkpoint(key).repo, "revision": found.revision, "weights_sha256": found.weights_sha256,
            "files_sha256": sha256_bytes("".join(p.name + sha256_file(p) for p in files).encode()), "settings": dict(settings), "versions": versions,
            "dtype": "float32", "device": "cuda" if torch.cuda.is_available() else "cpu", "shapes": shapes}
