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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from vwsdlib.errors import VwsdError
from vwsdlib.paths import quiet, refuse_special, write_text

from .batches import Coder, collate, picture_names
from .checkpoints import AGAIN, check_weights, own_tensors, put, read_checkpoint, write_checkpoint
from .config import LOSSES, Config
from .model import PolClip
from .records import Record

Batches = Callable[
    [int], Iterable[list[Record]]
]  # epoch -> its batches, each a packed list of records
Dev = Callable[
    [PolClip], dict[str, float]
]  # scores on dev, percent; their mean chooses the best epoch
TEXT = ("text_blocks", "ln_final", "text_projection")
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
SHARES = ("textual", "visual")
LOG_AGAIN = "Delete log.jsonl: the run goes on without what it tells."


@dataclass(frozen=True)
class Data:
    """What a run is trained on: its batches, about how many an epoch, the states of pictures, and
    what identifies all this (`facts`).
    """

    batches: Batches
    per_epoch: int
    states: Callable[[Sequence[str]], Tensor]
    facts: dict


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
    config, groups = model.config, {"text": [], "vision": [], "rest": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = name.removeprefix("backbone.")
            groups[
                "rest" if part == name else "text" if part.startswith(TEXT) else "vision"
            ].append(parameter)
    scale = {"text": config.text_rate, "vision": config.vision_rate, "rest": config.new_rate}
    return torch.optim.AdamW(
        [
            {"params": its, "scale": scale[name], "lr": config.rate}
            for name, its in groups.items()
            if its
        ],
        betas=(0.9, 0.999),
        eps=1e-6,
        weight_decay=config.weight_decay,
    )


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

    save_every: steps between checkpoints within an epoch (each epoch's end has one). stop_after:
    stop after so many steps of this call, as if killed there (for tests). Raises VwsdError where
    the folder holds another run, and where a loss is no number any more.
    """
    run = _Run(model, data, Path(folder), dev)
    run.resume()
    return run.go(save_every, stop_after)


class _Run:
    """One call of `train`: what is prepared for this process, and where it stands."""

    def __init__(self, model: PolClip, data: Data, folder: Path, dev: Dev | None):
        from accelerate import Accelerator, DistributedDataParallelKwargs

        self.config, self.data, self.folder, self.dev = model.config, data, folder, dev
        whole = (
            len(self.config.losses) == len(LOSSES) and self.config.fuse
        )  # without a loss or fusion some modules get no gradient
        lonely = DistributedDataParallelKwargs(find_unused_parameters=not whole)
        try:
            self.its = Accelerator(
                cpu=not torch.cuda.is_available(),
                mixed_precision=self.config.precision,
                kwargs_handlers=[lonely],
            )
        except ValueError as e:
            raise VwsdError(
                f"precision {self.config.precision!r} cannot be had here: {e}",
                remedy="Choose precision=no or bf16.",
            ) from e
        if (
            self.config.precision != "no" and not self.its.native_amp
        ):  # Accelerate would go on in single precision and not say so
            raise VwsdError(
                f"precision {self.config.precision!r} cannot be had on this device"
                f" ({self.its.device})",
                remedy="Choose precision=no or bf16.",
            )
        self.model, self.coder = (
            model.to(self.its.device).train(),
            Coder(model.backbone, model.config),
        )
        self.optimizer = make_optimizer(model)
        self.wrapped, self.stepper = self.its.prepare(model, self.optimizer)
        self.step, self.epoch, self.in_epoch, self.best = 0, 0, 0, None

    # ---------------------------------------------------------------- where it stands

    def facts(self) -> dict:
        """What identifies the run: two that differ in any of it are not the same run."""
        return {
            "data": self.data.facts,
            "backbone": self.model.backbone.identity(),
            "batches_a_step": self.its.num_processes * self.config.accumulate,
        }

    def resume(self) -> None:
        """Take up the state of the folder, if there is one of this very run; the log is cut back to
        it.
        """
        path = self.folder / "state.safetensors"
        if not path.exists():
            if self.its.is_main_process:
                write_text(self.folder / "log.jsonl", "")
            return
        config, about, tensors = read_checkpoint(path)
        if config != self.config or about["facts"] != json.loads(json.dumps(self.facts())):
            raise VwsdError(
                "this folder holds a run with another configuration, backbone or data",
                where=self.folder,
                remedy="Give another folder, or delete it.",
            )
        put(self.model, tensors, path)
        if not {"step", "epoch", "in_epoch", "best"} <= about.keys():
            raise VwsdError("the state does not say where the run stands", where=path, remedy=AGAIN)
        self.step, self.epoch, self.in_epoch, self.best = (
            about[key] for key in ("step", "epoch", "in_epoch", "best")
        )
        if "scaler" in about and self.its.scaler is not None:
            self.its.scaler.load_state_dict(about["scaler"])
        for name, parameter in self.model.named_parameters():
            if f"exp_avg/{name}" in tensors:
                where = {"step": "cpu"}
                moments = {kind: tensors.get(f"{kind}/{name}") for kind in MOMENTS}
                if any(
                    m is None
                    or kind != "step"
                    and m.shape != parameter.shape
                    or not torch.isfinite(m).all()
                    for kind, m in moments.items()
                ):
                    raise VwsdError(f"the state lacks numbers of {name}", where=path, remedy=AGAIN)
                self.optimizer.state[parameter] = {
                    kind: tensors[f"{kind}/{name}"].to(where.get(kind, parameter.device))
                    for kind in MOMENTS
                }
        if self.its.is_main_process:
            log = self.folder / "log.jsonl"
            refuse_special(log, "log", "Remove it; the checkpoints beside it are kept.")
            lines = log.read_bytes().decode("utf-8", "replace").split("\n") if log.exists() else []
            write_text(
                log,
                "".join(
                    f"{line}\n" for line in lines if _written_before(line, self.step, self.epoch)
                ),
            )

    def save(self, name: str) -> None:
        """Write `state` with all that resuming needs, `last` or `best` with the model alone; the
        first process writes, the others wait.

        VwsdError where a weight is no number any more: the files that are there are the last good
        ones.
        """
        self.check_weights()
        if self.its.is_main_process:
            about = {
                "facts": self.facts(),
                "step": self.step,
                "epoch": self.epoch,
                "in_epoch": self.in_epoch,
                "best": self.best,
            }
            more = {}
            if name == "state":
                about |= (
                    {"scaler": self.its.scaler.state_dict()} if self.its.scaler is not None else {}
                )
                known = [
                    (n, self.optimizer.state[p])
                    for n, p in self.model.named_parameters()
                    if p in self.optimizer.state
                ]
                more = {f"{kind}/{n}": state[kind] for n, state in known for kind in MOMENTS}
            write_checkpoint(self.folder / f"{name}.safetensors", self.model, about, more)
        self.its.wait_for_everyone()

    def check_weights(self) -> None:
        """VwsdError where a weight is no number; every process has the same, so all of them
        stop."""
        try:
            check_weights(own_tensors(self.model), f"the weights at step {self.step}", self.folder)
        except VwsdError as e:
            raise VwsdError(
                e.what,
                where=self.folder,
                remedy="Lower the rate in another --out; what was saved before stays.",
            ) from None

    def log(self, line: dict) -> None:
        """A line of log.jsonl."""
        if self.its.is_main_process:
            try:
                with open(self.folder / "log.jsonl", "a", encoding="utf-8") as f:
                    f.write(json.dumps(line) + "\n")
            except OSError as e:
                raise VwsdError(
                    f"cannot write the log: {e.strerror or e}",
                    where=self.folder,
                    remedy="Free some space and run it again: it goes on from what was saved.",
                ) from e

    # ---------------------------------------------------------------- going on

    def go(self, save_every: int, stop_after: int) -> Path:
        """Epochs to the end."""
        size, begun = self.its.num_processes * self.config.accumulate, self.step
        total = self.config.epochs * -(-self.data.per_epoch // size)
        with tqdm(
            total=total,
            initial=self.step,
            desc="PolCLIP",
            unit="step",
            disable=True if not self.its.is_main_process else quiet(),
        ) as bar:
            while self.epoch < self.config.epochs:
                groups = groups_of(self.data.batches(self.epoch if self.config.repack else 0), size)
                for group in islice(groups, self.in_epoch, None):
                    self.one(group, min(1.0, self.in_epoch * size / self.data.per_epoch), bar)
                    if stop_after and self.step - begun >= stop_after:
                        return self.folder
                    if save_every and self.step % save_every == 0:
                        self.save("state")
                if not self.in_epoch:
                    raise VwsdError(
                        "there is not one batch to train on",
                        where=self.folder,
                        remedy="Look at the records: are any left after reading?",
                    )
                self.end_of_epoch()
        return self.folder

    def one(self, group: list[list[Record]], done: float, bar: tqdm) -> None:
        """One step of the optimiser on this process's share of a group."""
        its = self.its
        for entry in self.optimizer.param_groups:
            entry["lr"] = entry["scale"] * rate(self.config, self.epoch, done)
        mine = group[its.process_index * self.config.accumulate :][: self.config.accumulate]
        rows = []
        for place, records in enumerate(mine):
            batch = collate(records, self.coder, self.data.states(picture_names(records))).to(
                its.device
            )
            with _unless(place + 1 == len(mine), its, self.wrapped):
                found = self.wrapped(batch)
                its.backward(found["loss"] / len(mine))
            rows.append(torch.stack([value.detach().float() for value in found.values()]))
        norm = float(its.clip_grad_norm_(self.model.parameters(), self.config.clip or math.inf))
        values = _means(list(found), its.gather(torch.stack(rows)))
        if not math.isfinite(values["loss"]) or not (
            math.isfinite(norm) or its.scaler
        ):  # fp16's scaler deals with gradients out of range
            raise VwsdError(
                f"loss or gradient is no number at step {self.step + 1}",
                where=self.folder,
                remedy="Lower the rate, or use precision=no; what was saved before stays.",
            )
        self.stepper.step()
        self.stepper.zero_grad()
        self.model.follow()
        self.step, self.in_epoch = self.step + 1, self.in_epoch + 1
        self.log(
            {
                "step": self.step,
                "epoch": self.epoch,
                "rate": rate(self.config, self.epoch, done),
                "norm": norm,
                **values,
            }
        )
        bar.update()
        bar.set_postfix(loss=f"{values['loss']:.3f}", refresh=False)

    def end_of_epoch(self) -> None:
        """Test on dev, keep the best; then the next epoch begins."""
        self.epoch, self.in_epoch = self.epoch + 1, 0
        self.check_weights()
        if self.dev is not None:
            self.model.eval()
            scores = self.dev(self.model) if self.its.is_main_process else {}
            self.model.train()
            self.log({"step": self.step, "epoch": self.epoch - 1, "dev": scores})
            if scores and (
                self.best is None or sum(scores.values()) > sum(self.best["dev"].values())
            ):
                self.best = {"epoch": self.epoch - 1, "dev": scores}
                write_checkpoint(
                    self.folder / "best.safetensors",
                    self.model,
                    {"facts": self.facts(), "step": self.step, "best": self.best},
                )
        self.save("last")
        self.save("state")


def _means(names: list[str], every: Tensor) -> dict[str, float]:
    """Means over the batches of a step, every [batches, losses and shares]; of shares, over those
    that are numbers, if there are any.
    """
    values = {
        name: (column.nanmean() if name in SHARES else column.mean()).item()
        for name, column in zip(names, every.T)
    }
    return {
        name: value for name, value in values.items() if name not in SHARES or not math.isnan(value)
    }


def _written_before(line: str, step: int, epoch: int) -> bool:
    """Is a line of the log older than a state? One cut off by a kill is not, nor the test on dev of
    an epoch that has yet to end.
    """
    try:
        its = _log_line(line.encode(), "")
    except VwsdError:
        return False
    return its["step"] <= step and ("dev" not in its or its["epoch"] < epoch)


def _log_line(line: bytes, where: object) -> dict:
    """A line of the log; VwsdError where it is not as it was written."""
    from pydantic import NonNegativeInt, create_model

    from vwsdlib.schema import Stored, parse

    shape = create_model(
        "Line",
        __base__=Stored,
        step=(NonNegativeInt, ...),
        epoch=(NonNegativeInt, ...),
        loss=(float, 0.0),
        dev=(dict[str, float], {}),
    )
    parse(line, shape, where, "log", LOG_AGAIN)
    return json.loads(line)


def _unless(last: bool, accelerator, model):
    """Gradients are exchanged between processes after the last batch of a step alone."""
    from contextlib import nullcontext

    return nullcontext() if last else accelerator.no_sync(model)


def read_log(folder: str | Path) -> tuple[list[dict], list[dict]]:
    """(lines of steps, lines of tests on dev) of a run; VwsdError names a line that is not as it
    was written.
    """
    from vwsdlib.schema import read_bytes

    path = Path(folder) / "log.jsonl"
    whole = read_bytes(path, "log", LOG_AGAIN).split(b"\n")[:-1]  # one that a kill cut off is none
    lines = [_log_line(line, f"{path}:{number}") for number, line in enumerate(whole, start=1)]
    return [line for line in lines if "dev" not in line], [line for line in lines if "dev" in line]
