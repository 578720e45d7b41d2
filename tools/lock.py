"""requirements.lock: made from pyproject.toml, and installed; exact versions, and the hash of every
file they may come as.

    make lock                  # or: python tools/lock.py make [--upgrade]
    python tools/lock.py install     # what the Makefile does in a fresh .venv; needs pip alone

`make`: uv resolves the extras demo and dev for Python 3.11 to 3.13 on Linux and macOS at once;
versions that are locked already stay unless --upgrade is given. The index that answers may serve
another build of torch (a CPU build, say) under the same version: its hash is added, and added
hashes are kept as long as the version is. What torch's CUDA build alone asks for stands at the end.
No address of an index is written.

`install`: torch's CPU build where the index has one, else the ordinary one; all else; and the CUDA
packages only where the installed torch asks for them. `pip install --require-hashes -r
requirements.lock` works as well and takes, on Linux, the CUDA build with all that belongs to it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
CUDA = re.compile(r"(nvidia|cuda)-|triton==")
MACHINES = [
    (version, system, machine)
    for version in ("3.11", "3.12", "3.13")
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
HEADER = """\
# Exact versions, and the SHA-256 of every file, of what `make demo` and `make test` install:
# Python 3.11 to 3.13, Linux and macOS.
# Made by `make lock` (tools/lock.py: uv pip compile --universal --generate-hashes) and never edited
# by hand: edit pyproject.toml and run `make lock`; a test holds the two together.
# `make` installs it with hashes required, as does
# pip install --require-hashes -r requirements.lock, which on Linux takes torch's CUDA build.
"""
CUDA_HEADER = """\
# What torch's CUDA build alone asks for; `make` leaves it out where another build is installed.
"""
Entries = list[tuple[str, list[str]]]  # (requirement with its marker, hashes) of each package


def main() -> int:
    """Make or install the lock; exit code 1 where uv finds no solution or pip fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "install"))
    parser.add_argument(
        "--upgrade", action="store_true", help="make: take the newest versions, not the locked ones"
    )
    options = parser.parse_args()
    return make(options.upgrade) if options.what == "make" else install()


def make(upgrade: bool) -> int:
    """Write requirements.lock."""
    before = entries(LOCK.read_text()) if LOCK.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        compiled = resolve(Path(folder), before, upgrade)
        if compiled is None:
            return 1
        wanted = [
            with_other_builds(entry, before, Path(folder)) for entry in compiled if applies(entry)
        ]
    rest, cuda = parts(wanted)
    LOCK.write_text(HEADER + as_text(rest) + CUDA_HEADER + as_text(cuda), encoding="utf-8")
    return 0


def install() -> int:
    """Install requirements.lock into the environment of this Python."""
    rest, cuda = parts(entries(LOCK.read_text()))
    torch = [
        (
            requirement.replace(" ", "+cpu ", 1) if " " in requirement else f"{requirement}+cpu",
            hashes,
        )
        for requirement, hashes in rest
        if requirement.startswith("torch==")
    ]
    installed(
        torch, stderr=subprocess.DEVNULL
    )  # no index but torch's own and some mirrors has a CPU build
    if not installed(rest):
        return 1
    importlib.invalidate_caches()
    asked = importlib.metadata.requires("torch") or []
    if any(CUDA.match(requirement) for requirement in asked) and not installed(cuda):
        return 1
    return 0


def installed(packages: Entries, **options) -> bool:
    """Let pip install packages, each file checked against its hash; False where it does not."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text(as_text(packages))
        return (
            subprocess.run(
                [*PIP, "install", "--require-hashes", "--no-deps", "-r", listed], **options
            ).returncode
            == 0
        )


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


def resolve(folder: Path, before: Entries, upgrade: bool) -> Entries | None:
    """What uv, installed below `folder`, makes of pyproject.toml; None where it fails."""
    venv.create(folder / "uv", with_pip=True)
    subprocess.run([folder / "uv" / "bin" / "python", *PIP[1:], "install", "uv"], check=True)
    output = folder / "requirements.txt"
    output.write_text(as_text(before))  # uv keeps the versions that stand there
    command = [
        folder / "uv" / "bin" / "uv",
        "pip",
        "compile",
        "--universal",
        "--fork-strategy",
        "fewest",
        "--generate-hashes",
        "--python-version",
        "3.11",
        "--extra",
        "demo",
        "--extra",
        "dev",
        "--no-header",
        "--no-annotate",
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--quiet",
        "--output-file",
        output,
        *["--upgrade"] * upgrade,
        ROOT / "pyproject.toml",
    ]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        return None
    return entries(output.read_text())


def entries(text: str) -> Entries:
    """(requirement, hashes) of each package in a requirements file; any line that is neither is
    left out.
    """
    found: Entries = []
    for line in text.splitlines():
        words = line.strip().removesuffix("\\").strip()
        if words.startswith("--hash="):
            found[-1][1].append(words.removeprefix("--hash="))
        elif re.match(r"[\w.-]+==", words):
            found.append((words, []))
    return found


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
    entry: tuple[str, list[str]], before: Entries, folder: Path
) -> tuple[str, list[str]]:
    """torch with the hashes of further builds of the same version: those locked before, and the one
    that pip gets here.
    """
    requirement, hashes = entry
    if not requirement.startswith("torch=="):
        return entry
    more = set()
    for name, locked in before:
        if name == requirement:
            more.update(locked)
    subprocess.run(
        [*PIP, "download", "--no-deps", "--dest", folder / "torch", requirement.partition(" ")[0]],
        check=True,
    )
    for wheel in (folder / "torch").iterdir():
        with open(wheel, "rb") as f:
            more.add(f"sha256:{hashlib.file_digest(f, 'sha256').hexdigest()}")
    return requirement, sorted({*hashes, *more})


if __name__ == "__main__":
    sys.exit(main())
