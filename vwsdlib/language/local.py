"""Checkpoints on this machine that write text: what generate() is told, with every value in the
identity; their loading.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import device
from ..encoders import checkpoints
from ..errors import VwsdError, first_line
from ..paths import sha256_bytes, sha256_file

# a setting that is read from the checkpoint's own files; its value stands in the identity
SHIPPED = "as shipped"
# All that generate() can be told and that could move an answer, with the library's default; the
# token ids are the checkpoint's.
DEFAULTS = {
    "num_beams": 1,
    "do_sample": False,
    "early_stopping": False,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "renormalize_logits": False,
    "bad_words_ids": None,
    "forced_eos_token_id": None,
}
IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
GREEDY = DEFAULTS | dict.fromkeys(IDS, SHIPPED)
INSTALL = (
    "Install what it needs: pip install 'vwsdlib[paper]' sentencepiece protobuf. If that is there,"
    " fetch the checkpoint again."
)


def settings_of(asked: Mapping, folder: Path) -> dict:
    """Every generation setting with its value; `SHIPPED` ones from generation_config.json, else
    config.json, else the library's default.
    """
    from ..schema import read_json

    shipped: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        if (folder / name).exists():
            remedy = "Fetch the checkpoint again."
            shipped |= read_json(folder / name, dict[str, Any], "checkpoint's settings", remedy)
    settings = {**GREEDY, **asked}
    for name, value in settings.items():
        if value == SHIPPED:
            settings[name] = shipped.get(name, DEFAULTS.get(name))
    return settings


def local_facts(
    key: str, checkpoint, settings: Mapping, packages: Sequence[str], shapes: str
) -> dict:
    """Identity of what a checkpoint (`checkpoints.find`) writes in float32; VwsdError names a
    package that is missing.
    """
    try:
        here = device.choose()
        versions = {name: version(name) for name in packages}
    except ImportError as e:
        raise VwsdError(f"generating text needs the package {e.name}", remedy=INSTALL) from e
    kinds = (".json", ".model", ".spm", ".txt")  # tokenizer and configuration
    files = [p for p in sorted(checkpoint.folder.iterdir()) if p.suffix in kinds]
    return {
        "model": checkpoints.checkpoint(key).repo,
        "revision": checkpoint.revision,
        "weights_sha256": checkpoint.weights_sha256,
        "files_sha256": sha256_bytes("".join(p.name + sha256_file(p) for p in files).encode()),
        "settings": dict(settings),
        "versions": versions,
        "dtype": "float32",
        "device": here.partition(":")[0],
        **device.rounding(here),
        "shapes": shapes,
    }


def load_generator(folder: Path, kind: str, place: str, **told) -> tuple:
    """(tokenizer, model on the device `place`) of a checkpoint: `kind` is a class of transformers,
    `told` what the tokenizer is told. VwsdError where one of them cannot be read, or the device's
    memory does not hold it.
    """
    import transformers

    from ..encoders.networks import Network

    def load():
        model = getattr(transformers, kind).from_pretrained(**here, dtype="float32")
        return model.to(place).eval()

    transformers.utils.logging.disable_progress_bar()
    here = {"pretrained_model_name_or_path": folder, "local_files_only": True}
    try:
        with warnings.catch_warnings():  # Marian's tokenizer does not call it
            warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
            tokenizer = transformers.AutoTokenizer.from_pretrained(**here, **told)
        model = Network(load, folder.name, place)()
    except (ImportError, OSError, ValueError) as e:  # mT5's tokenizer asks, wrongly, for tiktoken
        raise VwsdError(
            f"the checkpoint cannot be loaded: {first_line(e)}", where=folder, remedy=INSTALL
        ) from e
    except VwsdError:
        raise
    except Exception as e:  # whatever damaged weights lead to, or pickled ones that are no tensors
        what = f"the checkpoint cannot be loaded: {first_line(e)}"
        raise VwsdError(what, where=folder, remedy=checkpoints.FETCH_AGAIN) from e
    return tokenizer, model


def tell(model, settings: Mapping) -> None:
    """Have generate() told exactly `settings`: replaced, not passed, as it fills gaps from the
    checkpoint's own.
    """
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(**settings)
