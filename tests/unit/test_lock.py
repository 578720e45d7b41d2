"""tools/lock.py installs the build of torch that suits the machine: here from indexes of this
machine, served for the test, with wheels of a few bytes.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import venv
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CUDA = "nvidia-cudnn-cu13"
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch has one build")


def wheel(folder: Path, name: str, version: str, requires: str = "") -> str:
    """Write a wheel without a module; returns the SHA-256 of the file."""
    stem = f"{name.replace('-', '_')}-{version}"
    info, path = f"{stem}.dist-info", folder / f"{stem}-py3-none-any.whl"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for file, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        lines.append(f"{file},sha256={digest.decode()},{len(text)}\n")
    files[f"{info}/RECORD"] = "".join(lines) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def index(folder: Path, wheels: list[Path]) -> None:
    """Write a simple index (PEP 503) of some wheels."""
    for path in wheels:
        page = folder / path.name.split("-")[0].replace("_", "-") / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        (page.parent / path.name).write_bytes(path.read_bytes())
        name = path.name.replace("+", "%2B")
        with page.open("a") as f:
            f.write(f'<a href="{name}#sha256={digest}">{path.name}</a><br>\n')


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A project with tools/lock.py and a lock of two packages, an environment, and three indexes:
    `plain` without and `both` with a CPU build, `cpu` with nothing else.
    """
    folder = tmp_path_factory.mktemp("lock")
    wheels = folder / "wheels"
    wheels.mkdir()
    ordinary = wheel(wheels, "torch", "9.1", f"{CUDA}; sys_platform == 'linux'")
    cpu = wheel(wheels, "torch", "9.1+cpu")
    cuda = wheel(wheels, CUDA, "9.2")
    (folder / "tools").mkdir()
    (folder / "tools" / "lock.py").write_bytes((ROOT / "tools" / "lock.py").read_bytes())
    (folder / "requirements.lock").write_text(
        f"torch==9.1 \\\n    --hash=sha256:{ordinary} \\\n    --hash=sha256:{cpu}\n"
        f"{CUDA}==9.2 ; sys_platform == 'linux' \\\n    --hash=sha256:{cuda}\n"
    )
    files = {name: next(wheels.glob(name)) for name in ("torch-9.1-*", "torch-9.1+*", "nvidia*")}
    index(folder / "plain", [files["torch-9.1-*"], files["nvidia*"]])
    index(folder / "both", list(files.values()))
    index(folder / "cpu", [files["torch-9.1+*"]])
    venv.create(folder / "venv", with_pip=True)
    return folder


@pytest.fixture(scope="module")
def url(place):
    """Address of the folder with the indexes."""
    handler = partial(SimpleHTTPRequestHandler, directory=place)
    handler.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def install(place, url):
    """Runs tools/lock.py in a fresh state; returns what is installed afterwards, and stderr."""
    python = place / "venv" / "bin" / "python"
    site = next(place.glob("venv/lib/python*/site-packages"))

    def run(plain: str, *options: str, path: str = "") -> tuple[dict[str, str], str]:
        for name in ("torch", "nvidia"):
            for before in site.glob(f"{name}*.dist-info"):
                shutil.rmtree(before)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
        clean |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{url}/{plain}", "PATH": path}
        clean |= {"PIP_RETRIES": "0", "NO_PROXY": "127.0.0.1"}
        command = [python, place / "tools" / "lock.py", "install", *options]
        done = subprocess.run(command, env=clean, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        there = distributions(path=[str(site)])
        return {d.name: d.version for d in there if d.name in ("torch", CUDA)}, done.stderr

    return run


without_card = pytest.mark.skipif(
    Path("/proc/driver/nvidia").exists(), reason="this machine has an NVIDIA card"
)


@linux
@without_card
def test_no_card_takes_the_cpu_build(install):
    packages, said = install("both")
    assert packages == {"torch": "9.1+cpu"} and not said


@linux
def test_an_nvidia_card_takes_the_cuda_build_and_what_belongs_to_it(install, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    packages, said = install("both", path=str(tmp_path))
    assert packages == {"torch": "9.1", CUDA: "9.2"} and not said


@linux
@pytest.mark.parametrize("build, version", [("cpu", "9.1+cpu"), ("cuda", "9.1")])
def test_a_build_can_be_chosen(install, build, version):
    assert install("both", "--torch", build)[0]["torch"] == version


@linux
def test_the_cpu_build_comes_from_an_index_of_its_own(install, url):
    packages, said = install("plain", "--torch", "cpu", "--torch-index", f"{url}/cpu")
    assert packages == {"torch": "9.1+cpu"} and not said


@linux
@pytest.mark.parametrize("options", [(), ("--torch-index", "http://127.0.0.1:1/cpu")])
def test_where_no_index_has_it_the_ordinary_build_comes_and_the_remedy_is_told(install, options):
    packages, said = install("plain", "--torch", "cpu", *options)
    assert packages == {"torch": "9.1", CUDA: "9.2"}
    assert "TORCH_INDEX=URL" in said


@linux
def test_a_cpu_build_that_the_lock_does_not_know_is_not_installed(install, place, url):
    folder = place / "forged"
    folder.mkdir()
    wheel(folder, "torch", "9.1+cpu", "anything-else; python_version < '3'")
    index(folder, list(folder.glob("*.whl")))
    packages, said = install("plain", "--torch", "cpu", "--torch-index", f"{url}/forged")
    assert packages["torch"] == "9.1" and "TORCH_INDEX=URL" in said


def test_hashes_of_cpu_builds_are_read_from_an_index(place, url, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import lock

    digest = hashlib.sha256(next((place / "wheels").glob("torch-9.1+cpu*")).read_bytes())
    assert lock.cpu_builds(f"{url}/both/", "9.1") == [f"sha256:{digest.hexdigest()}"]
    assert lock.cpu_builds(f"{url}/both", "9.2") == []


def test_a_card_is_told_by_its_driver_or_its_tool(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import lock

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(lock, "NVIDIA_DRIVER", tmp_path / "nvidia")
    assert not lock.has_nvidia_card()
    (tmp_path / "nvidia").mkdir()
    assert lock.has_nvidia_card()
