"""PolCLIP on disk: one safetensors file a checkpoint, with its configuration and provenance in the
file's own header. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vwsdlib.errors import VwsdError
from vwsdlib.finite import DIVERGED, EARLIER
from vwsdlib.paths import refuse_special, sha256_bytes, write_bytes

from .config import Config
from .model import PolClip

AGAIN = (
    "Copy it again from where it was trained, or train again; without a whole state.safetensors a"
    " run starts anew."
)


def own_tensors(model: PolClip) -> dict[str, Tensor]:
    """What training changes, each tensor once: trained parameters, and where they stand in the
    following towers.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    follows = (
        {
            f"target.{name.removeprefix('backbone.')}"
            for name in trained
            if name.startswith("backbone.")
        }
        if model.target is not None
        else set()
    )
    return trained | {name: p for name, p in model.named_parameters() if name in follows}


def write_checkpoint(
    path: Path, model: PolClip, about: dict, more: dict[str, Tensor] | None = None
) -> Path:
    """Write what training changes (and `more`) with `about` in the header; whole or not at all."""
    tensors = {
        f"model/{name}": p.detach().cpu().contiguous() for name, p in own_tensors(model).items()
    }
    header = {"config": model.config.to_json(), "about": json.dumps(about, sort_keys=True)}
    return write_bytes(
        path,
        save(tensors | {k: v.detach().cpu().contiguous() for k, v in (more or {}).items()}, header),
    )


def read_checkpoint(path: str | Path) -> tuple[Config, dict, dict[str, Tensor]]:
    """(configuration, about, tensors by name) of a checkpoint; VwsdError where it is damaged or no
    checkpoint of PolCLIP.
    """
    if Path(path).is_dir():
        raise VwsdError(
            "this is a folder, a checkpoint file is needed",
            where=path,
            remedy="Give the file in it: best.safetensors or last.safetensors.",
        )
    refuse_special(path, "checkpoint")
    try:
        with safe_open(path, "pt") as f:
            header = f.metadata() or {}
            config, about = Config(**json.loads(header["config"])), _about(header["about"], path)
            return config, about, {name: f.get_tensor(name) for name in f.keys()}
    except FileNotFoundError:
        raise VwsdError(
            "no such checkpoint", where=path, remedy="Train one: vwsd train --help"
        ) from None
    except VwsdError as e:
        raise VwsdError(
            f"not a whole checkpoint of PolCLIP ({e.what})", where=path, remedy=AGAIN
        ) from e
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as e:
        raise VwsdError(f"not a whole checkpoint of PolCLIP ({e})", where=path, remedy=AGAIN) from e


def _about(text: str, path: str | Path) -> dict:
    """What a header says of a checkpoint's making, held against its form."""
    from pydantic import NonNegativeInt

    from vwsdlib.schema import Stored, parse

    class Backbone(Stored):
        weights_sha256: str

    class Facts(Stored):
        backbone: Backbone

    class Best(Stored):
        epoch: NonNegativeInt
        dev: dict[str, float]

    class About(Stored):
        facts: Facts
        step: NonNegativeInt
        epoch: NonNegativeInt = 0
        in_epoch: NonNegativeInt = 0
        best: Best | None = None

    parse(text.encode(), About, path, "header")
    return json.loads(text)


def tensors_sha256(tensors: dict[str, Tensor]) -> str:
    """Hash of names, types, shapes and numbers; a file's bytes will not do: safetensors writes the
    parts of its header in any order.
    """
    parts = [
        (
            f"{name} {its.dtype} {tuple(its.shape)}".encode(),
            its.flatten().view(torch.uint8).numpy().tobytes(),
        )
        for name, its in sorted(tensors.items())
    ]
    return sha256_bytes(b"".join(sha256_bytes(part).encode() for pair in parts for part in pair))


def check_weights(tensors: Mapping[str, Tensor], what: str, where: object = "") -> None:
    """VwsdError, naming the first such tensor, where a weight is NaN or infinite."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise VwsdError(
                f"{what} are not numbers, {name} the first: {DIVERGED}", where=where, remedy=EARLIER
            )


def put(model: PolClip, tensors: dict[str, Tensor], where: object = "") -> None:
    """Put a checkpoint's tensors into a model; VwsdError where names or shapes are not the model's,
    or weights no numbers.
    """
    mine, theirs = (
        own_tensors(model),
        {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")},
    )
    if set(mine) != set(theirs) or any(mine[name].shape != theirs[name].shape for name in mine):
        raise VwsdError(
            "the checkpoint was made for another model",
            where=where,
            remedy="Give the configuration and the backbone it was trained with.",
        )
    check_weights(theirs, "the checkpoint's weights", where)
    with torch.no_grad():
        for name, value in theirs.items():
            mine[name].copy_(value)


def load_polclip(path: str | Path) -> tuple[PolClip, dict]:
    """(model ready to be evaluated, about) from a checkpoint; the backbone it names must be at
    hand, with the very weights (else a VwsdError).
    """
    config, about, tensors = read_checkpoint(path)
    model = PolClip(config).eval()
    mine, theirs = (
        its["weights_sha256"] for its in (model.backbone.identity(), about["facts"]["backbone"])
    )
    if mine != theirs:
        raise VwsdError(
            f"the checkpoint was trained on other weights of {config.backbone} ({theirs[:12]}, here"
            f" {mine[:12]})",
            where=path,
            remedy="Fetch the weights it was trained on, or train again.",
        )
    put(model, tensors, path)
    return model, about
