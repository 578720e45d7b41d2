"""The official files in the layouts in which people have them, and what the commands make of each.

    python -m tests.layouts        prints the table

Names of files and folders are as published; texts and pictures are made up and small. Each layout
is fetched into a data folder of its own, then `vwsd doctor`, `evaluate` and `audit` look at it.
What is expected stands beside each layout and is checked by tests/unit/test_layouts.py.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import tarfile
import tempfile
import threading
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

from PIL import Image

from vwsd_companion import cli
from vwsdlib.data import fetch, official
from vwsdlib.paths import sha256_bytes

Files = dict[str, bytes]
SUFFIXES = ("jpg", "png", "JPG", "jpeg", "PNG")
FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG"}
GOLD, RESIZED, ORIGINAL = "test.data.v1.1.gold", "test_images_resized", "test_images"
TRAIN = "semeval-2023-task-1-V-WSD-train-v1"
COMPLETE = "complete"
NO_GOLD = r"en.test.gold.v1.1.txt.*a package of its own\) from https.*--from DIR"


# ---------------------------------------------------------------------------- made-up files


def parts(split: str) -> list[tuple[str, str, str]]:
    """(data file, gold file, language) of a split."""
    named = official.OFFICIAL_FILES.items()
    return [(*files[:2], language) for (language, part), files in named if part == split]


def texts(split: str) -> Files:
    """The text of a split: two items a language that share pictures."""
    files = {}
    for start, (data, gold, language) in enumerate(parts(split)):
        lines, golds = [], []
        for i in (0, 4):
            numbers = range(7 * start + i, 7 * start + i + 10)
            names = [f"image.{n}.{SUFFIXES[n % len(SUFFIXES)]}" for n in numbers]
            word = f"word{'abcde'[i]}"
            lines.append("\t".join([word, f"{word} {split} {language}", *names]) + "\n")
            golds.append(f"{names[2]}\n")
        files[data], files[gold] = "".join(lines).encode(), "".join(golds).encode()
    return files


def golds(split: str) -> Files:
    """The gold files alone."""
    return {name: data for name, data in texts(split).items() if ".gold" in name}


def queries(split: str) -> Files:
    """The data files alone, without gold."""
    return {name: data for name, data in texts(split).items() if ".data" in name}


def pictures(split: str, side: int = 24) -> Files:
    """A small picture for each image name; the same name shows another one in each split."""
    files = {}
    for data in queries(split).values():
        for line in data.decode().splitlines():
            for name in line.split("\t")[2:]:
                colour = sha256_bytes(f"{split} {name}".encode())[:6]
                out = io.BytesIO()
                made = Image.new("RGB", (side, side), f"#{colour}")
                made.save(out, FORMATS[name.rpartition(".")[2].lower()])
                files[name] = out.getvalue()
    return files


def below(folder: str, files: Files) -> Files:
    """The files in a folder."""
    return {f"{folder}/{name}": data for name, data in files.items()}


def v1(split: str, files: Files | None = None) -> Files:
    """A split as the package of train and trial has it, where trial's files have other names."""
    new = {old: name for name, old in official.RENAMED.items()}
    named = {new.get(name, name): data for name, data in (files or texts(split)).items()}
    home = f"{TRAIN}/{split}_v1"
    return below(home, named) | below(f"{home}/{split}_images_v1", pictures(split))


def windows(files: Files) -> Files:
    """Text with Windows' line ends."""
    return {name: data.replace(b"\n", b"\r\n") for name, data in files.items()}


# ---------------------------------------------------------------------------- packed by whom


def as_folder(files: Files, home: Path) -> Path:
    """Loose files."""
    for name, data in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(data)
    return home


def as_zip(files: Files, path: Path) -> Path:
    """A zip with its folders, made on Linux."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for folder in sorted({name.rpartition("/")[0] for name in files} - {""}):
            archive.writestr(f"{folder}/", b"")
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def as_windows_zip(files: Files, path: Path) -> Path:
    """With backslashes for slashes, in folders too, and letters of code page 437."""
    as_zip({name.replace("/", "\\"): data for name, data in files.items()}, path)
    folders = sorted({name.rpartition("/")[0] for name in files} - {""})
    with zipfile.ZipFile(path, "a") as archive:
        for folder in folders:
            archive.writestr(folder.replace("/", "\\") + "\\", b"")
    return _renamed(path, b"Umlaut__", "Umläut__".encode("cp437"))


def as_macos_zip(files: Files, path: Path) -> Path:
    """With what macOS keeps beside each file, and decomposed letters in UTF-8 without its flag."""
    beside = {}
    for name in files:
        folder, _, last = name.rpartition("/")
        beside[f"__MACOSX/{folder}/._{last}".replace("//", "/")] = b"\0\5\26\7 not this"
    as_zip({**beside, **files}, path)
    return _renamed(path, b"Umlaut__", unicodedata.normalize("NFD", "Umläut").encode())


def _renamed(path: Path, old: bytes, new: bytes) -> Path:
    """Other bytes of the same number in the names of an archive's members."""
    assert len(old) == len(new)
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


def as_tar(files: Files, path: Path, prefix: str = "") -> Path:
    """A tar, compressed as its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packing = path.name.rpartition(".")[2]
    with tarfile.open(path, f"w:{'' if packing == 'tar' else packing}") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


# ---------------------------------------------------------------------------- over HTTP


class Host(BaseHTTPRequestHandler):
    """Serves a folder, knows ranges, and hangs up in the middle of as many answers as `drops`
    says.
    """

    folder = Path()
    drops = 0
    sent: list[tuple[str, int]] = []  # path, bytes of its body

    def do_GET(self):
        body = (self.folder / self.path.partition("?")[0].strip("/")).read_bytes()
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        rest = body[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if type(self).drops:
            type(self).drops -= 1
            rest = rest[: len(rest) // 2]
        self.sent.append((self.path, len(rest)))
        self.wfile.write(rest)

    def log_message(self, *_):
        pass


@contextmanager
def hosted(folder: Path, drops: int = 0) -> Iterator[tuple[str, type[Host]]]:
    """(address, handler) of a server of a folder."""
    handler = type("Hosting", (Host,), {"folder": folder, "drops": drops, "sent": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def world(home: Path) -> Iterator[None]:
    """The made-up texts are the official ones, data and cache lie below `home`, and the release is
    a folder `home`/host behind a server that drops twice.
    """
    hashes = {}
    for split in ("test", "trial", "train"):
        hashes |= {name: sha256_bytes(data) for name, data in texts(split).items()}
    folders = {"VWSD_DATA": home / "data", "VWSD_CACHE": home / "cache", "VWSD_RESULTS": home}
    settings = {name: str(folder) for name, folder in folders.items()} | {"no_proxy": "*"}
    with hosted(home / "host", drops=2) as (address, _):
        released = {
            key: f"{address}/{url.rpartition('/')[2]}" for key, url in fetch.RELEASED.items()
        }
        with (
            mock.patch.dict(official.OFFICIAL, hashes),
            mock.patch.dict(fetch.RELEASED, released),
            mock.patch.dict(os.environ, settings),
            mock.patch.object(fetch, "PAUSE", 0),
        ):
            os.environ["VWSD_TEST_HOST"] = address
            yield


# ---------------------------------------------------------------------------- the layouts


@dataclass(frozen=True)
class Layout:
    """How the files lie. make: (folder) -> what follows `vwsd fetch vwsd --split SPLIT`, once for
    each call; outcome: a pattern of what the last call prints, COMPLETE where all is there.
    """

    name: str
    make: Callable[[Path], list[list[str]]]
    split: str = "test"
    outcome: str = COMPLETE


LAYOUTS: list[Layout] = []


def layout(name: str, split: str = "test", outcome: str = COMPLETE) -> Callable:
    """Add a layout; the function writes it and returns the arguments of each fetch."""

    def add(make: Callable[[Path], list[list[str]]]) -> Callable:
        LAYOUTS.append(Layout(name, make, split, outcome))
        return make

    return add


def given(*paths: object) -> list[list[str]]:
    """A fetch from each path, in turn."""
    return [["--from", str(path)] for path in paths]


TESTS = below(GOLD, texts("test")) | below(RESIZED, pictures("test"))


@layout("folders, unpacked on Linux")
def folders(home: Path) -> list[list[str]]:
    return given(as_folder(TESTS | {f"{GOLD}/README.txt": b"read me"}, home / "mine"))


@layout("two zips as published, beside each other")
def zips(home: Path) -> list[list[str]]:
    as_zip(below(GOLD, texts("test")), home / "mine" / f"{GOLD}.zip")
    as_zip(below(RESIZED, pictures("test")), home / "mine" / f"{RESIZED}.zip")
    return given(home / "mine")


@layout("zip made on Windows: backslashes, code page 437")
def zip_of_windows(home: Path) -> list[list[str]]:
    return given(as_windows_zip(below("Umlaut__", TESTS), home / "mine.zip"))


@layout("zip made on macOS: __MACOSX, ._files, decomposed letters")
def zip_of_macos(home: Path) -> list[list[str]]:
    return given(as_macos_zip(below("Umlaut__", TESTS), home / "mine.zip"))


@layout("folders on macOS: ._files beside each file")
def folders_of_macos(home: Path) -> list[list[str]]:
    odd = {}
    for name in TESTS:
        folder, _, last = name.rpartition("/")
        odd[f"{folder}/._{last}"] = b"\0\5\26\7 not this"
    name = unicodedata.normalize("NFD", "Téléchargements")
    return given(as_folder(TESTS | odd, home / name))


@layout("tar.gz with ./ before names, original pictures, flat")
def tars(home: Path) -> list[list[str]]:
    as_tar(texts("test"), home / "mine" / "text.tar.gz", "./")
    as_tar(pictures("test", 40), home / "mine" / f"{ORIGINAL}.tar.gz", "./")
    return given(home / "mine")


@layout("tar.xz in capitals, text with Windows' line ends")
def line_ends(home: Path) -> list[list[str]]:
    made = as_tar(below(GOLD, windows(texts("test"))), home / "mine" / "a.tar.xz")
    made.rename(made.with_name("A.TAR.XZ"))
    as_folder(below(RESIZED, pictures("test")), home / "mine")
    return given(home / "mine")


@layout("a browser's second copies: NAME (1).zip, flat")
def second_copies(home: Path) -> list[list[str]]:
    as_zip(texts("test"), home / "mine" / f"{GOLD} (1).zip")
    as_zip(pictures("test"), home / "mine" / f"{RESIZED} (1).zip")
    return given(home / "mine")


@layout("both sizes at hand, --images resized")
def both_sizes(home: Path) -> list[list[str]]:
    both = TESTS | below(ORIGINAL, pictures("test", 40))
    return [["--images", "resized", "--from", str(as_folder(both, home / "mine"))]]


@layout("text without gold; the gold's folder lies beside")
def gold_beside(home: Path) -> list[list[str]]:
    as_folder(below(GOLD, texts("test")), home / "downloads")
    files = below("text", queries("test")) | below(RESIZED, pictures("test"))
    return given(as_folder(files, home / "downloads" / "mine"))


@layout("text without gold; the gold's zip lies beside")
def gold_zip_beside(home: Path) -> list[list[str]]:
    as_zip(below(GOLD, texts("test")), home / "downloads" / f"{GOLD}.zip")
    files = below("test.data.v1.1", queries("test")) | below(RESIZED, pictures("test"))
    return given(as_zip(files, home / "downloads" / "all.zip"))


@layout("in pieces: pictures, then text, then gold")
def pieces(home: Path) -> list[list[str]]:
    return given(
        as_zip(below(RESIZED, pictures("test")), home / "a" / f"{RESIZED}.zip"),
        as_zip(queries("test"), home / "b" / "test.data.v1.1.zip"),
        as_folder(golds("test"), home / "c" / GOLD),
    )


def released(home: Path) -> None:
    """The release's two archives, the first without gold, on the host."""
    as_zip(below("test.data.v1.1", queries("test")), home / "host" / "test.data.v1.1.zip")
    as_zip(below(RESIZED, pictures("test")), home / "host" / f"{RESIZED}.zip")


@layout("over HTTP, dropped twice; no gold in the release", outcome=NO_GOLD)
def over_http(home: Path) -> list[list[str]]:
    released(home)
    return [[]]


@layout("the same, then the gold from its package")
def over_http_and_gold(home: Path) -> list[list[str]]:
    released(home)
    return [[], *given(as_zip(below(GOLD, texts("test")), home / "mine" / f"{GOLD}.zip"))]


@layout("a URL of one's own: --from http://.../all.zip, dropped twice")
def from_url(home: Path) -> list[list[str]]:
    as_zip(TESTS, home / "host" / "all.zip")
    return given(f"{os.environ['VWSD_TEST_HOST']}/all.zip")


@layout("package of train and trial, zip: train", "train")
def train(home: Path) -> list[list[str]]:
    return given(as_zip(v1("train") | v1("trial"), home / f"{TRAIN}.zip"))


@layout("package of train and trial, zip: trial", "trial")
def trial_of_train(home: Path) -> list[list[str]]:
    return given(as_zip(v1("train") | v1("trial"), home / f"{TRAIN}.zip"))


@layout("package of train and trial, unpacked: trial", "trial")
def trial_unpacked(home: Path) -> list[list[str]]:
    return given(as_folder(v1("train") | v1("trial"), home / "mine"))


@layout("older package of trial, folder", "trial")
def older_trial(home: Path) -> list[list[str]]:
    files = texts("trial") | below("all_images", pictures("trial"))
    return given(as_folder(files, home / "trial-v1"))


@layout("older package of trial, over HTTP", "trial")
def older_trial_over_http(home: Path) -> list[list[str]]:
    files = texts("trial") | below("all_images", pictures("trial"))
    as_tar(below("trial-v1", files), home / "host" / fetch.TRIAL.rpartition("/")[2])
    return [[]]


# ---------------------------------------------------------------------------- what is missing


@layout(
    "pictures alone",
    outcome=r"en.test.data.v1.1.txt  ->  vwsd fetch vwsd --split test --images resized, which",
)
def pictures_alone(home: Path) -> list[list[str]]:
    return given(as_folder(below(RESIZED, pictures("test")), home / "mine"))


@layout(
    "text and gold, no pictures",
    outcome=r"pictures of en test: 0 of 14.*--images resized, which downloads it",
)
def text_alone(home: Path) -> list[list[str]]:
    return given(as_zip(below(GOLD, texts("test")), home / f"{GOLD}.zip"))


@layout("train without its pictures", "train", r"download the train\+trial data \(17 GB")
def train_text_alone(home: Path) -> list[list[str]]:
    return given(as_folder(below("train_v1", texts("train")), home / "mine"))


@layout("an edited text", outcome=r"fa.test.gold.txt is not byte for byte the published file")
def edited(home: Path) -> list[list[str]]:
    files = dict(TESTS)
    files[f"{GOLD}/fa.test.gold.txt"] += b"image.1.png\n"
    return given(as_folder(files, home / "mine"))


@layout("trial_v1 with another text", "trial", r"trial.data.txt is not byte for byte.*published")
def another_trial(home: Path) -> list[list[str]]:
    other = {name: data.replace(b"worda", b"words") for name, data in texts("trial").items()}
    return given(as_zip(v1("trial", other), home / f"{TRAIN}.zip"))


@layout("two pictures missing", outcome=r"resized\): 12 of 14, without image.0.jpg, image.4.PNG")
def two_missing(home: Path) -> list[list[str]]:
    lost = {f"{RESIZED}/image.0.jpg", f"{RESIZED}/image.4.PNG"}
    files = {name: data for name, data in TESTS.items() if name not in lost}
    return given(as_folder(files, home / "mine"))


@layout("a zip that is cut short", outcome=r"the archive is damaged or locked")
def cut_short(home: Path) -> list[list[str]]:
    made = as_zip(TESTS, home / "mine.zip")
    made.write_bytes(made.read_bytes()[:-300])
    return given(made)


@layout("a web page in a zip's place", outcome=r"a web page lies in the archive's place")
def web_page(home: Path) -> list[list[str]]:
    return given(as_folder({f"{GOLD}.zip": b"<html>Quota exceeded</html>"}, home / "mine"))


# ---------------------------------------------------------------------------- driving the commands


@dataclass(frozen=True)
class Outcome:
    """What the commands made of a layout: `fetch` as printed by the last call, the others COMPLETE
    or a sentence.
    """

    layout: Layout
    fetch: str
    doctor: str
    evaluate: str
    audit: str

    @property
    def as_expected(self) -> bool:
        """Does the fetch end as the layout says?"""
        whole = self.layout.outcome == COMPLETE
        return self.fetch == COMPLETE if whole else bool(re.search(self.layout.outcome, self.fetch))


def vwsd(*arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main(list(arguments))
    return code, out.getvalue(), err.getvalue()


def drive(one: Layout, home: Path) -> Outcome:
    """Make a layout below `home` and drive the commands over it."""
    with world(home):
        (home / "host").mkdir()
        fetched = ""
        for arguments in one.make(home):
            code, out, err = vwsd("fetch", "vwsd", "--split", one.split, *arguments)
            fetched = COMPLETE if code == 0 else first_complaint(out + err)
        cells = [fetched, doctor(one.split), evaluate(one.split), audit(one.split)]
        return Outcome(one, *(cell.replace(str(home), "") for cell in cells))


def first_complaint(printed: str) -> str:
    """The first line that is not [OK]."""
    return next(line for line in printed.splitlines() if not line.startswith("[OK]"))


def doctor(split: str) -> str:
    """How many of the split's files doctor finds. Train is none of those that it looks for."""
    rows = fetch.check_official(split)
    _, out, _ = vwsd("doctor", "--profile", "paper", "--json")
    checks = {row["check"]: row for row in json.loads(out)}
    if split != "train":
        rows = [checks[row["check"]] for row in rows]
    good = sum(row["state"] == "OK" for row in rows)
    return COMPLETE if good == len(rows) else f"{good} of {len(rows)} [OK]"


def evaluate(split: str) -> str:
    """A random encoder over the English items."""
    code, out, err = vwsd("evaluate", "--set", f"vwsd:en.{split}", "--encoder", "random", "--json")
    if code:
        return err.strip()
    made = json.loads(out)
    missing = sum(map(len, made["missing"].values()))
    n = made["systems"][0]["n"]
    return f"{n} items, {missing} pictures ranked last" if missing else f"{n} items"


def audit(split: str) -> str:
    """The audit of the English files that were fetched."""
    data, gold, _ = parts(split)[0]
    folder = Path(os.environ["VWSD_DATA"]) / "vwsd" / split
    code, out, err = vwsd(
        "audit", "--data", str(folder / data), "--gold", str(folder / gold), "--json"
    )
    return f"{json.loads(out)['n']} items" if code == 0 else err.strip()


def table(outcomes: list[Outcome]) -> str:
    """The table in Markdown; sentences are cut."""
    lines = ["| layout | split | fetch | doctor | evaluate | audit |", "|---|---|---|---|---|---|"]
    for it in outcomes:
        cells = [it.layout.name, it.layout.split, it.fetch, it.doctor, it.evaluate, it.audit]
        lines.append("| " + " | ".join(cell[:110].replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Print the table; exit code 1 where a layout ends otherwise than expected."""
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for number, one in enumerate(LAYOUTS):
            home = Path(folder) / str(number)
            home.mkdir()
            outcomes.append(drive(one, home))
    print(table(outcomes))
    wrong = [it.layout.name for it in outcomes if not it.as_expected]
    print(f"{len(outcomes)} layouts, {len(wrong)} otherwise than expected: {', '.join(wrong)}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
