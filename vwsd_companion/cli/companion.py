"""Commands of the companion's own work: fetch, run, status, report, compare, refresh, doctor."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vwsdlib.disk import free_gb
from vwsdlib.errors import VwsdError
from vwsdlib.paths import results_dir, run_dir, shown

from .base import command, print_json

if TYPE_CHECKING:
    from ..pipeline import Step


def _fetch_demo(o: argparse.Namespace) -> int:
    """EmojiWSD, drawn from installed packages, and the lite encoder's head"""
    from vwsd_standins.emojiwsd import build
    from vwsdlib.encoders.registry import load_encoder

    folder = build.build(force=o.force)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    print(
        f"EmojiWSD {manifest['version']} in {folder} ({len(manifest['files'])}"
        f" files)\n{manifest['credit']}"
    )
    different = build.differs_from_reference(folder)
    if different:
        print(
            f"note: {' and '.join(different)} differ from the reference build; other package"
            " versions than requirements.lock draw other pixels."
        )
    print(f"lite encoder ready, weights {load_encoder('lite').identity()['weights_sha256'][:12]}")
    return 0


def _fetch_vwsd(o: argparse.Namespace) -> int:
    """the official text and pictures of SemEval-2023 Task 1"""
    from vwsdlib.data.fetch import fetch_vwsd

    return _print_checks(fetch_vwsd(o.split or "test", o.source, o.images))


def _fetch_models(o: argparse.Namespace) -> int:
    """published checkpoints, into the Hugging Face cache"""
    from vwsdlib.encoders.checkpoints import checkpoint, fetch, present

    from ..doctor import needed

    keys = o.only or needed(o.profile or "paper")
    # a typo stops before anything is fetched
    repos = {key: checkpoint(key).repo for key in keys}
    _announce(repos)
    for key, repo in repos.items():
        folder = fetch(key)
        print(f"{key}  {repo}  {present(key)[1] / 1e6:,.0f} MB  {folder}", flush=True)
    return 0


def _announce(repos: dict[str, str]) -> None:
    """What is to be fetched of these checkpoints, into which folder; VwsdError where its disk is
    too small.
    """
    from vwsdlib.encoders.checkpoints import bytes_missing
    from vwsdlib.encoders.hub import check_room, hub_folder

    absent = {key: size for key in repos if (size := bytes_missing(key))}
    missing = sum(absent.values())
    check_room(missing, "what is missing of the checkpoints")
    if absent:
        wanted = f"{len(absent)} of {len(repos)} checkpoints are to be fetched"
        free = f"{free_gb(hub_folder()):.0f} GB free: {hub_folder()}"
        print(f"{wanted}, {missing / 1e9:.1f} GB ({free})", file=sys.stderr, flush=True)


def _fetch_rehearsal(o: argparse.Namespace) -> int:
    """generated pictures and tiny random checkpoints in the real formats"""
    from vwsd_standins import rehearsal
    from vwsd_standins.rehearsal.data import models_folder
    from vwsd_standins.rehearsal.models import make_models
    from vwsd_standins.rehearsal.translators import make_translators

    print(f"{rehearsal.make_sets(o.source and Path(o.source))}: {rehearsal.state()}")
    make_models(models_folder())
    make_translators(models_folder())
    print(
        f"{models_folder()}: tiny random checkpoints (set VWSD_MODELS to this folder to use them)"
    )
    return 0


# and the options that each takes
FETCHED = {
    "demo": (_fetch_demo, {"force"}),
    "vwsd": (_fetch_vwsd, {"source", "images", "split"}),
    "models": (_fetch_models, {"only", "profile"}),
    "rehearsal": (_fetch_rehearsal, {"source"}),
}


@command("fetch")
def fetch_files(o: argparse.Namespace) -> int:
    """Put data and models where the notebooks look for them. `demo` downloads nothing: pictures and
    weights come with installed packages. `models` fetches what the profile's parameters name.

    `vwsd` checks what there is, fetches what is missing (or takes it from --from DIR) and prints
    what is missing still, with exit code 1. A broken download goes on where it stopped. Original
    and resized pictures are never mixed in one folder.

    Example:
      vwsd fetch vwsd --split trial
    """
    function, options = FETCHED[o.what]
    for name in ("source", "images", "split", "only", "profile", "force"):
        if getattr(o, name) and name not in options:
            raise VwsdError(
                f"`vwsd fetch {o.what}` takes no --{name.replace('source', 'from')}",
                remedy="See vwsd fetch --help.",
            )
    return function(o)


def _print_checks(checks: list[dict]) -> int:
    """A line a check; the exit code that they mean."""
    for check in checks:
        failed = check["state"] != "OK"
        remedy = f"  ->  {check['remedy']}" if failed else ""
        print(f"[{check['state']}] {check['what']}{remedy}")
    return _exit_code(checks)


def _exit_code(checks: list[dict]) -> int:
    return int(any(check["state"] != "OK" for check in checks))


@command("run")
def run_notebooks(o: argparse.Namespace) -> int:
    """Run a profile's notebooks through papermill, skipping those whose inputs and outputs are
    unchanged, then write the report and say what was reproduced of the reference.

    Files go to runs/PROFILE, or below the folder that VWSD_RESULTS names. What cannot run on this
    machine (data, checkpoints or memory are missing, or it would take more than --hours) is left
    out, with the reason. Exit code 0: all done or up to date (--plan: nothing would be left out);
    1: a notebook failed, is left out or blocked; 2: nothing was run (a bad option).

    Example:
      vwsd run --profile demo --only 02_clip_baseline --set seed=1
      vwsd run --profile paper --plan
      vwsd run --profile paper --only 03_clipseg --parameters
    """
    from .. import runner
    from ..pipeline import parse_settings, plan

    if (o.pretend or o.json) and not o.plan or o.plan and o.parameters:
        raise VwsdError(
            "--pretend and --json go with --plan, and --parameters does not",
            remedy="See vwsd run --help.",
        )
    chosen = {
        "only": o.only,
        "start_from": o.start_from,
        "force": o.force,
        "limit": o.limit,
        "settings": parse_settings(o.settings),
    }
    if o.parameters:
        steps = plan(o.profile, **chosen)
        if o.only or o.start_from:
            steps = [step for step in steps if step.name in o.only or step.forced]
        print("\n\n".join(map(_parameters_cell, steps)))
        return 0
    if o.plan:
        return _print_plan(plan(o.profile, **chosen), o)
    done = runner.run(o.profile, keep_going=o.keep_going, hours=o.hours, **chosen)
    _report_after(o.profile)
    return done.exit_code


def _print_plan(steps: list[Step], o: argparse.Namespace) -> int:
    from vwsdlib.data.sets import prepare_profile

    from ..forecast import plan_of
    from ..machine import pretended

    prepare_profile(o.profile, whole=False)
    planned = plan_of(steps, o.hours, pretended(o.pretend) if o.pretend else None)
    if o.json:
        print_json(planned.as_dict())
    else:
        print(planned)
    return int(any(one.state in ("left out", "blocked") for one in planned.forecasts))


def _parameters_cell(step: Step) -> str:
    lines = [f"{name} = {value!r}" for name, value in step.parameters.items()]
    return "\n".join([f"# {step.name}, profile {step.profile}", *lines])


# printed after a run; the report has all
MAIN_TABLES = ("baseline", "ladder", "multilingual", "saliency_truth")


def _report_after(profile: str) -> None:
    """The report is written whatever failed; then the main tables, for the eye, where there is
    something new to see, and what was reproduced.
    """
    from ..compare import after_run
    from ..facts.collect import Collection
    from ..report import refresh_report
    from ..views.catalogue import TABLES

    try:
        if results_dir(profile) != run_dir(profile):
            raise VwsdError("the run has stored nothing", where=run_dir(profile))
        folder, written = refresh_report(profile)
        facts = Collection(profile, folder)
        tables = [TABLES[name](facts) for name in MAIN_TABLES] if written else []
        compared = after_run(profile)
    except VwsdError as e:
        print(f"no report: {e}", file=sys.stderr)
        return
    for table in filter(None, tables):
        print(f"\n{table}")
    print("\n".join([f"report: {folder / 'report.md'}", *compared]))


@command("status")
def show_status(o: argparse.Namespace) -> int:
    """Say of each notebook: done, stale (which input changed), failed (where and why), blocked (by
    whom) or never run; then the slowest cells.

    Example:
      vwsd status --profile demo
    """
    from .. import runner

    rows = runner.status(o.profile)
    if o.json:
        keys = ("notebook", "state", "detail")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return 0
    lines = [f"{name:<18} {state:<10} {detail}".rstrip() for name, state, detail in rows]
    print("\n".join([*lines, *runner.slowest(o.profile)]))
    return 0


@command()
def report(o: argparse.Namespace) -> int:
    """Make rows, tables, figures and the report again from stored predictions, without loading a
    model; with --html as a folder of pages too.

    Of the run in runs/PROFILE; where nothing was run, of the reference in results/PROFILE. What is
    printed says which.

    Example:
      vwsd report --profile demo --check
      vwsd report --profile demo --html
    """
    from ..report import check_report, write_report

    if o.check and o.html or o.out and not o.html:
        raise VwsdError(
            "--check writes nothing, and --out is where --html writes",
            remedy="Give --html alone or with --out, or --check alone.",
        )
    if o.html:
        return _pages(o.profile, o.out)
    if not o.check:
        print(write_report(o.profile) / "report.md")
        return 0
    differences = check_report(o.profile)
    place = shown(results_dir(o.profile))
    print("\n".join(differences) or f"{place} agrees with its predictions and with this code")
    return 1 if differences else 0


def _pages(profile: str, out: Path | None) -> int:
    """The site of the report, made again first; of the report as stored where that cannot be, say
    without the official text.
    """
    from .. import runner
    from ..pipeline import owners
    from ..report import refresh_report
    from ..site import write_site

    try:
        refresh_report(profile)
    except VwsdError as e:
        if not (results_dir(profile) / "report.json").exists():
            raise
        print(
            f"note: the pages show the report as it is stored, for it could not be made again: {e}",
            file=sys.stderr,
        )
    slowest = runner.slowest(profile)[1:]
    print(write_site(profile, out, owners(profile), slowest) / "index.html")
    return 0


@command("compare")
def compare_results(o: argparse.Namespace) -> int:
    """Say of two folders of results what the second reproduces of the first: rows that are
    identical, within what training moves them (as it was measured), or outside.

    Exit code 1: a row is outside, missing, or in one of the two alone.

    Example:
      vwsd compare
      vwsd compare reference theirs/demo --rows
      vwsd compare --measure reference a/demo b/demo --out results/demo/movement.json
    """
    from .. import compare as of

    names = o.folders or ["reference", "run"]
    if o.measure != bool(o.out) or o.measure and (o.rows or o.json):
        raise VwsdError(
            "--measure and --out go together, without --rows and --json",
            remedy="See vwsd compare --help.",
        )
    if len(names) < 2 or len(names) > 2 and not o.measure:
        raise VwsdError(
            f"{len(names)} folder{'s' * (len(names) != 1)} to compare",
            remedy="Name two folders, or none for the reference and the run.",
        )
    results = [of.read_results(of.results_folder(name, o.profile)) for name in names]
    if o.measure:
        print(of.write_movement(o.out, results))
        return 0
    pairs = of.paired_rows(*results)
    some = [pair for pair in pairs if o.rows or pair.state not in ("identical", "within")]
    first, second = (shown(result.folder) for result in results)
    if o.json:
        listed = [vars(pair) for pair in some]
        print_json({"first": first, "second": second, **of.counts(pairs), "rows": listed})
    else:
        print("\n".join([*map(str, some), f"{second} against {first}: {of.in_words(pairs)}"]))
    return 0 if of.reproduced(pairs) else 1


@command("refresh")
def refresh_reference(o: argparse.Namespace) -> int:
    """Put the run in the place of the reference, runs/PROFILE over results/PROFILE, to be
    committed.

    Refused where a notebook is not done, the run is limited, `vwsd report --check` disagrees, or
    `vwsd compare` finds a row outside, missing or new.

    Example:
      vwsd refresh --profile demo
    """
    from ..compare import refresh as replace

    print(replace(o.profile, o.force))
    return 0


@command()
def doctor(o: argparse.Namespace) -> int:
    """Check this machine: Python, packages, weights, kernel, disk, device, and what a profile
    needs. Each failure comes with its remedy.

    Nothing is fetched: a missing checkpoint or file is named with its size and the command that
    gets it. Exit code 1 where one is missing.

    Example:
      vwsd doctor --profile paper
    """
    from ..doctor import examine

    checks = examine(o.profile)
    if not o.json:
        return _print_checks(checks)
    print_json(checks)
    return _exit_code(checks)
