"""The training loop: one process or many, stopped and taken up again at any step with the same
weights.

Each step, a group of batches is shared out: `accumulate` for each process, so two processes do what
one does that accumulates two. Nothing is random but the packing, which follows (seed, epoch): a
step's number says where a run stands. Checkpoints: `state.safetensors` (all that resuming needs),
`last.safetensors` and `best.safetensors` (by the score on dev). `log.jsonl` has a line a step and a
line an epoch's test on dev.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeInt
from torch import Tensor

from vwsdlib import device
from vwsdlib.encoders.streams import cores
from vwsdlib.errors import VwsdError
from vwsdlib.paths import quiet, refuse_special, sha256_bytes, write_text
from vwsdlib.progress import tqdm
from vwsdlib.schema import Stored, parse, read_bytes

from .batches import collate, pictures_of
from .checkpoints import (
    AGAIN,
    own_tensors,
    put,
    read_checkpoint,
    refuse_diverged,
    write_checkpoint,
)
from .config import LOSSES, Config
from .cost import SIZES, memory_gb
from .model import PolClip
from .records import Record

Batches = Callable[[int], Iterable[list[Record]]]  # epoch -> its batches, packed lists of records
_Read = tuple[list[Record], Sequence]  # a batch, with the names or contents of its pictures
Dev = Callable[[PolClip], dict[str, float]]  # scores on dev, percent; their mean chooses the epoch
TEXT = ("text_blocks", "ln_final", "text_projection")
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
PLACE = ("step", "epoch", "in_epoch", "best")  # where a run stands
SHARES = ("textual", "visual")
# raised where a change would train other weights: what was trained before is then not taken up
FORMAT = 1
AHEAD, AT_ONCE = 2, 16  # batches that are read while a step is taken; pictures a thread reads
MARGIN = 1.25  # of a card's memory over what training is reckoned to take
LOG_AGAIN = "Delete log.jsonl: the run goes on without what it tells."


@dataclass(frozen=True)
class Data:
    """What a run is trained on: its batches, about how many an epoch, the states of pictures, and
    what identifies all this (`facts`).

    read: what of the pictures' way to their states any thread can do, from names to what `states`
    takes; it is done ahead, while the card computes. None: `states` takes names.
    """

    batches: Batches
    per_epoch: int
    states: Callable[[Sequence], Tensor]
    facts: dict
    read: Callable[[Sequence[str]], list] | None = None


def rate(config: Config, epoch: int, done: float = 0.0) -> float:
    """Learning rate in an epoch (from 0) of which the share `done` is over.

    clean: half a cosine over all epochs. code: one value an epoch, 0.5 * rate * (1 + cos(pi (epoch
    + 7) / 6)): as released it begins at step 7 of a period of 12 epochs, peaks in the sixth and is
    0 in the twelfth.
    """
    if config.schedule == "code":
        return 0.5 * config.rate * (1 + math.cos(math.pi * (epoch + 7) / 6))
    return 0.5 * config.rate * (1 + math.cos(math.pi * min(1.0, (epoch + done) / config.epochs)))


def make_optimizer(model: PolClip) -> torch.optim.AdamW:
    """AdamW over the trained parameters, each once: text tower, vision tower, the rest. Decay on
    all of them, LN and biases too, as released.

    `scale` of a group: the configuration's text_rate, vision_rate or new_rate.
    """
    config, text, vision, rest = model.config, [], [], []
    for name, parameter in model.named_parameters():
        part = name.removeprefix("backbone.")
        if not parameter.requires_grad:
            continue
        if part == name:
            rest.append(parameter)
        elif part.startswith(TEXT):
            text.append(parameter)
        else:
            vision.append(parameter)
    groups = []
    scales = (config.text_rate, config.vision_rate, config.new_rate)
    for parameters, scale in zip((text, vision, rest), scales):
        if parameters:
            groups.append({"params": parameters, "scale": scale, "lr": config.rate})
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-6, weight_decay=config.weight_decay)


def groups_of(batches: Iterable[list[Record]], size: int) -> Iterator[list[list[Record]]]:
    """Batches in groups, one group a step; the last is filled from the epoch's beginning, so that
    no process waits and none is lost.
    """
    batches, head = iter(batches), []
    while group := list(islice(batches, size)):
        head = head or group
        while len(group) < size:
            group += head[: size - len(group)]
        yield group


def read_ahead(
    read: Callable[[Sequence[str]], list], asked: Iterable[tuple[Any, Sequence[str]]], threads: int
) -> Iterator[tuple[Any, list]]:
    """(thing, names) pairs as (thing, what `read` makes of its names), in order: the names of the
    next `AHEAD` things are read meanwhile, a few at a time, in `threads` threads.
    """
    waiting: deque[tuple[Any, list[Future]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for thing, names in asked:
                starts = range(0, len(names), AT_ONCE)
                parts = [pool.submit(read, names[start : start + AT_ONCE]) for start in starts]
                waiting.append((thing, parts))
                if len(waiting) > AHEAD:
                    yield _awaited(*waiting.popleft())
            while waiting:
                yield _awaited(*waiting.popleft())
        finally:
            for _, parts in waiting:
                for part in parts:
                    part.cancel()


def _awaited(thing: Any, parts: list[Future]) -> tuple[Any, list]:
    return thing, list(chain.from_iterable(part.result() for part in parts))


def checkpoints_here(config: Config, place: torch.device) -> bool:
    """Are the picture side's activations computed again (`checkpointing`)? auto: never on the
    processor, on a card where its free memory does not hold the estimate, elsewhere always.
    """
    if config.checkpointing != "auto":
        return config.checkpointing
    size = SIZES.get(config.backbone)
    if place.type == "cpu" or size is None:
        return False
    if place.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(place)
    return MARGIN * memory_gb(config, size, checkpointing=False) > free / 1e9


@cache
def code() -> str:
    """Hash of this package's sources."""
    folder = Path(__file__).parent
    sources = sorted([*folder.glob("*.py"), *folder.glob("*.yml")])
    return sha256_bytes(b"\0".join(path.read_bytes() for path in sources))


def trainer() -> dict[str, str]:
    """What takes steps here: hash of this package's sources, and torch's version. It stands in a
    checkpoint; what may be taken up, `FORMAT`, configuration and data decide.
    """
    return {"code": code(), "torch": torch.__version__}


def train(
    model: PolClip,
    data: Data,
    folder: str | Path,
    dev: Dev | None = None,
    save_every: int = 500,
    stop_after: int = 0,
) -> Path:
    """Train to the end of the configured epochs, going on from what the folder holds; returns the
    folder.

    Another version of this library or of torch goes on with it too, unless `FORMAT` differs; the
    state then says who took its steps. save_every: steps between checkpoints within an epoch (each
    epoch's end has one). stop_after: stop after so many steps of this call, as if killed there (for
    tests). Raises VwsdError where the folder holds another run, where a loss is no number any more,
    and where the device's memory does not hold a step.
    """
    run = _Run(model, data, Path(folder), dev)
    run.resume()
    return run.go(save_every, stop_after)


class _Run:
    """One call of `train`: what is prepared for this process, and where it stands."""

    def __init__(self, model: PolClip, data: Data, folder: Path, dev: Dev | None):
        self.config, self.data, self.folder, self.dev = model.config, data, folder, dev
        self.accelerator = _accelerator(self.config)
        model.checkpointing = checkpoints_here(self.config, self.accelerator.device)
        self.model = model.to(self.accelerator.device).train()
        self.optimizer = make_optimizer(model)
        self.wrapped, self.stepper = self.accelerator.prepare(model, self.optimizer)
        self.main = self.accelerator.is_main_process
        self.batches_a_step = self.accelerator.num_processes * self.config.accumulate
        self.step, self.epoch, self.in_epoch, self.best = 0, 0, 0, None
        self.trained_by = [trainer()]

    # ---------------------------------------------------------------- where it stands

    def facts(self) -> dict:
        """What identifies the run, and all of the backbone's identity."""
        return {
            "format": FORMAT,
            "data": self.data.facts,
            "backbone": self.model.backbone.identity(),
            "batches_a_step": self.batches_a_step,
        }

    def resume(self) -> None:
        """Take up the state of the folder, if there is one of this very run; the log is cut back to
        it.
        """
        path = self.folder / "state.safetensors"
        if not path.exists():
            if self.main:
                write_text(self.folder / "log.jsonl", "")
            return
        config, about, tensors = read_checkpoint(path)
        same = config.decisive() == self.config.decisive()
        if not same or identified(about["facts"]) != identified(self.facts()):
            raise VwsdError(
                "this folder holds a run with another configuration, backbone or data",
                self.folder,
                "Give another folder, or delete it.",
            )
        put(self.model, tensors, path)
        if not set(PLACE) <= about.keys():
            raise VwsdError("the state does not say where the run stands", path, AGAIN)
        self.step, self.epoch, self.in_epoch, self.best = (about[key] for key in PLACE)
        before = about.get("trained_by", [])
        self.trained_by = before + [one for one in self.trained_by if one not in before]
        if "scaler" in about and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(about["scaler"])
        for name, parameter in self.model.named_parameters():
            if f"exp_avg/{name}" in tensors:
                self._take_moments(name, parameter, tensors, path)
        if self.main:
            self._cut_log()

    def _take_moments(
        self, name: str, parameter: Tensor, tensors: dict[str, Tensor], path: Path
    ) -> None:
        """The optimiser's moments of one parameter."""
        state = {}
        for kind in MOMENTS:
            moment = tensors.get(f"{kind}/{name}")
            shape = parameter.shape if kind != "step" else ()
            if moment is None or moment.shape != shape or not torch.isfinite(moment).all():
                raise VwsdError(f"the state lacks numbers of {name}", path, AGAIN)
            state[kind] = moment.to("cpu" if kind == "step" else parameter.device)
        self.optimizer.state[parameter] = state

    def _cut_log(self) -> None:
        """Leave of the log what was written before the state."""
        path = self.folder / "log.jsonl"
        refuse_special(path, "log", "Remove it; the checkpoints beside it are kept.")
        text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
        lines = [line for line in text.split("\n") if self._has_written(line)]
        write_text(path, "".join(f"{line}\n" for line in lines))

    def _has_written(self, line: str) -> bool:
        """Is a line of the log older than the state? One cut off by a kill is not, nor the test on
        dev of an epoch that has yet to end.
        """
        try:
            told = _log_line(line.encode(), "")
        except VwsdError:
            return False
        return told["step"] <= self.step and ("dev" not in told or told["epoch"] < self.epoch)

    def save(self, name: str) -> None:
        """Write `state` with all that resuming needs, `last` or `best` with the model alone; the
        first process writes, the others wait.

        VwsdError where a weight is no number any more: the files that are there are the last good
        ones.
        """
        self.check_weights()
        if self.main:
            about = self.about() | {key: getattr(self, key) for key in PLACE}
            moments = {}
            if name == "state":
                if self.accelerator.scaler is not None:
                    about["scaler"] = self.accelerator.scaler.state_dict()
                for own, parameter in self.model.named_parameters():
                    state = self.optimizer.state.get(parameter, {})
                    moments |= {f"{kind}/{own}": state[kind] for kind in MOMENTS if state}
            write_checkpoint(self.folder / f"{name}.safetensors", self.model, about, moments)
        self.accelerator.wait_for_everyone()

    def about(self) -> dict:
        """What a checkpoint's header says of its making."""
        return {"facts": self.facts(), "trained_by": self.trained_by}

    def check_weights(self) -> None:
        """VwsdError where a weight is no number; every process has the same, so all of them
        stop."""
        try:
            refuse_diverged(own_tensors(self.model), f"the weights at step {self.step}")
        except VwsdError as e:
            remedy = "Lower the rate in another --out; what was saved before stays."
            raise VwsdError(e.what, self.folder, remedy) from None

    def log(self, line: dict) -> None:
        """A line of log.jsonl."""
        if not self.main:
            return
        try:
            with open(self.folder / "log.jsonl", "a", encoding="utf-8") as f:
                f.write(json.dumps(line) + "\n")
        except OSError as e:
            raise VwsdError(
                f"cannot write the log: {e.strerror or e}",
                self.folder,
                "Free some space and run it again: it goes on from what was saved.",
            ) from e

    # ---------------------------------------------------------------- going on

    def go(self, save_every: int, stop_after: int) -> Path:
        """Epochs to the end."""
        size, begun, per_epoch = self.batches_a_step, self.step, self.data.per_epoch
        total, silent = self.config.epochs * -(-per_epoch // size), True
        if self.main:
            silent = quiet()
        with tqdm(total=total, initial=begun, desc="PolCLIP", unit="step", disable=silent) as bar:
            while self.epoch < self.config.epochs:
                for group in self.groups(size):
                    loss = self.one(group, min(1.0, self.in_epoch * size / per_epoch))
                    bar.update()
                    bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                    if stop_after and self.step - begun >= stop_after:
                        return self.folder
                    if save_every and self.step % save_every == 0:
                        self.save("state")
                if not self.in_epoch:
                    raise VwsdError(
                        "there is not one batch to train on",
                        self.folder,
                        "Look at the records: are any left after reading?",
                    )
                self.end_of_epoch()
        return self.folder

    def groups(self, size: int) -> Iterator[list[_Read]]:
        """This process's share of each group that is left of the epoch, its pictures read."""
        batches = self.data.batches(self.epoch if self.config.repack else 0)
        first = self.accelerator.process_index * self.config.accumulate
        asked: Any = (
            (records, pictures_of(records))
            for group in islice(groups_of(batches, size), self.in_epoch, None)
            for records in group[first : first + self.config.accumulate]
        )
        if self.data.read:
            asked = read_ahead(self.data.read, asked, cores())
        while group := list(islice(asked, self.config.accumulate)):
            yield group

    def one(self, group: list[_Read], done: float) -> float:
        """One step of the optimiser on this process's share of a group; returns the loss, a mean
        over the group, no unit. VwsdError where it, or the gradient's norm, is no number.
        """
        speed = rate(self.config, self.epoch, done)
        for entry in self.optimizer.param_groups:
            entry["lr"] = entry["scale"] * speed
        values = self._fitting(group)
        largest = self.config.clip or math.inf
        norm: Any = self.accelerator.clip_grad_norm_(self.model.parameters(), largest)
        norm = float(norm)
        # fp16's scaler deals with gradients out of range
        sound = math.isfinite(norm) or self.accelerator.scaler
        if not math.isfinite(values["loss"]) or not sound:
            raise VwsdError(
                f"loss or gradient is no number at step {self.step + 1}",
                self.folder,
                "Lower the rate, or use precision=no; what was saved before stays.",
            )
        self.stepper.step()
        self.stepper.zero_grad()
        self.model.follow()
        self.step, self.in_epoch = self.step + 1, self.in_epoch + 1
        line = {"step": self.step, "epoch": self.epoch, "rate": speed, "norm": norm}
        self.log(line | values)
        return values["loss"]

    def _fitting(self, group: list[_Read]) -> dict[str, float]:
        """`_backward`; where the card's memory runs out, once more with checkpointing, if that was
        left open, and from there on. VwsdError where it still does not hold a step.
        """
        try:
            return self._backward(group)
        except RuntimeError as e:
            if not device.out_of_memory(e):
                raise
        self.stepper.zero_grad()  # here the failed call's tensors are gone
        device.give_back()
        alone = self.accelerator.num_processes == 1
        if alone and self.config.checkpointing == "auto" and not self.model.checkpointing:
            self.model.checkpointing = True
            return self._fitting(group)
        raise VwsdError(
            f"the memory of {self.accelerator.device} does not hold a step",
            self.folder,
            "Set checkpointing=true where it is off, precision=bf16, or smaller budgets (senses,"
            " pictures) in another --out.",
        )

    def _backward(self, batches: list[_Read]) -> dict[str, float]:
        """Gradients of this process's batches; losses and shares, means over those of all
        processes. Gradients are exchanged between processes after the last batch alone.
        """
        rows, values = [], {}
        for number, (records, pictures) in enumerate(batches, start=1):
            states = self.data.states(pictures)
            batch = collate(records, self.model.coder, states).to(self.accelerator.device)
            last = number == len(batches)
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                values = self.wrapped(batch)
                self.accelerator.backward(values["loss"] / len(batches))
            rows.append(torch.stack([value.detach().float() for value in values.values()]))
        every: Any = self.accelerator.gather(torch.stack(rows))
        return _means(list(values), every)

    def end_of_epoch(self) -> None:
        """Test on dev, keep the best; then the next epoch begins."""
        self.epoch, self.in_epoch = self.epoch + 1, 0
        self.check_weights()
        if self.dev is not None:
            self.model.eval()
            scores = self.dev(self.model) if self.main else {}
            self.model.train()
            self.log({"step": self.step, "epoch": self.epoch - 1, "dev": scores})
            if scores and (not self.best or sum(scores.values()) > sum(self.best["dev"].values())):
                self.best = {"epoch": self.epoch - 1, "dev": scores}
                about = self.about() | {"step": self.step, "best": self.best}
                write_checkpoint(self.folder / "best.safetensors", self.model, about)
        self.save("last")
        self.save("state")


def identified(facts: dict) -> dict:
    """Of what a checkpoint's header says of its making, what tells one run from another. Of the
    backbone it is the weights: its identity names versions too, and an update is no other run.
    """
    told = json.loads(json.dumps(facts))
    own = {key: told.get(key) for key in ("data", "batches_a_step")}
    weights = told["backbone"].get("weights_sha256")
    return own | {"backbone": weights, "format": told.get("format", FORMAT)}


def _accelerator(config: Config):
    """Accelerate's for this process; VwsdError for a precision that cannot be had here."""
    from accelerate import Accelerator, DistributedDataParallelKwargs

    chosen = device.choose()
    if chosen.startswith("cuda"):
        torch.cuda.set_device(chosen)

    # without a loss or fusion some modules get no gradient
    whole = len(config.losses) == len(LOSSES) and config.fuse
    handlers: list = [DistributedDataParallelKwargs(find_unused_parameters=not whole)]
    refusal, remedy = (
        f"precision {config.precision!r} cannot be had",
        "Choose precision=no or bf16.",
    )
    try:
        accelerator = Accelerator(
            cpu=chosen == "cpu",
            mixed_precision=config.precision,
            kwargs_handlers=handlers,
        )
    except ValueError as e:
        raise VwsdError(f"{refusal} here: {e}", remedy=remedy) from e
    # Accelerate would go on in single precision and not say so
    if config.precision != "no" and not accelerator.native_amp:
        raise VwsdError(f"{refusal} on this device ({accelerator.device})", remedy=remedy)
    return accelerator


def _means(names: list[str], every: Tensor) -> dict[str, float]:
    """Means over the batches of a step, every [batches, losses and shares]; of shares, over those
    that are numbers, if there are any.
    """
    values = {}
    for name, column in zip(names, every.T):
        value = (column.nanmean() if name in SHARES else column.mean()).item()
        if name not in SHARES or not math.isnan(value):
            values[name] = value
    return values


class _Line(Stored):
    """A line of the log: of a step with its losses, or of a test on dev."""

    step: NonNegativeInt
    epoch: NonNegativeInt
    loss: float = 0.0
    dev: dict[str, float] = {}


def _log_line(line: bytes, where: object) -> dict:
    """A line of the log; VwsdError where it is not as it was written."""
    parse(line, _Line, where, "log", LOG_AGAIN)
    return json.loads(line)


def read_log(folder: str | Path) -> tuple[list[dict], list[dict]]:
    """(lines of steps, lines of tests on dev) of a run; VwsdError names a line that is not as it
    was written.
    """
    path = Path(folder) / "log.jsonl"
    whole = read_bytes(path, "log", LOG_AGAIN).split(b"\n")[:-1]  # one that a kill cut off is none
    lines = [_log_line(line, f"{path}:{number}") for number, line in enumerate(whole, start=1)]
    tests = [line for line in lines if "dev" in line]
    return [line for line in lines if "dev" not in line], tests
