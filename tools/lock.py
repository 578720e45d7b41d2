"""requirements.lock and requirements-dev.lock: made from pyproject.toml, and installed; exact
versions, and the hash of every file they may come as.

    make lock                             # or: python tools/lock.py make [--upgrade]
    python tools/lock.py install [--dev]  # what the Makefile does in a .venv; needs pip alone

`make`: uv resolves the extras demo and dev for Python 3.11 to 3.13 on Linux and macOS at once;
versions that are locked already stay unless --upgrade is given. What demo needs goes to the one
file, what dev adds to the other. The index that answers may serve another build of torch (a CPU
build, say) under the same version: its hash is added, as are those of the CPU builds that
--torch-index lists; added hashes are kept as long as the version is. What torch's CUDA build alone
asks for stands at the end. No address of an index is written.

`install`: on Linux without an NVIDIA card (or with --torch cpu) torch's CPU build, from
--torch-index if given, else from where pip is configured to look; where neither has it, the
ordinary build, and a line that says so. Then all else; the CUDA packages only where the installed
torch asks for them. Packages come without what they name as dependencies: the lock is complete, but
for what pyproject.toml excludes.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK, DEV_LOCK = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
CUDA = re.compile(r"(nvidia|cuda)-|triton==")
NVIDIA_DRIVER = Path("/proc/driver/nvidia")
MACHINES = [
    (version, system, machine)
    for version in ("3.11", "3.12", "3.13")
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
HEADER = """\
# Exact versions, and the SHA-256 of every file, of what {what}:
# Python 3.11 to 3.13, Linux and macOS.
# Made by `make lock` (tools/lock.py: uv pip compile --universal --generate-hashes) and never edited
# by hand: edit pyproject.toml and run `make lock`; a test holds the two together.
# `make` installs it with hashes required; by hand: python tools/lock.py install, or
# pip install --no-deps --require-hashes -r {name}
"""
CUDA_HEADER = """\
# What torch's CUDA build alone asks for; `make` leaves it out where another build is installed.
"""
NO_CPU_BUILD = """\
torch's CUDA build is installed though no NVIDIA card is used here: no CPU build that
requirements.lock knows was found. To save 5 GB, remove .venv and name an index that has one:
make TORCH_INDEX=URL ... (the "CPU" line of https://pytorch.org/get-started tells the URL).
"""
Entries = list[tuple[str, list[str]]]  # (requirement with its marker, hashes) of each package


def main() -> int:
    """Make or install the lock; exit code 1 where uv finds no solution or pip fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "install"))
    parser.add_argument(
        "--upgrade", action="store_true", help="make: take the newest versions, not the locked ones"
    )
    parser.add_argument("--dev", action="store_true", help="install: what the extra dev adds")
    parser.add_argument(
        "--torch",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="install: which build on Linux (auto: cuda where an NVIDIA card is)",
    )
    parser.add_argument("--torch-index", metavar="URL", help="a package index with CPU builds")
    options = parser.parse_args()
    if options.what == "make":
        return make(options.upgrade, options.torch_index)
    if options.dev:
        return 0 if installed(lock_entries(DEV_LOCK.read_text())) else 1
    return install(options.torch, options.torch_index)


def make(upgrade: bool, torch_index: str | None) -> int:
    """Write both files."""
    before = []
    for path in (LOCK, DEV_LOCK):
        if path.exists():
            before += lock_entries(path.read_text())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "uv", with_pip=True)
        subprocess.run([folder / "uv" / "bin" / "python", *PIP[1:], "install", "uv"], check=True)
        everything = resolve_lock(folder, ["demo", "dev"], before, upgrade)
        demo = everything and resolve_lock(folder, ["demo"], everything, upgrade=False)
        if not demo:
            return 1
        demo = [with_other_builds(entry, before, folder, torch_index) for entry in demo]
    names = {distribution(requirement) for requirement, _ in demo}
    added = [entry for entry in everything if distribution(entry[0]) not in names]
    rest, cuda = parts(demo)
    what = "`make demo` installs"
    text = HEADER.format(what=what, name=LOCK.name) + as_text(rest) + CUDA_HEADER + as_text(cuda)
    LOCK.write_text(text, encoding="utf-8")
    what = "`make test` adds"
    text = HEADER.format(what=what, name=DEV_LOCK.name) + as_text(added)
    DEV_LOCK.write_text(text, encoding="utf-8")
    return 0


def install(build: str, torch_index: str | None) -> int:
    """Install requirements.lock into the environment of this Python."""
    rest, cuda = parts(lock_entries(LOCK.read_text()))
    if build == "auto":
        build = "cuda" if has_nvidia_card() else "cpu"
    if sys.platform == "linux":
        install_torch(rest, build, torch_index)
    if not installed(rest):
        return 1
    importlib.invalidate_caches()
    asked = importlib.metadata.requires("torch") or []
    if not any(CUDA.match(requirement) for requirement in asked):
        return 0
    if build == "cpu":
        print(NO_CPU_BUILD, end="", file=sys.stderr)
    return 0 if installed(cuda) else 1


def has_nvidia_card() -> bool:
    """Is there an NVIDIA driver, or its tool?"""
    return NVIDIA_DRIVER.exists() or shutil.which("nvidia-smi") is not None


def install_torch(packages: Entries, build: str, torch_index: str | None) -> None:
    """Try the build that is wanted: `2.13.0+cpu`, or `2.13.0` and nothing longer. Where no index
    has it, nothing is installed, and the ordinary requirement finds what there is.
    """
    torch = [entry for entry in packages if entry[0].startswith("torch==")]
    if build == "cpu":
        wanted = [(re.sub(r"(==[\w.]+)", r"\1+cpu", each), hashes) for each, hashes in torch]
        index = ["--index-url", torch_index] if torch_index else []
    else:
        wanted = [(each.replace("==", "===", 1), hashes) for each, hashes in torch]
        index = []
    installed(wanted, *index, stderr=subprocess.DEVNULL)


def installed(packages: Entries, *options: str, stderr: int | None = None) -> bool:
    """Let pip install packages, each file checked against its hash; False where it does not."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text(as_text(packages))
        command = [*PIP, "install", "--require-hashes", "--no-deps", *options, "-r", listed]
        return subprocess.run(command, stderr=stderr).returncode == 0


def distribution(requirement: str) -> str:
    """The name before `==`."""
    return requirement.partition("==")[0]


def parts(packages: Entries) -> tuple[Entries, Entries]:
    """All but the CUDA packages, and the CUDA packages."""
    rest = [entry for entry in packages if not CUDA.match(entry[0])]
    return rest, [entry for entry in packages if CUDA.match(entry[0])]


def as_text(packages: Entries) -> str:
    """Lines of a requirements file."""
    lines = [
        " \\\n    ".join([requirement, *(f"--hash={each}" for each in hashes)])
        for requirement, hashes in packages
    ]
    return "".join(f"{line}\n" for line in lines)


def resolve_lock(folder: Path, extras: list[str], before: Entries, upgrade: bool) -> Entries | None:
    """What uv, installed below `folder`, makes of some extras in pyproject.toml, without what none
    of our machines installs; None where it fails. Versions in `before` stay.
    """
    output = folder / "requirements.txt"
    output.write_text(as_text(before))
    command = [folder / "uv" / "bin" / "uv", "pip", "compile", ROOT / "pyproject.toml", "--quiet"]
    command += ["--universal", "--fork-strategy", "fewest", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--output-file", output]
    command += ["--no-emit-index-url", "--no-emit-find-links"]
    for extra in extras:
        command += ["--extra", extra]
    if upgrade:
        command.append("--upgrade")
    if subprocess.run(command, stdout=subprocess.DEVNULL, cwd=ROOT).returncode:
        return None
    return [entry for entry in lock_entries(output.read_text()) if applies(entry)]


def lock_entries(text: str) -> Entries:
    """(requirement, hashes) of each package in a requirements file; any line that is neither is
    left out.
    """
    packages: Entries = []
    for line in text.splitlines():
        words = line.strip().removesuffix("\\").strip()
        if words.startswith("--hash="):
            packages[-1][1].append(words.removeprefix("--hash="))
        elif re.match(r"[\w.-]+==", words):
            packages.append((words, []))
    return packages


def applies(entry: tuple[str, list[str]]) -> bool:
    """Does any of our machines install it?"""
    from packaging.markers import Marker

    _, _, marker = entry[0].partition(" ; ")
    return not marker or any(
        Marker(marker).evaluate(surroundings(*machine)) for machine in MACHINES
    )


def surroundings(version: str, system: str, machine: str) -> dict[str, str]:
    """The variables of markers on one machine."""
    return {
        "python_version": version,
        "python_full_version": f"{version}.9",
        "sys_platform": system,
        "platform_machine": machine,
        "os_name": "posix",
        "platform_system": "Linux" if system == "linux" else "Darwin",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }


def with_other_builds(
    entry: tuple[str, list[str]], before: Entries, folder: Path, torch_index: str | None
) -> tuple[str, list[str]]:
    """torch with the hashes of further builds of the same version: those locked before, the one
    that pip gets here, and those that `torch_index` lists.
    """
    requirement, hashes = entry
    if not requirement.startswith("torch=="):
        return entry
    more = set(hashes)
    for name, locked in before:
        if name == requirement:
            more.update(locked)
    pinned = requirement.partition(" ")[0]
    command = [*PIP, "download", "--no-deps", "--dest", folder / "torch", pinned]
    subprocess.run(command, check=True)
    for wheel in (folder / "torch").iterdir():
        with open(wheel, "rb") as f:
            more.add(f"sha256:{hashlib.file_digest(f, 'sha256').hexdigest()}")
    if torch_index:
        more.update(cpu_builds(torch_index, pinned.partition("==")[2]))
    return requirement, sorted(more)


def cpu_builds(index: str, version: str) -> list[str]:
    """Hashes of the CPU builds of torch that a simple index (PEP 503) lists."""
    with urllib.request.urlopen(f"{index.rstrip('/')}/torch/", timeout=60) as answer:
        page = answer.read().decode("utf-8")
    link = rf"torch-{re.escape(version)}(?:\+|%2B)cpu-[^\"#]+\.whl#(sha256)=([0-9a-f]{{64}})"
    return [f"{kind}:{digest}" for kind, digest in re.findall(link, page, re.I)]


if __name__ == "__main__":
    sys.exit(main())
