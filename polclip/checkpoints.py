"""PolCLIP on disk: one safetensors file a checkpoint, with its configuration and provenance in the
file's own header. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import NonNegativeInt
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vwsdlib import device
from vwsdlib.errors import VwsdError
from vwsdlib.finite import DIVERGED, EARLIER
from vwsdlib.paths import refuse_special, sha256_bytes, write_bytes
from vwsdlib.schema import Stored, parse

from .config import Config
from .model import PolClip

AGAIN = (
    "Copy it again from where it was trained, or train again; without a whole state.safetensors a"
    " run starts anew."
)


class _Backbone(Stored):
    weights_sha256: str


class _Facts(Stored):
    backbone: _Backbone


class _Best(Stored):
    epoch: NonNegativeInt
    dev: dict[str, float]


class _About(Stored):
    """What a header says of a checkpoint's making."""

    facts: _Facts
    step: NonNegativeInt
    epoch: NonNegativeInt = 0
    in_epoch: NonNegativeInt = 0
    best: _Best | None = None


def own_tensors(model: PolClip) -> dict[str, Tensor]:
    """What training changes, each tensor once: trained parameters, and where they stand in the
    following towers.
    """
    parameters = dict(model.named_parameters())
    trained: dict[str, Tensor] = {name: p for name, p in parameters.items() if p.requires_grad}
    for name in list(trained):
        follower = name.replace("backbone.", "target.", 1)
        if name.startswith("backbone.") and follower in parameters:
            trained[follower] = parameters[follower]
    return trained


def write_checkpoint(
    path: Path, model: PolClip, about: dict, more: Mapping[str, Tensor] | None = None
) -> Path:
    """Write what training changes (and `more`) with `about` in the header; whole or not at all."""
    tensors = {f"model/{name}": p for name, p in own_tensors(model).items()} | dict(more or {})
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"config": model.config.to_json(), "about": json.dumps(about, sort_keys=True)}
    return write_bytes(path, save(plain, header))


def read_checkpoint(path: str | Path) -> tuple[Config, dict, dict[str, Tensor]]:
    """(configuration, about, tensors by name) of a checkpoint; VwsdError where it is damaged or no
    checkpoint of PolCLIP.
    """
    if Path(path).is_dir():
        remedy = "Give the file in it: best.safetensors or last.safetensors."
        raise VwsdError("this is a folder, a checkpoint file is needed", path, remedy)
    refuse_special(path, "checkpoint")
    try:
        with safe_open(path, "pt") as f:
            header = f.metadata() or {}
            config = Config(**json.loads(header["config"]))
            parse(header["about"].encode(), _About, path, "header")
            tensors = {name: f.get_tensor(name) for name in f.keys()}
            return config, json.loads(header["about"]), tensors
    except FileNotFoundError:
        raise VwsdError("no such checkpoint", path, "Train one: vwsd train --help") from None
    except VwsdError as e:
        raise VwsdError(f"not a whole checkpoint of PolCLIP ({e.what})", path, AGAIN) from e
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as e:
        raise VwsdError(f"not a whole checkpoint of PolCLIP ({e})", path, AGAIN) from e


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and numbers; a file's bytes will not do: safetensors writes the
    parts of its header in any order.
    """
    hashes = []
    for name, tensor in sorted(tensors.items()):
        hashes.append(sha256_bytes(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()))
        hashes.append(sha256_bytes(tensor.flatten().view(torch.uint8).numpy().tobytes()))
    return sha256_bytes("".join(hashes).encode())


def refuse_diverged(tensors: Mapping[str, Tensor], what: str, where: object = "") -> None:
    """VwsdError, naming the first such tensor, where a weight is NaN or infinite."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise VwsdError(f"{what} are not numbers, {name} the first: {DIVERGED}", where, EARLIER)


def put(model: PolClip, tensors: Mapping[str, Tensor], where: object = "") -> None:
    """Put a checkpoint's tensors into a model; VwsdError where names or shapes are not the model's,
    or weights no numbers.
    """
    mine, theirs = own_tensors(model), {}
    for name, tensor in tensors.items():
        if name.startswith("model/"):
            theirs[name.removeprefix("model/")] = tensor
    if _shapes(mine) != _shapes(theirs):
        raise VwsdError(
            "the checkpoint was made for another model",
            where,
            "Give the configuration and the backbone it was trained with.",
        )
    refuse_diverged(theirs, "the checkpoint's weights", where)
    with torch.no_grad():
        for name, value in theirs.items():
            mine[name].copy_(value)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def load_polclip(path: str | Path) -> tuple[PolClip, dict]:
    """(model ready to be evaluated, about) from a checkpoint, on the device of this process; the
    backbone it names must be at hand, with the very weights (else a VwsdError).
    """
    config, about, tensors = read_checkpoint(path)
    model = PolClip(config).eval().to(device.choose())
    mine = model.backbone.identity()["weights_sha256"]
    theirs = about["facts"]["backbone"]["weights_sha256"]
    if mine != theirs:
        raise VwsdError(
            f"the checkpoint was trained on other weights of {config.backbone} ({theirs[:12]}, here"
            f" {mine[:12]})",
            path,
            "Fetch the weights it was trained on, or train again.",
        )
    put(model, tensors, path)
    return model, about
