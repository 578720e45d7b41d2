"""PolCLIP's training loop: rates, groups, resuming to the bit (stopped, killed), two processes,
selection on dev, refusals, overfitting.
"""

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import polclip_tiny
import pytest
import torch
from polclip_tiny import BATCHES, PARTLY, data, digest, make, one_thread  # noqa: F401

from polclip import losses
from polclip import train as training
from polclip.checkpoints import load_polclip, own_tensors, put, read_checkpoint
from polclip.config import LOSSES, make_config
from polclip.model import PolClip
from polclip.records import Candidate, Record
from polclip.train import Data, _Run, groups_of, make_optimizer, rate, read_log, train
from vwsdlib.errors import VwsdError

ROOT = Path(__file__).resolve().parents[2]
LOSSES_OF_FORMAT_1 = [8.1343, 8.1353, 8.0966, 7.9589, 8.0166]
FILES = ("state.safetensors", "last.safetensors", "best.safetensors")


def dev_scores(scores):
    """A test on dev that gives one score after another, and the list of models it was given, as
    digests.
    """
    given = []

    def dev(model):
        given.append(digest(model))
        assert not model.training
        return {"textual": float(scores[len(given) - 1]), "visual": 1.0}

    return dev, given


def run(folder, stops=(0,), dev=None, batches=BATCHES, save_every=1, **changes):
    """A run stopped as if killed after so many steps of each call (0: to the end), the last one not
    saved; each call has a new model; the last.
    """
    for stop in stops:
        model = make(**{"epochs": 2, **changes})
        train(model, data(batches), folder, dev, save_every=save_every, stop_after=stop)
    return model


def files(folder):
    """What a run leaves: names and tensors of its checkpoints, what they say, its log."""
    found = {name: read_checkpoint(folder / name) for name in FILES if (folder / name).exists()}
    tensors = {
        (name, key): value.numpy().tobytes()
        for name, (_, _, its) in found.items()
        for key, value in its.items()
    }
    return (
        tensors,
        {name: (config, about) for name, (config, about, _) in found.items()},
        (folder / "log.jsonl").read_text(),
    )


# ---------------------------------------------------------------- rates and groups


def test_the_twenty_rates_of_the_released_schedule():
    expected = [
        6.70e-6,
        2.5e-5,
        5e-5,
        7.5e-5,
        9.33e-5,
        1e-4,
        9.33e-5,
        7.5e-5,
        5e-5,
        2.5e-5,
        6.70e-6,
        0,
        6.70e-6,
        2.5e-5,
        5e-5,
        7.5e-5,
        9.33e-5,
        1e-4,
        9.33e-5,
        7.5e-5,
    ]
    config = make_config("code")
    assert config.epochs == 20 and [rate(config, e) for e in range(20)] == pytest.approx(
        expected, rel=1e-3, abs=1e-12
    )
    assert rate(config, 3, 0.9) == rate(config, 3)


def test_the_clean_schedule_is_half_a_cosine_over_all_steps():
    config = make_config(epochs=4, rate=2e-4)
    assert (
        rate(config, 0) == 2e-4
        and rate(config, 2) == pytest.approx(1e-4)
        and rate(config, 4) == pytest.approx(0, abs=1e-15)
    )
    assert rate(config, 1, 0.5) == pytest.approx(
        2e-4 * (1 + 0.3826834) / 2, rel=1e-6
    )  # cos(3 pi / 8)
    steps = [rate(config, e, k / 5) for e in range(4) for k in range(5)]
    assert all(a > b > 0 for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize("preset", ["paper", "code"])
def test_the_optimizer_has_each_trained_tensor_once(preset):
    model = make(preset, ema=0.9, open_vision=1, train_text_projection=True)
    optimizer = make_optimizer(model)
    ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(ids) == len(set(ids)) and set(ids) == {
        id(p) for p in model.parameters() if p.requires_grad
    }
    name = {id(p): n for n, p in model.named_parameters()}
    starts = [
        {name[id(p)].split(".")[0] for p in group["params"]} for group in optimizer.param_groups
    ]
    text, vision = (
        {name[id(p)].split(".")[1] for p in group["params"]} for group in optimizer.param_groups[:2]
    )
    assert starts == [
        {"backbone"},
        {"backbone"},
        {"former", "to_vision", "to_text", "transfer", "fusion"},
    ]
    assert text == {"text_blocks", "ln_final", "text_projection"} and vision == {
        "vision_blocks",
        "ln_post",
        "vision_projection",
    }
    assert [group["scale"] for group in optimizer.param_groups] == (
        [1, 0.5, 0.5] if preset == "paper" else [1, 1, 1]
    )
    assert all(
        (g["betas"], g["eps"], g["weight_decay"]) == ((0.9, 0.999), 1e-6, 0.05)
        for g in optimizer.param_groups
    )


def test_rates_reach_the_optimizer(tmp_path, monkeypatch):
    seen, step = [], torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self, *a, **k: (
            seen.append([g["lr"] for g in self.param_groups]) or step(self, *a, **k)
        ),
    )
    run(tmp_path)
    expected = [
        rate(make_config(epochs=2, rate=1e-3), e, k / 5) for e in range(2) for k in range(5)
    ]
    assert seen == [pytest.approx([r, r / 2, r / 2]) for r in expected]
    assert [line["rate"] for line in read_log(tmp_path)[0]] == pytest.approx(expected)


def test_a_step_is_adamw_on_the_clipped_mean_gradient(tmp_path):
    """One step of two batches by hand, in plain torch."""
    model, twin = (make(accumulate=2, clip=0.5, ema=0.0) for _ in range(2))
    train(model, data(), tmp_path, save_every=0, stop_after=1)
    optimizer = make_optimizer(twin)
    from polclip.batches import Coder, collate, pictures_of

    found = []
    for records in BATCHES[:2]:
        found.append(
            twin(
                collate(
                    records,
                    Coder(twin.backbone, twin.config),
                    polclip_tiny.states(pictures_of(records)),
                )
            )
        )
        (found[-1]["loss"] / 2).backward()
    norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
    for group in optimizer.param_groups:
        group["lr"] = group["scale"] * 1e-3
    optimizer.step()
    (line,) = read_log(tmp_path)[0]
    assert (
        digest(model) == digest(twin) and norm > 0.5 and line["norm"] == pytest.approx(norm.item())
    )
    assert {k: line[k] for k in found[0]} == pytest.approx(
        {k: (found[0][k] + found[1][k]).item() / 2 for k in found[0]}, abs=1e-6
    )


# ---------------------------------------------------------------- groups of batches


@pytest.mark.parametrize(("count", "size"), [(5, 1), (5, 2), (6, 2), (1, 3), (3, 8), (7, 3)])
def test_groups_lose_no_batch_and_are_full(count, size):
    batches = [[i] for i in range(count)]
    groups = list(groups_of(iter(batches), size))
    assert all(len(group) == size for group in groups) and len(groups) == -(-count // size)
    flat = [batch for group in groups for batch in group]
    assert flat[:count] == batches and all(batch in batches[:size] for batch in flat[count:])


def test_an_odd_number_of_batches_is_accumulated_too(tmp_path):
    run(tmp_path, accumulate=2)
    steps, _ = read_log(tmp_path)
    assert [(line["step"], line["epoch"]) for line in steps] == [
        (1, 0),
        (2, 0),
        (3, 0),
        (4, 1),
        (5, 1),
        (6, 1),
    ]


def test_training_on_nothing_is_refused(tmp_path):
    with pytest.raises(VwsdError, match="not one batch"):
        train(make(), Data(lambda epoch: [], 5, polclip_tiny.states, {}), tmp_path)
    assert not (tmp_path / "last.safetensors").exists()


# ---------------------------------------------------------------- resuming


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(files, digest) of a run of six steps, accumulated, with a pictureless batch, and a dev score
    that falls.
    """
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    model = run(folder, dev=lambda model: {"textual": 50.0}, batches=PARTLY, accumulate=2)
    return files(folder), digest(model)


@pytest.mark.parametrize(
    ("stop", "save_every"), [*((stop, 1) for stop in range(1, 7)), (2, 2), (6, 2), (5, 0)]
)
def test_stopped_at_any_step_and_resumed_it_is_the_same_run(
    tmp_path, undisturbed, stop, save_every
):
    model = run(
        tmp_path, (stop, 0), lambda model: {"textual": 50.0}, PARTLY, save_every, accumulate=2
    )
    assert digest(model) == undisturbed[1] and files(tmp_path) == undisturbed[0]


def test_stopped_at_every_step(tmp_path, undisturbed):
    assert (
        digest(
            run(tmp_path, (2,) * 5 + (0,), lambda model: {"textual": 50.0}, PARTLY, accumulate=2)
        )
        == undisturbed[1]
    )
    assert files(tmp_path) == undisturbed[0]


def test_a_lost_moment_is_seen(tmp_path, undisturbed, monkeypatch):
    """The twin: without the optimizer's moments the resumed run is another one."""
    monkeypatch.setattr("polclip.train.MOMENTS", ())
    assert (
        digest(run(tmp_path, (3, 0), lambda model: {"textual": 50.0}, PARTLY, accumulate=2))
        != undisturbed[1]
    )


@pytest.mark.parametrize("moment", ["dev", "last", "state"])
def test_killed_at_the_end_of_an_epoch_it_tests_on_dev_once(
    tmp_path, undisturbed, moment, monkeypatch
):
    """The last step's state is there, but its epoch has not ended: it ends again, and the log says
    so once.
    """
    save, calls = _Run.save, []

    def cut(self, name):
        calls.append(name)
        if calls == ["state"] * 3 + (["last"] if moment == "last" else ["last", "state"]):
            raise KeyboardInterrupt
        save(self, name)

    def dev(model):
        if moment == "dev" and calls == ["state"] * 3:
            calls.append("dev")
            raise KeyboardInterrupt
        return {"textual": 50.0}

    monkeypatch.setattr(_Run, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, (0,), dev, PARTLY, accumulate=2)
    monkeypatch.setattr(_Run, "save", save)
    model = run(tmp_path, (0,), dev, PARTLY, accumulate=2)
    assert digest(model) == undisturbed[1] and files(tmp_path) == undisturbed[0]


@pytest.mark.parametrize(
    "tail",
    [
        '{"step": 3, "epo',
        '{"step": 3, "epoch": 0, "loss": 1.0}\n{"st',
        '{"step": 9, "epoch": 0, "dev": {}}\n',
    ],
)
def test_a_log_cut_off_by_a_kill_is_mended(tmp_path, undisturbed, tail):
    run(tmp_path, (2,), lambda model: {"textual": 50.0}, PARTLY, accumulate=2, save_every=2)
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write(tail)
    run(tmp_path, (0,), lambda model: {"textual": 50.0}, PARTLY, accumulate=2)
    assert files(tmp_path)[2] == undisturbed[0][2]


def test_a_finished_run_stays_as_it_is(tmp_path, undisturbed):
    model = run(tmp_path, (0, 0), lambda model: {"textual": 50.0}, PARTLY, accumulate=2)
    assert digest(model) == undisturbed[1] and files(tmp_path) == undisturbed[0]


@pytest.mark.parametrize("change", ["config", "data", "backbone", "processes"])
def test_another_run_in_the_folder_is_refused(tmp_path, change, monkeypatch):
    run(tmp_path, (2,))
    model, its = (
        make(epochs=2, **({"temperature": 0.5} if change == "config" else {})),
        data(**({"set": "other"} if change == "data" else {})),
    )
    if change == "backbone":
        model.backbone._identity = {"model": "another"}
    if change == "processes":
        monkeypatch.setattr(
            _Run, "facts", lambda self, facts=_Run.facts: facts(self) | {"batches_a_step": 2}
        )
    before = files(tmp_path)
    with pytest.raises(VwsdError, match="another configuration, backbone or data"):
        train(model, its, tmp_path)
    assert files(tmp_path) == before


def test_an_update_of_the_library_goes_on_with_the_run_and_says_who_took_its_steps(
    tmp_path, undisturbed, monkeypatch
):
    how = {"dev": lambda model: {"textual": 50.0}, "batches": PARTLY, "accumulate": 2}
    run(tmp_path, (2,), **how)
    old = training.trainer()
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    monkeypatch.setattr(training, "code", lambda: "another")
    model = run(tmp_path, **how)
    assert digest(model) == undisturbed[1]
    about = read_checkpoint(tmp_path / "last.safetensors")[1]
    assert about["trained_by"] == [old, {"code": "another", "torch": "2.99.0"}]
    assert "format" in about["facts"]
    monkeypatch.setattr(training, "FORMAT", training.FORMAT + 1)
    with pytest.raises(VwsdError, match="another configuration, backbone or data"):
        run(tmp_path, **how)


def test_memory_for_time_is_no_other_run(tmp_path, undisturbed):
    how = {"dev": lambda model: {"textual": 50.0}, "batches": PARTLY, "accumulate": 2}
    run(tmp_path, (2,), checkpointing=True, **how)
    assert digest(run(tmp_path, checkpointing=False, **how)) == undisturbed[1]


def test_training_still_does_what_it_did_when_the_format_was_set(tmp_path):
    """Where this fails because training was changed on purpose: raise FORMAT, and note the new
    losses, or a run that another version began is mixed of two.
    """
    run(tmp_path, epochs=1)
    losses_of_steps = [line["loss"] for line in read_log(tmp_path)[0]]
    assert training.FORMAT == 1
    assert losses_of_steps == pytest.approx(LOSSES_OF_FORMAT_1, rel=1e-3)


# ---------------------------------------------------------------- pictures read ahead, memory


def test_pictures_are_read_ahead_in_order_and_no_further_than_two_batches():
    begun, asked = [], [(n, [f"{n}.{i}" for i in range(20 * (n % 2 + 1))]) for n in range(8)]

    def read(names):
        begun.append(names[0])
        return [name.upper() for name in names]

    made = training.read_ahead(read, iter(asked), threads=3)
    assert next(made) == (0, [name.upper() for name in asked[0][1]])
    assert {name.partition(".")[0] for name in begun} <= {"0", "1", "2"}
    assert [number for number, _ in made] == list(range(1, 8))

    def damaged(names):
        if "3.0" in names:
            raise VwsdError("no picture")
        return names

    seen = []
    with pytest.raises(VwsdError, match="no picture"):
        for number, _ in training.read_ahead(damaged, iter(asked), threads=3):
            seen.append(number)
    assert seen == [0, 1, 2]


def test_pictures_that_were_read_ahead_train_the_same_weights(tmp_path, undisturbed):
    def ahead(batches):
        plain = data(batches)
        look = lambda read: polclip_tiny.states([name[::-1] for name in read])  # noqa: E731
        read = lambda names: [name[::-1] for name in names]  # noqa: E731
        return Data(plain.batches, plain.per_epoch, look, plain.facts, read)

    for stop in (2, 0):
        model = make(epochs=2, accumulate=2)
        dev = lambda model: {"textual": 50.0}  # noqa: E731
        train(model, ahead(PARTLY), tmp_path, dev, save_every=1, stop_after=stop)
    assert digest(model) == undisturbed[1] and files(tmp_path) == undisturbed[0]


def test_checkpointing_is_decided_by_the_free_memory_of_the_card(monkeypatch):
    paper, card = make_config("paper", precision="bf16"), torch.device("cuda:0")
    free = {}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda place: (free[place], 80e9))
    decided = []
    for free[card] in (14e9, 40e9):
        decided.append(training.checkpoints_here(paper, card))
    assert decided == [True, False]
    assert not training.checkpoints_here(paper, torch.device("cpu"))
    assert training.checkpoints_here(paper, torch.device("mps"))
    for asked in (True, False):
        forced = make_config("paper", checkpointing=asked)
        assert training.checkpoints_here(forced, card) is asked
    with pytest.raises(VwsdError, match="auto, True, False"):
        make_config("paper", checkpointing="maybe")


def test_a_step_that_does_not_fit_is_taken_with_checkpointing_and_then_said(tmp_path, monkeypatch):
    forward, tried = PolClip.forward, []

    def full(self, batch, most=1):
        tried.append(self.checkpointing)
        if not self.checkpointing or len(tried) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch)

    monkeypatch.setattr(PolClip, "forward", lambda self, batch: full(self, batch, most=4))
    run(tmp_path, (3,))
    assert tried == [False, True, True, True]
    with pytest.raises(VwsdError, match="does not hold a step"):
        run(tmp_path)
    with pytest.raises(VwsdError, match="does not hold a step"):
        run(tmp_path / "off", checkpointing=False)


# ---------------------------------------------------------------- real kills, several processes


def start(folder, *changes, launcher=()):
    """One run of the tiny model in processes of their own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CI": "1"}
    command = [sys.executable, *launcher, str(Path(polclip_tiny.__file__)), str(folder), *changes]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


def lines_of(folder):
    path = folder / "log.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_killed_for_real_and_resumed_it_is_the_same_run(tmp_path):
    """SIGKILL at random moments between first and last step, twice; then to the end here."""
    its, steps = {"epochs": 12, "accumulate": 2}, 36
    expected, dice = (
        run(tmp_path / "undisturbed", dev=lambda model: {"textual": 50.0}, **its),
        random.Random(),
    )
    for least in (3, 15):
        killed = start(tmp_path / "killed", *(f"{k}={v}" for k, v in its.items()))
        deadline = time.monotonic() + 120
        while (
            lines_of(tmp_path / "killed") < least
            and killed.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.1))
        os.killpg(killed.pid, signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL, killed.stdout.read()
        assert least <= lines_of(tmp_path / "killed") < steps + 12
    model = run(tmp_path / "killed", dev=lambda model: {"textual": 50.0}, **its)
    assert digest(model) == digest(expected) and files(tmp_path / "killed") == files(
        tmp_path / "undisturbed"
    )


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_two_processes_do_what_one_does_that_accumulates_two(tmp_path):
    """Also where one of the two has no pictures, and where losses are left out so that some
    parameters get no gradient.
    """
    launcher = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        str(free_port()),
    ]
    two = start(
        tmp_path / "two", "epochs=2", 'losses=["w2s","isg"]', "partly=true", launcher=launcher
    )
    one = run(
        tmp_path / "one",
        dev=lambda model: {"textual": 50.0},
        batches=PARTLY,
        accumulate=2,
        losses=["w2s", "isg"],
    )
    said, _ = two.communicate(timeout=120)
    assert two.returncode == 0, said[-3000:]
    ours, theirs = read_log(tmp_path / "one"), read_log(tmp_path / "two")
    assert len(theirs[0]) == 6 and [line.keys() for line in ours[0]] == [
        line.keys() for line in theirs[0]
    ]
    for a, b in zip(ours[0] + ours[1], theirs[0] + theirs[1]):
        assert {k: v for k, v in b.items() if k != "dev"} == pytest.approx(
            {k: v for k, v in a.items() if k != "dev"}, abs=1e-5
        )
    _, about, tensors = read_checkpoint(tmp_path / "two" / "last.safetensors")
    mine = own_tensors(one)
    assert (
        tensors.keys() == {f"model/{name}" for name in mine}
        and about["facts"]["batches_a_step"] == 2
    )
    assert max((tensors[f"model/{name}"] - p).abs().max().item() for name, p in mine.items()) < 1e-5


# ---------------------------------------------------------------- losses that are no numbers,
# overfitting, precision


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_no_number_is_refused_before_the_step_and_the_last_state_kept(tmp_path, where):
    model = make(epochs=2)
    run(tmp_path, (4,))  # stopped before the fourth is saved
    before, good = files(tmp_path), digest(run(tmp_path / "same", (3,)))

    def poisoned(names):
        found = polclip_tiny.states(names)
        if where == "loss":
            found[0, 0, 0] = torch.nan
        return found

    if where == "gradient":
        model.to_text.weight.register_hook(lambda gradient: gradient * torch.nan)
    its = data()
    with pytest.raises(VwsdError, match="no number at step 4.*saved before stays"):
        train(model, Data(its.batches, its.per_epoch, poisoned, its.facts), tmp_path, save_every=1)
    assert files(tmp_path)[:2] == before[:2] and digest(model) == good


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    """A step may leave such weights behind although its loss and gradient were numbers; the last
    good files stay.
    """
    run(tmp_path, (3,))
    before = files(tmp_path)
    model = make(epochs=2)

    its, follow = data(), model.follow
    model.follow = lambda: (follow(), model.to_text.bias.data.fill_(torch.nan))
    with pytest.raises(VwsdError, match="weights at step 3 are not numbers.*saved before stays"):
        train(model, its, tmp_path, save_every=1)
    assert files(tmp_path)[:2] == before[:2]


@pytest.mark.parametrize("harm", ["nan", "moment", "where"])
def test_a_state_that_cannot_be_gone_on_from_is_named(tmp_path, harm):
    from safetensors import safe_open
    from safetensors.torch import save_file

    run(tmp_path, (3,))
    path = tmp_path / "state.safetensors"
    with safe_open(path, "pt") as f:
        header, tensors = f.metadata(), {name: f.get_tensor(name) for name in f.keys()}
    if harm == "nan":
        tensors["model/to_text.bias"][0] = torch.nan
    elif harm == "moment":
        del tensors["exp_avg_sq/to_text.bias"]
    else:
        about = json.loads(header["about"])
        del about["in_epoch"]
        header["about"] = json.dumps(about)
    save_file(tensors, path, header)
    with pytest.raises(
        VwsdError,
        match={
            "nan": "weights are not numbers",
            "moment": "lacks numbers of to_text.bias",
            "where": "does not say where the run stands",
        }[harm],
    ):
        run(tmp_path)


def test_a_tiny_run_overfits_to_the_floor(tmp_path):
    """Four senses with a picture each: at a low temperature the floor can be reached in any
    geometry.
    """
    records = [
        Record(
            f"r{i}",
            "en",
            ("the", word, "bat"),
            (2, 2),
            tuple(Candidate(w, f"{w} thing", (w,)) for w in (word, other)),
            (word,),
        )
        for i, (word, other) in enumerate([("mammal", "club"), ("fly", "hit")])
    ]
    model = make(epochs=40, rate=3e-3, temperature=0.05, ema=0.5, open_text=2, weight_decay=0.0)
    train(model, data([records]), tmp_path, save_every=0)
    steps, floor = read_log(tmp_path)[0], losses.floor(4, 1, 0.05)
    assert {name: steps[-1][name] for name in LOSSES} == pytest.approx(floor, abs=0.02)
    assert (
        all(steps[0][name] > floor[name] + 0.5 for name in LOSSES)
        and steps[-1]["textual"] == steps[-1]["visual"] == 1
    )


@pytest.fixture
def fresh_accelerate():
    """Accelerate remembers its precision for a whole process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_bf16_trains_and_keeps_single_precision_weights(tmp_path, fresh_accelerate):
    model = run(tmp_path, precision="bf16")
    rough, exact = read_log(tmp_path)[0], None
    assert all(p.dtype == torch.float32 for p in model.parameters()) and len(rough) == 10
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    run(tmp_path / "exact")
    exact = read_log(tmp_path / "exact")[0]
    assert [a["loss"] for a in rough] == pytest.approx(
        [b["loss"] for b in exact], rel=0.05
    ) and rough[0]["loss"] != exact[0]["loss"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="half precision is there on a GPU")
def test_fp16_without_a_gpu_is_refused(tmp_path, fresh_accelerate):
    with pytest.raises(VwsdError, match="precision 'fp16' cannot be had on this device"):
        run(tmp_path, precision="fp16")


# ---------------------------------------------------------------- selection, checkpoints


@pytest.mark.parametrize(("scores", "best"), [((10, 30, 20), 1), ((30, 30, 30), 0), ((1, 2, 3), 2)])
def test_the_best_epoch_on_dev_is_kept(tmp_path, scores, best):
    dev, given = dev_scores(scores)
    model = run(tmp_path, dev=dev, epochs=3)
    _config, about, tensors = read_checkpoint(tmp_path / "best.safetensors")
    assert about["best"] == {
        "epoch": best,
        "dev": {"textual": float(scores[best]), "visual": 1.0},
    } and about["step"] == 5 * (best + 1)
    assert digest(model) == given[-1] and model.training
    kept = make(epochs=3)
    put(kept, tensors, "best")
    assert digest(kept) == given[best] and len(set(given)) == 3
    assert [line["dev"]["textual"] for line in read_log(tmp_path)[1]] == list(scores)
    put(kept, read_checkpoint(tmp_path / "last.safetensors")[2], "last")
    assert digest(kept) == given[-1]


@pytest.mark.parametrize("harm", ["cut", "noise", "empty", "other", "header"])
def test_damaged_checkpoints_are_refused(tmp_path, harm):
    from safetensors.torch import save_file

    run(tmp_path, (2,))
    path = tmp_path / "state.safetensors"
    whole = path.read_bytes()
    if harm == "other":
        save_file({"x": torch.zeros(1)}, path)
    elif harm == "header":
        save_file({"x": torch.zeros(1)}, path, {"config": json.dumps({"colour": 1}), "about": "{}"})
    else:
        path.write_bytes(
            {"cut": whole[: len(whole) // 2], "noise": b"\xff" * 64 + whole[64:], "empty": b""}[
                harm
            ]
        )
    with pytest.raises(VwsdError, match="not a whole checkpoint") as e:
        run(tmp_path)
    assert "Copy it again" in e.value.remedy and str(path) in str(e.value)


def test_a_checkpoint_goes_back_into_its_own_model_alone(tmp_path, monkeypatch):
    weights = {"seed": 1}
    monkeypatch.setattr(
        "polclip.model.load_backbone",
        lambda config: polclip_tiny.backbone(config, **weights),
    )
    config = make_config("paper", **polclip_tiny.SMALL, epochs=1)
    model = polclip_tiny.PolClip(config)
    train(model, data(), tmp_path, save_every=0)
    loaded, about = load_polclip(tmp_path / "last.safetensors")
    assert (
        digest(loaded) == digest(model)
        and loaded.config == config
        and not loaded.training
        and about["step"] == 5
    )
    with pytest.raises(VwsdError, match="made for another model"):
        put(make(former_layers=2), read_checkpoint(tmp_path / "last.safetensors")[2])
    with pytest.raises(VwsdError, match="no such checkpoint"):
        load_polclip(tmp_path / "none.safetensors")
    weights["seed"] = 2
    with pytest.raises(VwsdError, match="trained on other weights"):
        load_polclip(tmp_path / "last.safetensors")
