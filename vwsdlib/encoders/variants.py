"""Which variant of an encoder this machine computes fastest: bf16 takes half the time of fp32 where
the processor has products for it, and several times as long where it has none.

A short probe measures both, and both ways of resizing, on a tower of random weights as wide as
ViT-B. It is kept under the machine's fingerprint, so that `@auto` means the same from one run to
the next.
"""

from __future__ import annotations

import json
import platform
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import device
from ..data.pictures import Square
from ..kept import digest, kept
from ..paths import cache_dir, write_text
from .streams import cores, side_by_side

# from the most exact on; what each adds to the one before may cost exactness, so it must pay
VARIANTS = ("fp32", "quick", "bf16")
NETWORKS = {"fp32": "float32", "bf16": "bfloat16"}  # torch's names
PAYS = 1.1  # times as fast as a more exact one, at least
OF_LAYERS = 12  # ViT-B's
# layers of the tower that is measured, and pictures in one pass: a card is only filled by as many
# as the encoder gives it, and few layers would measure how fast kernels are called for
SHAPE = {"cpu": (2, 16), "card": (OF_LAYERS, device.GPU_BATCH)}
SIDE, ROUNDS = 224, 3
PICTURE = (2048, 1536)  # width, height of a picture as people have them


def fingerprint() -> dict[str, object]:
    """What decides how fast the variants are here: processor and its instructions, cores, device,
    torch.
    """
    import torch

    file = Path("/proc/cpuinfo")
    told = file.read_text() if file.exists() else ""
    lines = [re.search(rf"^{name}\s*:\s*(.+)$", told, re.M) for name in ("model name", "flags")]
    place = device.choose()
    return {
        "processor": [line[1] for line in lines if line] or platform.processor(),
        "cores": cores(),
        "device": torch.cuda.get_device_name(place) if place.startswith("cuda") else place,
        "torch": torch.__version__,
    }


def probe() -> dict[str, float]:
    """Milliseconds a picture, of one core or of the card: `fp32` and `bf16` of ViT-B/32's tower,
    `pillow` and `quick` of resizing. Measured once a machine (`fingerprint`), in a few seconds.
    """
    about = fingerprint()
    path = cache_dir() / "machine" / f"variants-{digest(about)[:16]}.json"

    def read(path: Path) -> dict[str, float]:
        return json.loads(path.read_text(encoding="utf-8"))["milliseconds"]

    def write(measured: dict[str, float], path: Path) -> None:
        write_text(path, json.dumps({"machine": about, "milliseconds": measured}, indent=1) + "\n")

    return kept(path, read, _measured, write, (OSError, ValueError, KeyError, TypeError))


def speeds() -> dict[str, float]:
    """Each of VARIANTS, without decoding: times as fast as fp32 on this machine, from the probe.

    On the processor resizing and network share the cores; a card computes while they resize.
    """
    measured = probe()
    card = device.choose() != "cpu"

    def cost(resizing: str, network: str) -> float:
        parts = (measured[resizing], measured[network])
        return max(parts[0] / cores(), parts[1]) if card else sum(parts)

    whole = cost("pillow", "fp32")
    return {
        "fp32": 1.0,
        "quick": whole / cost("quick", "fp32"),
        "bf16": whole / cost("quick", "bf16"),
    }


def losing() -> dict[str, float]:
    """The variants that are slower than fp32 on this machine, each with how many times as fast."""
    return {name: speed for name, speed in speeds().items() if speed < 1}


def fastest(faster: dict[str, float]) -> str:
    """Of `speeds`, the variant to take: a less exact one only where it pays."""
    chosen = VARIANTS[0]
    for name in VARIANTS[1:]:
        if faster[name] >= PAYS * faster[chosen]:
            chosen = name
    return chosen


def automatic(name: str) -> str:
    """What `NAME@auto` is on this machine: a variant's name, empty for fp32; said on stderr."""
    faster = speeds()
    chosen = fastest(faster)
    told = ", ".join(f"{variant} {faster[variant]:.2f}" for variant in VARIANTS[1:])
    print(f"note: {name}@auto is {chosen} here (times as fast as fp32: {told})", file=sys.stderr)
    return "" if chosen == "fp32" else chosen


# ---------------------------------------------------------------- the probe


def _measured() -> dict[str, float]:
    picture = np.random.default_rng(0).integers(0, 256, (*PICTURE[::-1], 3), np.uint8)
    square = Square(SIDE, SIDE)
    resized = {"pillow": square, "quick": replace(square, quick=True)}
    times = {name: 1000 * _resizing(picture, way) for name, way in resized.items()}
    return times | {name: 1000 * _network(name) for name in NETWORKS}


def _least(function: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls, after one that warms up."""
    function()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def _resizing(picture: np.ndarray, square: Square) -> float:
    """Seconds of one core for a picture."""
    from PIL import Image

    image = Image.fromarray(picture)
    return _least(lambda: list(side_by_side(square, [image], 1)))


def _network(dtype: str) -> float:
    """Seconds a picture, of one core or of the card, of a tower as the encoder computes it."""
    import torch

    place = device.choose()
    layers, batch = SHAPE["cpu" if place == "cpu" else "card"]
    model = _tower(place, dtype, layers)
    pixels = torch.zeros(batch, 3, SIDE, SIDE, device=place, dtype=model.dtype)

    def run(_=None) -> None:
        with torch.inference_mode():
            model(pixels).pooler_output.sum().item()  # the number is waited for

    if place == "cpu":
        streams = cores()
        taken = _least(lambda: list(side_by_side(run, range(2 * streams), streams))) / 2
    else:
        taken = _least(run)  # in this thread: a new one begins by preparing its own products
    return taken / batch * OF_LAYERS / layers


def _tower(place: str, dtype: str, layers: int):
    """ViT-B/32's picture tower, so many layers of it, random."""
    import torch
    import transformers

    from .towers import fold_quick_gelu

    config = transformers.CLIPVisionConfig(num_hidden_layers=layers)  # else B/32's
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        model = transformers.CLIPVisionModel(config).eval().requires_grad_(False)
    if place == "cpu" and dtype != "fp32":
        fold_quick_gelu(getattr(model, "vision_model", model))
        model.set_attn_implementation("two products")
    return model.to(place, getattr(torch, NETWORKS[dtype]))
