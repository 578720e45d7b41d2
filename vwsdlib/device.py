"""Where networks compute: on an NVIDIA card (CUDA), on Apple's (MPS), or on the processor. It is
chosen here alone; `VWSD_DEVICE` forces it.

What a card asks for besides is here too: fp32 products in full, a batch that shrinks where memory
runs out, and memory that is given back.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TypeVar

from .errors import VwsdError, first_line

Made = TypeVar("Made")
FORMS = re.compile(r"cpu|mps|cuda(:\d+)?")
ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)")  # kind, major, minor
ON_CPU = "to compute on the processor, set VWSD_DEVICE=cpu"
# pictures in one pass on a card: 256 fill it better with ViT-B/32, which waits for pictures anyway,
# but ViT-L/14 at 336 px in fp32 would hardly fit 16 GB (benchmarks/README.md has the figures)
GPU_BATCH = 64
# how CUDA, MPS and the processor's allocator say that memory ran out
FULL = ("out of memory", "not enough memory")


def choose() -> str:
    """The device of this process, in torch's words ("cuda:0", "mps", "cpu"): the one that
    `VWSD_DEVICE` names, else the card of this process (LOCAL_RANK), else Apple's, else the
    processor.

    On CUDA, TF32 is off from here on. A card that cannot be used is said once on stderr. VwsdError
    where `VWSD_DEVICE` is none of cpu, cuda, cuda:N and mps, or not to be had here.
    """
    asked = os.environ.get("VWSD_DEVICE", "")
    device = _forced(asked) if asked else _best()
    if device.startswith("cuda"):
        full_precision()
    return device


def _own_card() -> str:
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def _forced(asked: str) -> str:
    if not FORMS.fullmatch(asked):
        raise VwsdError(
            f"VWSD_DEVICE is {asked!r}, no device",
            where="environment",
            remedy="Set it to cpu, cuda, cuda:1 or mps, or unset it.",
        )
    device = _own_card() if asked == "cuda" else asked
    fault = card_fault(device) if asked.startswith("cuda") else None
    if fault:
        raise fault
    if not _is_there(device):
        raise VwsdError(
            f"VWSD_DEVICE is {asked}, which torch does not find here",
            where="environment",
            remedy="Name a device that is here, or unset it.",
        )
    return device


def _is_there(device: str) -> bool:
    import torch

    kind, _, number = device.partition(":")
    if kind == "cuda":
        return _cuda_refusal() is None and int(number) < torch.cuda.device_count()
    return kind == "cpu" or torch.backends.mps.is_available()


def _best() -> str:
    card = _own_card()
    fault = card_fault(card)
    if fault:
        _say(f"computing on the processor, for {fault}")
    elif _cuda_refusal() is None:
        return card
    return "mps" if _is_there("mps") else "cpu"


@cache
def _say(text: str) -> None:
    """A note on stderr, once a process."""
    print(f"note: {text}", file=sys.stderr)


@cache
def _cuda_refusal() -> str | None:
    """None where torch can use CUDA, else what it says (which may be nothing)."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
    return first_line(said[-1].message) if said else ""


def card_fault(device: str = "cuda:0") -> VwsdError | None:
    """Why a card that is in this machine cannot be used by torch, with the remedy; None where it
    can, where there is none, and where CUDA_VISIBLE_DEVICES hides it.
    """
    import torch

    refusal = _cuda_refusal()
    if refusal is None:
        return None if torch.version.hip else _foreign_card(device)
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or not nvidia_card():
        return None
    if not torch.version.cuda:
        return VwsdError(
            f"an NVIDIA card is here and torch {torch.__version__} was built without CUDA",
            remedy=(
                f"Install its CUDA build: python tools/lock.py install --torch cuda; or, {ON_CPU}."
            ),
        )
    return VwsdError(
        f"an NVIDIA card is here and torch {torch.__version__} cannot use it:"
        f" {refusal or 'it does not say why'}",
        remedy=(
            f"Install an NVIDIA driver for CUDA {torch.version.cuda} (nvidia-smi shows what this"
            f" one is for); or, {ON_CPU}."
        ),
    )


def _foreign_card(device: str) -> VwsdError | None:
    """The fault of a card for whose generation this build of torch has no kernels."""
    import torch

    number = int(device.partition(":")[2] or 0)
    if number >= torch.cuda.device_count():
        return None
    capability, built = torch.cuda.get_device_capability(number), torch.cuda.get_arch_list()
    if runs_on(capability, built):
        return None
    return VwsdError(
        f"torch {torch.__version__} has no kernels for {torch.cuda.get_device_name(number)}"
        f" (capability {capability[0]}.{capability[1]}), but for {', '.join(built)}",
        remedy=f"Use another card (VWSD_DEVICE=cuda:N), or a torch built for this; or, {ON_CPU}.",
    )


def runs_on(capability: tuple[int, int], built: Sequence[str]) -> bool:
    """Does a card of this compute capability (major, minor) run what torch was built for
    (`torch.cuda.get_arch_list`)? Kernels ("sm_80") run within their generation from their own minor
    number on, intermediate code ("compute_90") on everything later.
    """
    for name in built:
        match = ARCHITECTURE.match(name)
        if not match:
            continue
        kind, made_for = match[1], (int(match[2]), int(match[3]))
        same_generation = made_for[0] == capability[0]
        if made_for <= capability and (kind == "compute" or same_generation):
            return True
    return False


@cache
def nvidia_card() -> bool:
    """Is there an NVIDIA card with a driver, whether torch can use it or not?"""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return True
    tool = shutil.which("nvidia-smi")
    if not tool:
        return False
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "GPU " in listed.stdout


def full_precision() -> None:
    """TF32 off for products and convolutions: torch's default rounds the inputs of convolutions,
    and so a reference's patch embedding, to 10 bits.
    """
    import torch

    # what older code reads; without it torch refuses to tell, as the two would differ
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.fp32_precision = "ieee"


def rounding(device: str) -> dict[str, str]:
    """What an identity says of fp32 on this device besides its kind: TF32 on CUDA, nothing
    elsewhere.
    """
    return {"tf32": "off"} if device.startswith("cuda") else {}


def give_back() -> None:
    """Memory that nobody needs any more goes back to the card and to the system."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Did the device's memory run out?"""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in FULL)


class Room:
    """How many `things` a device has memory for at once: `most`, and half as many each time that it
    has not, for as long as this lives. May be used from several threads.
    """

    def __init__(self, most: int, things: str, device: str):
        self.most = self.size = most
        self.things, self.device = things, device
        self._lock = Lock()

    def use(self, function: Callable[[int], Made]) -> Made:
        """`function(how many at once)`, called again with half as many where memory runs out;
        VwsdError where it does not hold one.
        """
        while True:
            size = self.size
            try:
                return function(size)
            except RuntimeError as e:
                if not out_of_memory(e):
                    raise
            self._halve(size)  # here the failed call's tensors are gone

    def _halve(self, size: int) -> None:
        give_back()
        if size == 1:
            raise no_room(f"one of the {self.things}", self.device)
        with self._lock:
            if size > self.size:
                return  # another thread was faster
            self.size = size // 2
            said = f"the memory of {self.device} does not hold {size} {self.things} at once"
            print(f"note: {said}: {self.size} from here on", file=sys.stderr)


def no_room(what: str, device: str) -> VwsdError:
    """The error of a device whose memory does not hold `what`."""
    return VwsdError(
        f"the memory of {device} does not hold {what}",
        remedy=(
            "End what else uses it, or take a smaller model or one in half precision"
            f" (NAME@bf16){'' if device == 'cpu' else f'; or, {ON_CPU}'}."
        ),
    )
