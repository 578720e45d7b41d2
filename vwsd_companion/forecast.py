"""The plan before the work: of each notebook of a profile what is missing here, what has to be
fetched, memory and hours, and why it would be left out. The runner leaves out the same ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vwsdlib.data.fetch import check_official
from vwsdlib.data.official import image_variant
from vwsdlib.data.sets import SETS, VwsdSet, languages, load_set
from vwsdlib.disk import free_gb
from vwsdlib.encoders.checkpoints import CHECKPOINTS, present
from vwsdlib.encoders.hub import offline
from vwsdlib.errors import VwsdError
from vwsdlib.language.definitions import written_before
from vwsdlib.paths import data_dir, run_dir

from .machine import COSTS, Machine, places, this_machine
from .notebook import LEFT_OUT
from .pipeline import TRAINING_DATA, Step, changed, checkpoints_of, components, training_data
from .work import Pass, work_of

HOURS = 24  # a notebook that is reckoned to take longer is left out, and stopped after them
DISKS = ("sets", "checkpoints of the hub", "vectors and logs")


@dataclass(frozen=True)
class Missing:
    """Something that a notebook reads and that is not here: what, its size, how to get it; and
    whether the notebook would fetch it itself.
    """

    what: str
    remedy: str
    gigabytes: float = 0.0
    fetched: bool = False

    def __str__(self) -> str:
        size = f" ({self.gigabytes:.1f} GB)" if self.gigabytes else ""
        return f"{self.what}{size}: {self.remedy}"


@dataclass
class Forecast:
    """What is expected of one notebook on one machine. state: run, up to date, left out or blocked.

    memory_gb and hours: None where they cannot be reckoned. minutes: after which the runner stops
    it: `--hours`, else those of pipeline.yml but no more than HOURS, times VWSD_TIME_FACTOR.
    reasons: why it is left out, or by whom it is blocked.
    """

    notebook: str
    state: str
    minutes: float
    memory_gb: float | None = None
    hours: float | None = None
    missing: list[Missing] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def why(self) -> str:
        """The reasons in one line."""
        return "; ".join(self.reasons)


@dataclass
class ProfilePlan:
    """The forecasts of a profile's notebooks, in running order, and the machine they are for (None:
    no notebook's cost is known, so nothing was measured).
    """

    profile: str
    hours: float
    forecasts: list[Forecast]
    machine: Machine | None

    @property
    def missing(self) -> list[Missing]:
        """All that is missing, each once."""
        every = [missing for forecast in self.forecasts for missing in forecast.missing]
        return list(dict.fromkeys(every))

    def as_dict(self) -> dict:
        """The plan as data for `--json`."""
        machine = None
        if self.machine:
            machine = {**vars(self.machine), "needs": self.machine.memory}
        notebooks = []
        for one in self.forecasts:
            missing = [vars(each) for each in one.missing]
            notebooks.append({**vars(one), "missing": missing})
        disks = {what: {"folder": str(f), "free_gb": free} for what, (f, free) in disks_of(self)}
        return {
            "profile": self.profile,
            "hours_a_notebook": self.hours,
            "machine": machine,
            "download_gb": round(sum(one.gigabytes for one in self.missing), 1),
            "disks": disks,
            "notebooks": notebooks,
        }

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def plan_of(
    steps: Sequence[Step],
    hours: float | None = None,
    machine: Machine | None = None,
    state: bool = True,
) -> ProfilePlan:
    """The plan of `steps` (pipeline.plan) on this machine, or on one that is pretended: nothing is
    on its disk, and all data can be had.

    A notebook is left out where its data are missing, its checkpoints can be neither found nor
    fetched, memory is too small, or it is reckoned to take longer than it is given (`Forecast`).
    state: also see which are up to date, which hashes sources and data.
    """
    pretended = machine is not None
    most = hours or HOURS * time_factor()
    forecasts: dict[str, Forecast] = {}
    for step in steps:
        passes = work_of(step.name, _asked_for(step, pretended))
        if passes is not None and machine is None:
            machine = this_machine()
        minutes = 60 * hours if hours else min(step.minutes * time_factor(), 60 * most)
        forecast = Forecast(step.name, "run", minutes)
        _reckon(forecast, step, passes, machine)
        out = [name for name in step.needs if forecasts[name].state in (LEFT_OUT, "blocked")]
        if state and not pretended and _up_to_date(step, forecasts):
            forecast = Forecast(step.name, "up to date", minutes)
        elif forecast.state == "run" and out:
            forecast.state, forecast.reasons = "blocked", [f"by {', '.join(out)}"]
        forecasts[step.name] = forecast
    return ProfilePlan(steps[0].profile if steps else "", most, list(forecasts.values()), machine)


def time_factor() -> float:
    """VWSD_TIME_FACTOR, by which hours and minutes are multiplied; VwsdError where it is no number
    above 0.
    """
    text = os.environ.get("VWSD_TIME_FACTOR") or "1"
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not (math.isfinite(factor) and factor > 0):
        raise VwsdError(
            f"VWSD_TIME_FACTOR is {text!r}, no number above 0",
            remedy="Set it to 4, say, for a slow machine, or unset it.",
        )
    return factor


def _asked_for(step: Step, pretended: bool) -> dict:
    """The parameters, without runs of training where their data are missing, and without definers
    whose definitions an earlier run wrote: those are replayed.
    """
    asked = dict(step.parameters)
    if pretended:
        return asked
    if training_data(asked).get(TRAINING_DATA):
        asked |= {"training_seeds": [], "ablations": []}
    if "definers" in asked:
        asked["definers"] = [name for name in asked["definers"] if not _defined(name, step)]
    return asked


def _defined(definer: str, step: Step) -> bool:
    """Are a definer's definitions for a notebook's items among what was run here?"""
    p = step.parameters
    path = run_dir(step.profile) / "definitions" / f"{definer}.en.{p['split']}.jsonl"
    if not path.is_file():  # a set is not built to learn that nothing was written
        return False
    try:
        ids = [item.id for item in load_set(p["dataset"], "en", p["split"]).head(p["limit"]).items]
        return written_before(definer, ids, path) is not None
    except VwsdError:
        return False


def _up_to_date(step: Step, forecasts: dict[str, Forecast]) -> bool:
    upstream = all(forecasts[name].state == "up to date" for name in step.needs)
    return upstream and not step.forced and not changed(step, components(step))


def _reckon(
    forecast: Forecast, step: Step, passes: Sequence[Pass] | None, machine: Machine | None
) -> None:
    """Fill in what is missing, memory and hours, and whether that leaves the notebook out."""
    bare = machine is not None and machine.pretended
    reasons = forecast.reasons
    forecast.missing = list(_missing(step, bare, reasons))
    if passes is not None and machine is not None:
        kind = pictures_kind(step.parameters["dataset"], bare)
        seconds = [one.seconds(machine, kind) for one in passes]
        forecast.hours = sum(seconds) / 3600
        forecast.memory_gb = max(one.memory_gb for one in passes)
        if forecast.memory_gb > machine.memory_gb:
            reasons.append(
                f"it needs {forecast.memory_gb:.1f} GB of {machine.memory}, and"
                f" {machine.memory_gb:.1f} GB are there"
            )
        if forecast.hours > forecast.minutes / 60:
            reasons.append(
                f"it would take about {duration(forecast.hours)}, more than its"
                f" {forecast.minutes / 60:g} hours (--hours N gives it others)"
            )
    if reasons:
        forecast.state = LEFT_OUT


def pictures_kind(dataset: str, bare: bool = False) -> str:
    """Are a set's pictures on this disk originals or resized ones? What `vwsd fetch` would bring
    where there are none, originals where nobody recorded it.
    """
    folder = data_dir() / dataset / "test"
    if bare or not folder.exists():
        return "resized"
    variant = image_variant(folder)
    if variant is None or variant not in COSTS["decoded_by_a_core"]:
        return "original"
    return variant


# ---------------------------------------------------------------- what is missing


def _missing(step: Step, bare: bool, reasons: list[str]) -> Iterator[Missing]:
    """What the notebook reads and this machine (a bare one: any) lacks; what that costs it is added
    to `reasons`.
    """
    dataset = step.parameters.get("dataset", "")
    if dataset in SETS and SETS[dataset].prepare:
        return  # such a set makes all that a run stands on
    if dataset in COSTS["sets"]:
        yield from _missing_set(step, bare, reasons)
    if step.parameters.get("study") == "published":
        yield from _missing_of_polclip(step, bare, reasons)
    keys = checkpoints_of(_asked_for(step, bare))
    absent = [_checkpoint(key) for key in keys if bare or _lacks(key)]
    yield from absent
    if absent and not bare:
        reasons += _unfetchable(absent)


def _missing_set(step: Step, bare: bool, reasons: list[str]) -> Iterator[Missing]:
    """Text and pictures of the parts that a notebook reads."""
    dataset, splits = step.parameters["dataset"], [step.parameters["split"]]
    if step.parameters.get("dev"):
        splits.append(step.parameters["dev"])
    for split in splits:
        size = COSTS["gigabytes"][dataset][pictures_kind(dataset, bare)]
        size = size if split == "test" else 0.0
        if bare:
            command = f"vwsd fetch {dataset} --split {split}"
            yield Missing(f"{dataset} {split}, text and pictures", command, size)
            continue
        shares = len(languages(dataset, split))
        for row in check_official(split):
            if row["state"] == "MISSING":
                pictures = row["check"].startswith("pictures")
                yield Missing(row["what"], row["remedy"], size / shares if pictures else 0.0)
        reasons += _unreadable(step, split)


def _unreadable(step: Step, split: str) -> list[str]:
    """Why a split cannot be worked on here: no text, no gold or not one picture (what becomes of
    single pictures that are missing, a notebook's own parameter says).
    """
    dataset = step.parameters["dataset"]
    reads = COSTS["reads"].get(step.name, {})
    for language in reads.get("languages") or languages(dataset, split):
        try:
            data = load_set(dataset, language, split)
        except VwsdError as e:
            return [e.what]
        needs_pictures = reads.get("pictures", True)
        if needs_pictures and not _any_picture(data):
            return [f"no picture of {dataset} {language} {split} is here"]
    return []


def _any_picture(data: VwsdSet) -> bool:
    return any(data.find(name) for item in data.items for name in item.candidates)


def _missing_of_polclip(step: Step, bare: bool, reasons: list[str]) -> Iterator[Missing]:
    """PolCLIP's published batches and pictures, and WordNet."""
    from polclip.paper import required
    from vwsdlib.data.wordnet import wordnet_folder

    train = step.parameters["settings"].get("train", "all")
    size = COSTS["gigabytes"]["polclip"][train]
    folder = Path("nowhere") if bare else None
    looks = {"PolCLIP's training data": (lambda: required(folder, train), size)}
    if not bare and step.parameters["inventory"] == "wordnet":
        looks["WordNet"] = (wordnet_folder, 0.0)
    for name, (look, gigabytes) in looks.items():
        try:
            look()
        except VwsdError as e:
            spared = "" if name == "WordNet" else "; without it: what needs no training"
            yield Missing(f"{name if bare else e.what}{spared}", e.remedy, gigabytes)
            if not bare and name == "WordNet":  # without the rest the notebook does not train
                reasons.append(f"{name} cannot be found here")


def _lacks(key: str) -> bool:
    return not present(key)[0]


def _checkpoint(key: str) -> Missing:
    size = CHECKPOINTS[key].megabytes / 1000
    fetched = not offline() and not os.environ.get("VWSD_MODELS")
    return Missing(f"checkpoint {key}", f"vwsd fetch models --only {key}", size, fetched)


def _unfetchable(absent: Sequence[Missing]) -> list[str]:
    """Why missing checkpoints do not come by themselves when the notebook runs."""
    if not absent[0].fetched:
        names = ", ".join(one.what.removeprefix("checkpoint ") for one in absent)
        models = os.environ.get("VWSD_MODELS")
        if models:
            return [f"checkpoints are not in {models} (VWSD_MODELS): {names}"]
        return [f"checkpoints are not here and nothing is fetched offline: {names}"]
    wanted, free = sum(one.gigabytes for one in absent), free_gb(places()[DISKS[1]][0])
    if wanted > free:
        return [f"{wanted:.1f} GB of checkpoints do not fit on their disk, {free:.1f} GB are free"]
    return []


# ---------------------------------------------------------------- in words


def duration(hours: float) -> str:
    """Hours as people say them.

    >>> duration(0.2), duration(30), duration(2640)
    ('12 min', '30 h', '110 days')
    """
    if hours < 1.5 / 60:
        return "a minute"
    if hours < 2:
        return f"{hours * 60:.0f} min"
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:,.0f} days"


def disks_of(plan: ProfilePlan) -> list[tuple[str, tuple[str, float]]]:
    """What is written where: (what, (folder, GB free)); none of a machine that is pretended."""
    if plan.machine and plan.machine.pretended:
        return []
    folders = {what: places()[what][0] for what in DISKS}
    return [(what, (str(folder), free_gb(folder))) for what, folder in folders.items()]


def _lines(plan: ProfilePlan) -> Iterator[str]:
    yield f"plan of the profile {plan.profile}"
    if plan.machine:
        yield f"machine: {plan.machine}; {plan.machine.memory_gb:.0f} GB of {plan.machine.memory}"
        if plan.machine.slower:
            yield f"variants {plan.machine.slower}"
        if plan.machine.pretended:
            yield "  (pretended: nothing is on its disk, and all data can be had)"
    for what, (folder, free) in disks_of(plan):
        yield f"disk of {what}: {free:,.0f} GB free in {folder}"
    yield f"to be had: {sum(one.gigabytes for one in plan.missing):,.1f} GB"
    yield f"a notebook has {plan.hours:g} hours at most (--hours N gives all of them others)"
    named: set[Missing] = set()
    for forecast in plan.forecasts:
        yield ""
        yield _head(forecast)
        yield from (f"  {forecast.state}: {reason}" for reason in forecast.reasons)
        new = [one for one in forecast.missing if one not in named]
        yield from (f"  missing: {one}" for one in new)
        more = len(forecast.missing) - len(new)
        if more:
            yield f"  missing: {more} more, named above"
        named.update(new)


def _head(forecast: Forecast) -> str:
    if forecast.state == "up to date":
        return f"{forecast.notebook}  up to date"
    time = f"its hours are not known; it is stopped after {duration(forecast.minutes / 60)}"
    if forecast.hours is not None:
        time = f"about {duration(forecast.hours)}, {forecast.memory_gb:.1f} GB of memory"
    missing = sum(one.gigabytes for one in forecast.missing)
    fetched = f", {missing:,.1f} GB missing" if missing else ""
    return f"{forecast.notebook}  {forecast.state}: {time}{fetched}"
