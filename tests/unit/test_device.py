"""Which device is chosen, what is said of a card that cannot be used, and batches that shrink where
memory runs out; torch's answers are doubles, for no test machine has a card.
"""

import threading
from types import SimpleNamespace

import pytest
import torch

from vwsd_companion import doctor
from vwsdlib import device
from vwsdlib.errors import VwsdError

OLD_DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)."
)
ARCHITECTURES = ["sm_75", "sm_80", "sm_90", "sm_120", "compute_120"]


@pytest.fixture
def machine(monkeypatch):
    """A machine as torch sees it: machine(cards=["T4"], capability=(7, 5), ...)."""

    def answers(cards=(), capability=(8, 0), mps=False, refusal=None, card=None, cuda="13.0"):
        is_there = bool(cards) if card is None else card

        def available():
            if refusal:
                import warnings

                warnings.warn(refusal, stacklevel=1)
            return bool(cards)

        monkeypatch.setattr(torch.cuda, "is_available", available)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda which=0: cards[0])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda which: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ARCHITECTURES)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(device, "nvidia_card", lambda: is_there)
        monkeypatch.setattr(device, "full_precision", lambda: asked.append("full precision"))

    asked = []
    for name in ("VWSD_DEVICE", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    device._cuda_refusal.cache_clear()
    device._say.cache_clear()
    yield SimpleNamespace(has=answers, asked=asked)
    device._cuda_refusal.cache_clear()
    device._say.cache_clear()


def test_the_card_comes_before_apples_and_apples_before_the_processor(machine, monkeypatch):
    machine.has()
    assert device.choose() == "cpu" and device.rounding("cpu") == {}
    machine.has(mps=True)
    assert device.choose() == "mps" and not machine.asked
    device._cuda_refusal.cache_clear()
    machine.has(cards=["A100", "A100"], mps=True)
    assert device.choose() == "cuda:0" and machine.asked == ["full precision"]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device.choose() == "cuda:1"


@pytest.mark.parametrize("asked", ["cpu", "cuda", "cuda:0", "cuda:1", "mps"])
def test_a_device_that_is_there_can_be_forced(asked, machine, monkeypatch):
    machine.has(cards=["A100", "A100"], mps=True)
    monkeypatch.setenv("VWSD_DEVICE", asked)
    assert device.choose() == ("cuda:0" if asked == "cuda" else asked)
    assert bool(machine.asked) == asked.startswith("cuda")


@pytest.mark.parametrize("asked", ["gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cpu:0", " "])
def test_what_is_no_device_is_a_sentence(asked, machine, monkeypatch):
    machine.has(cards=["A100"])
    monkeypatch.setenv("VWSD_DEVICE", asked)
    with pytest.raises(VwsdError, match=r"VWSD_DEVICE is '.*', no device.*Set it to cpu, cuda"):
        device.choose()


@pytest.mark.parametrize("asked", ["cuda", "cuda:1", "mps"])
def test_a_device_that_is_not_there_is_a_sentence(asked, machine, monkeypatch):
    machine.has(cards=["A100"] if asked == "cuda:1" else [])
    monkeypatch.setenv("VWSD_DEVICE", asked)
    with pytest.raises(VwsdError, match=f"VWSD_DEVICE is {asked}, which torch does not find here"):
        device.choose()


UNUSABLE = {
    "driver": (
        {"refusal": OLD_DRIVER, "card": True},
        "driver on your system is too old.*Install an NVIDIA driver for CUDA 13.0",
    ),
    "no reason": ({"card": True}, "cannot use it: it does not say why"),
    "build": ({"card": True, "cuda": None}, "built without CUDA.*lock.py install --torch cuda"),
    "old card": (
        {"cards": ["Tesla P100"], "capability": (6, 0)},
        r"no kernels for Tesla P100 \(capability 6.0\), but for sm_75.*Use another card",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_card_that_cannot_be_used_is_said_once_and_fails_the_doctor(
    name, machine, capsys, monkeypatch
):
    how, words = UNUSABLE[name]
    machine.has(**how)
    assert device.choose() == device.choose() == "cpu" and not machine.asked
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 1 and notes[0].startswith("note: computing on the processor, for ")
    with pytest.raises(VwsdError, match=words) as e:
        doctor.device()
    assert "VWSD_DEVICE=cpu" in e.value.remedy
    monkeypatch.setenv("VWSD_DEVICE", "cuda")
    with pytest.raises(VwsdError, match=words):
        device.choose()
    monkeypatch.setenv("VWSD_DEVICE", "cpu")  # somebody knows: nothing is wrong any more
    assert device.choose() == "cpu" and "CPU threads" in doctor.device()
    assert not capsys.readouterr().err


def test_a_card_that_is_hidden_is_no_fault(machine, monkeypatch, capsys):
    machine.has(refusal="no CUDA-capable device is detected", card=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device.choose() == "cpu" and "no GPU" in doctor.device()
    assert not capsys.readouterr().err


def test_the_doctor_names_the_card(machine):
    machine.has(cards=["A100"])
    assert doctor.device() == "GPU A100"


@pytest.mark.parametrize("capability", [(7, 5), (8, 6), (8, 9), (9, 0), (12, 1), (13, 0)])
def test_cards_that_run_what_torch_was_built_for(capability):
    assert device.runs_on(capability, ARCHITECTURES)


@pytest.mark.parametrize("capability", [(6, 1), (7, 0), (10, 0), (11, 0)])
def test_cards_that_do_not(capability):
    assert not device.runs_on(capability, ["gfx90a", *ARCHITECTURES])


def test_an_nvidia_card_is_seen_by_its_tool(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(device.Path, "glob", lambda self, pattern: iter(()))
    answers = []
    for said in ("echo 'GPU 0: A100 (UUID: x)'", "echo no devices; exit 9"):
        tool.write_text(f"#!/bin/sh\n{said}\n")
        tool.chmod(0o755)
        answers.append(device.nvidia_card.__wrapped__())
    tool.unlink()
    assert answers == [True, False] and not device.nvidia_card.__wrapped__()


def test_fp32_is_full_fp32_by_both_of_torchs_switches():
    before = torch.backends.fp32_precision, torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"  # torch's default, which is the fault
    try:
        device.full_precision()
        operations = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
        assert [each.fp32_precision for each in operations] == ["ieee", "ieee"]
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.fp32_precision = before[0]
        torch.backends.cudnn.allow_tf32 = before[1]


def test_tf32_stands_in_the_identity_of_a_card_alone():
    assert device.rounding("cuda:1") == {"tf32": "off"} and device.rounding("mps") == {}


# ---------------------------------------------------------------- memory


def full(size, room):
    """What torch raises where `size` is more than there is room for."""
    if size > room:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return size


def test_a_batch_is_halved_until_it_fits_and_stays_so(capsys):
    room = device.Room(64, "pictures", "cuda:0")
    assert room.use(lambda size: full(size, 20)) == 16
    assert capsys.readouterr().err.splitlines() == [
        "note: the memory of cuda:0 does not hold 64 pictures at once: 32 from here on",
        "note: the memory of cuda:0 does not hold 32 pictures at once: 16 from here on",
    ]
    assert room.use(lambda size: full(size, 20)) == 16 and not capsys.readouterr().err


def test_what_does_not_fit_at_all_is_a_sentence():
    with pytest.raises(VwsdError, match="does not hold one of the pictures.*VWSD_DEVICE=cpu"):
        device.Room(4, "pictures", "cuda:0").use(lambda size: full(size, 0))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("MPS backend out of memory (MPS allocated: 17.99 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_how_each_device_says_that_memory_ran_out(error):
    assert device.out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes"), ValueError("x")])
def test_other_errors_pass(error):
    def fails(size):
        raise error

    with pytest.raises(type(error), match=str(error)):
        device.Room(4, "pictures", "cpu").use(fails)


def test_two_threads_that_fail_together_halve_once(capsys):
    room, together = device.Room(8, "pictures", "cuda:0"), threading.Barrier(2)

    def fails_at_eight(size):
        if size == 8:
            together.wait()
        return full(size, 4)

    threads = [threading.Thread(target=room.use, args=[fails_at_eight]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert room.size == 4 and len(capsys.readouterr().err.splitlines()) == 1
