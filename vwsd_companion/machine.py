"""This machine, or a card that is only pretended, as a plan reckons with it.

Rates are measured in some seconds, once: they are kept in the cache under the machine's
fingerprint.
"""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from vwsdlib.device import choose
from vwsdlib.disk import temporary_folder
from vwsdlib.encoders.streams import cores
from vwsdlib.encoders.variants import losing
from vwsdlib.errors import VwsdError, first_line, known
from vwsdlib.kept import digest, kept
from vwsdlib.paths import PACKAGE, cache_dir, data_dir, run_dir, write_text

COSTS = yaml.safe_load(Path(__file__).with_name("costs.yml").read_text(encoding="utf-8"))
NEEDED_GB = 2  # that the demo wants on each disk
SECONDS = 0.3  # of each measurement
FORMATS = ("float32", "bfloat16")
# side of the square matrices that are multiplied, and how often before the device is waited for
PRODUCTS = {"cpu": (1024, 1), "card": (4096, 16)}
# width, height and quality of a picture as the official release has them
PICTURES = {"original": (2000, 1500, 92), "resized": (500, 375, 85)}


def places() -> dict[str, tuple[Path, float, str]]:
    """What is written where: {what: (folder, GB that the demo wants there, the variable that names
    another)}.
    """
    cache = os.environ.get("HF_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    hub = os.environ.get("HF_HUB_CACHE") or Path(cache, "hub")
    return {
        "results": (run_dir("demo").parent, NEEDED_GB, "VWSD_RESULTS"),
        "vectors and logs": (cache_dir(), NEEDED_GB, "VWSD_CACHE"),
        "sets": (data_dir(), NEEDED_GB, "VWSD_DATA"),
        "checkpoints of the hub": (Path(os.path.expanduser(hub)), 0, "HF_HOME"),
        "temporary files": (temporary_folder(), 0.2, "TMPDIR"),
    }


@dataclass(frozen=True)
class Machine:
    """What decides how long work takes and whether it fits.

    memory_gb: the card's free memory, or without a card what the processes may use (10^9 bytes).
    tflops: number format -> TFLOP/s of matrix products. decoded: kind of picture -> pictures a
    second, decoded and shrunk by all cores. rates: how these were established.
    """

    name: str
    device: str  # in torch's words: cuda:0, mps or cpu
    memory_gb: float
    cores: int
    tflops: dict[str, float]
    decoded: dict[str, float]
    rates: str
    share: float  # of these rates, reached by a network
    pretended: bool = False
    losing: dict[str, float] = field(default_factory=dict)  # as `variants.losing` has it

    def __str__(self) -> str:
        speed = ", ".join(f"{self.tflops[name]:.3g} TFLOP/s {name}" for name in FORMATS)
        pictures = f"{self.decoded['original']:.0f} pictures/s decoded"
        return f"{self.name}, {self.cores} cores: {speed}, {pictures} ({self.rates})"

    @property
    def slower(self) -> str:
        """The variants of encoders that lose on this machine, in words; "" where none does."""
        told = [f"@{name} ({speed:.2f} times as fast)" for name, speed in self.losing.items()]
        return f"slower here than fp32: {', '.join(told)}" if told else ""

    @property
    def memory(self) -> str:
        """Which memory the work has to fit into."""
        return "card memory" if self.device.startswith("cuda") else "memory"


def pretended(card: str) -> Machine:
    """A machine with a card of costs.yml, whose rates are reckoned from what its maker states;
    VwsdError for a card that is not there.
    """
    line = COSTS["cards"][known("card", card, COSTS["cards"])]
    return _of_card(line, line["name"], line["memory_gb"], line["cores"], True)


def _of_card(line: dict, name: str, memory: float, count: int, pretend: bool = False) -> Machine:
    decoded = {kind: rate * count for kind, rate in COSTS["decoded_by_a_core"].items()}
    told, share = "estimated from the card's name", COSTS["share"]["stated"]
    return Machine(name, "cuda:0", memory, count, line["tflops"], decoded, told, share, pretend)


@cache
def this_machine() -> Machine:
    """The machine at hand, looked at (`look`) by a process of its own, which leaves nothing on the
    card; VwsdError where that fails.
    """
    search = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search)}
    command = [sys.executable, "-m", "vwsd_companion.machine"]
    looked = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if looked.returncode:
        raise VwsdError(
            "this machine's speed and memory cannot be measured, as said above",
            remedy="See what `vwsd doctor` says of the device.",
        )
    return Machine(**json.loads(looked.stdout))


def look() -> Machine:
    """This machine as it is now: measured, or where its card cannot compute and is one of costs.yml
    estimated from the card's name. Leaves torch with one thread: for a process of its own.
    """
    device, name, memory = hardware()
    try:
        tflops, decoded = kept_rates(device, name)
    except RuntimeError:  # of torch: the card is full, or in use by one process alone
        lines = [line for line in COSTS["cards"].values() if line["name"].split()[-1] in name]
        if not lines:
            raise
        return _of_card(lines[0], name, memory, cores())
    share = COSTS["share"]["measured"]
    return Machine(
        name, device, memory, cores(), tflops, decoded, "measured", share, losing=losing()
    )


def hardware() -> tuple[str, str, float]:
    """(device as `device.choose` names it; the card's or the processor's name; memory in GB that is
    free there).
    """
    import psutil
    import torch

    free = psutil.virtual_memory().available
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        free = min(free, int(text))
    device = choose()
    if device.startswith("cuda"):
        return device, torch.cuda.get_device_name(device), torch.cuda.mem_get_info(device)[0] / 1e9
    return device, _processor(), free / 1e9


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


Rates = tuple[dict[str, float], dict[str, float]]


def kept_rates(device: str, name: str) -> Rates:
    """TFLOP/s by number format and pictures a second by kind, measured once for each machine."""
    import torch

    fingerprint = [device, name, cores(), platform.node(), torch.__version__, SECONDS, PICTURES]

    def measure() -> Rates:
        tflops = {number: _tflops(device, number) for number in FORMATS}
        return tflops, {kind: _decoded(kind) for kind in PICTURES}

    def write(rates: Rates, path: Path) -> None:
        tflops, decoded = rates
        stored = {"tflops": tflops, "decoded": decoded}
        write_text(path, json.dumps(stored, indent=1) + "\n")

    def read(path: Path) -> Rates:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return _numbers(stored["tflops"]), _numbers(stored["decoded"])

    path = cache_dir() / "machine" / f"{digest(fingerprint)[:16]}.json"
    damaged = (OSError, ValueError, KeyError, TypeError, AttributeError)
    return kept(path, read, measure, write, damaged)


def _numbers(rates: dict) -> dict[str, float]:
    return {name: float(rate) for name, rate in rates.items()}


def _rate(once: Callable[[], int], clock: Callable[[], float]) -> float:
    """How much `once` does in a second of the clock, over SECONDS; what it does first is not
    timed.
    """
    once()
    done, start = 0, clock()
    while (passed := clock() - start) < SECONDS:
        done += once()
    return done / passed


def _by_cores(once: Callable[[], int]) -> float:
    """How much all cores do a second: one core's work in its own time, which other programs do not
    lengthen, for each.
    """
    return cores() * _rate(once, time.thread_time)


def _tflops(device: str, number: str) -> float:
    """TFLOP/s of square matrix products."""
    import torch

    torch.set_num_threads(1)
    side, times = PRODUCTS["cpu" if device == "cpu" else "card"]
    a = torch.ones(side, side, dtype=getattr(torch, number), device=device)

    def once() -> int:
        for _ in range(times):
            product = a @ a
        product[0, 0].item()  # waits for the device
        return times * 2 * side**3

    flops = _by_cores(once) if device == "cpu" else _rate(once, time.perf_counter)
    return flops / 1e12


def _decoded(kind: str) -> float:
    """Pictures a second, decoded and shrunk to 224 pixels by all cores."""
    width, height, quality = PICTURES[kind]
    grain = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grain).resize((width, height)).save(buffer, "JPEG", quality=quality)

    def once() -> int:
        picture = Image.open(buffer).convert("RGB")
        picture.resize((224, 224), Image.Resampling.BICUBIC)
        return 1

    return _by_cores(once)


if __name__ == "__main__":
    try:
        print(json.dumps(vars(look())))
    except (VwsdError, RuntimeError) as e:
        sys.exit(f"{type(e).__name__}: {first_line(e)}")
