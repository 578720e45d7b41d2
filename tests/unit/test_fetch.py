"""The official files: whole, resumed, refused, from a user's folder; recorded, never mixed, never
half there. A small server plays the release.
"""

import io
import tarfile
import threading
import zipfile
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vwsd_companion import cli
from vwsdlib.data import fetch, official, sets
from vwsdlib.errors import VwsdError
from vwsdlib.paths import sha256_bytes

TEXTS = {
    split: [
        name
        for (_, part), files in official.OFFICIAL_FILES.items()
        if part == split
        for name in files[:2]
    ]
    for split in ("test", "trial")
}


def toy(split):
    """{file name: bytes} of a split in the official layout: two items a language, thirteen pictures
    each, some shared between languages.
    """
    files = {}
    for start, (data, gold) in enumerate(zip(TEXTS[split][::2], TEXTS[split][1::2])):
        ten = [[f"image.{5 * start + i + j}.jpg" for j in range(10)] for i in (0, 3)]
        files[data] = "".join(
            "\t".join([f"word{i}", f"a word{i}", *names]) + "\n" for i, names in enumerate(ten)
        ).encode()
        files[gold] = "".join(f"{names[2]}\n" for names in ten).encode()
    return files


def pictures(split, variant):
    lines = [
        line
        for name, data in toy(split).items()
        if ".data" in name
        for line in data.decode().split("\n")
    ]
    return {
        name: f"GIF89a {split} {variant} {name}".encode()
        for line in lines
        for name in line.split("\t")[2:]
    }


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def below(folder, files):
    return {f"{folder}/{name}": data for name, data in files.items()}


class Release(BaseHTTPRequestHandler):
    """Serves `files`; `faults[path]` is a list of what goes wrong, one entry a request: a status,
    "cut", "page" or "no ranges".
    """

    files, faults, asked = {}, defaultdict(list), []

    def do_GET(self):
        start, fault = (
            self.headers.get("Range"),
            (self.faults[self.path].pop(0) if self.faults[self.path] else None),
        )
        self.asked.append((self.path, start))
        if isinstance(fault, int):
            return self.send_error(fault)
        body = b"<html>Quota exceeded</html>" if fault == "page" else self.files[self.path]
        offset = int(start[6:-1]) if start and fault not in ("page", "no ranges") else 0
        if offset >= len(body):
            return self.send_error(416)
        self.send_response(206 if offset else 200)
        if offset:
            self.send_header("Content-Range", f"bytes {offset}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - offset))
        self.end_headers()
        self.wfile.write(
            body[offset : offset + (len(body) - offset) // 2] if fault == "cut" else body[offset:]
        )

    def log_message(self, *_):
        pass


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A data folder of its own, where the toy sets are the official ones."""
    monkeypatch.setenv("VWSD_DATA", str(tmp_path / "data"))
    for split in TEXTS:
        for name, data in toy(split).items():
            monkeypatch.setitem(official.OFFICIAL, name, sha256_bytes(data))
    return tmp_path / "data" / "vwsd"


@pytest.fixture
def release(home, monkeypatch):
    """The release as a server; gives the handler class, whose `files`, `faults` and `asked` a test
    may change and read.
    """
    handler = type(
        "Toy",
        (Release,),
        {
            "faults": defaultdict(list),
            "asked": [],
            "files": {
                "/text.zip": zipped(
                    below("test.data.v1.1.gold", toy("test"))
                    | {"__MACOSX/._en.test.data.v1.1.txt": b"x"}
                ),
                "/pictures.zip": zipped(
                    below("test_images_resized", pictures("test", "resized"))
                    | {
                        "test_images_resized/image.999.jpg": b"not needed",
                        "../../../evil.txt": b"evil",
                        "/evil.txt": b"evil",
                    }
                ),
                "/trial.tar.gz": tarred(
                    below("trial-v1/all_images", pictures("trial", "original"))
                    | below("trial-v1", toy("trial"))
                ),
            },
        },
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for key, path in {
        ("test", "text"): "text.zip",
        ("test", "resized"): "pictures.zip",
        ("trial", "text"): "trial.tar.gz",
        ("trial", "original"): "trial.tar.gz",
    }.items():
        monkeypatch.setitem(fetch.RELEASED, key, f"{address}/{path}")
    monkeypatch.setattr(fetch, "PAUSE", 0)
    monkeypatch.setenv("no_proxy", "*")
    yield handler
    server.shutdown()
    server.server_close()


def states(found):
    return [row["state"] for row in found]


def placed(folder):
    """Names of all files there, hidden ones too, without those of the downloads."""
    return {
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and ".downloads" not in p.parts
    }


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


# ---------------------------------------------------------------------------- the release


@pytest.mark.parametrize("split, variant", [("test", "resized"), ("trial", "original")])
def test_the_release_is_taken_whole_and_nothing_else(release, home, split, variant):
    assert set(states(fetch.fetch_vwsd(split))) == {"OK"}
    images = official.OFFICIAL_FILES["en", split][2]
    assert placed(home) == {f"{split}/{name}" for name in (*toy(split), "images.json")} | {
        f"{split}/{images}/{name}" for name in pictures(split, variant)
    }
    assert all(
        (home / split / images / name).read_bytes() == data
        for name, data in pictures(split, variant).items()
    )
    assert not list(home.parent.parent.rglob("evil*")) and not any((home / ".downloads").iterdir())
    data = sets.load_set("vwsd", "en", split)
    assert data.official is True and data.image_variant == variant and len(data.items) == 2
    asked = len(release.asked)
    assert (
        set(states(fetch.fetch_vwsd(split))) == {"OK"} and len(release.asked) == asked
    )  # complete: nothing is asked for


def test_a_cut_download_goes_on_where_it_stopped(release, home):
    release.faults["/pictures.zip"] = ["cut", "cut"]
    assert set(states(fetch.fetch_vwsd())) == {"OK"}
    ranges = [start for path, start in release.asked if path == "/pictures.zip"]
    whole = len(release.files["/pictures.zip"])
    assert ranges == [
        None,
        f"bytes={whole // 2}-",
        f"bytes={whole // 2 + (whole - whole // 2) // 2}-",
    ]


def test_what_came_before_giving_up_is_kept_for_the_next_run(release, home):
    release.faults["/pictures.zip"] = ["cut"] * fetch.TRIES
    with pytest.raises(VwsdError, match="failed 4 times.*of .* bytes came"):
        fetch.fetch_vwsd()
    assert placed(home) == {f"test/{name}" for name in toy("test")} and [
        p.name for p in (home / ".downloads").glob("p*")
    ] == ["pictures.zip.part"]
    assert set(states(fetch.fetch_vwsd())) == {"OK"} and release.asked[-1][1] is not None


@pytest.mark.parametrize(
    "faults, start",
    [(["cut", "no ranges"], b""), ([], b"PK" + b"x" * 9999)],
    ids=["ignores ranges", "a part of another file"],
)
def test_a_host_that_cannot_resume_starts_again(release, tmp_path, faults, start):
    release.faults["/pictures.zip"] = faults
    target = tmp_path / "got.zip"
    if start:
        (tmp_path / "got.zip.part").write_bytes(start)
    fetch.download(fetch.RELEASED["test", "resized"], target)
    assert (
        target.read_bytes() == release.files["/pictures.zip"]
        and not (tmp_path / "got.zip.part").exists()
    )


@pytest.mark.parametrize(
    "fault, words, requests",
    [
        (403, "refuses: HTTP 403", 1),
        (404, "refuses: HTTP 404", 1),
        (503, "failed 4 times", 4),
        ("page", "a page instead of an archive", 1),
    ],
)
def test_a_host_that_refuses_is_named_and_leaves_nothing(
    release, home, capsys, fault, words, requests
):
    release.faults["/text.zip"] = [fault] * fetch.TRIES
    assert cli.main(["fetch", "vwsd"]) == 2
    err = capsys.readouterr().err
    assert words in err and "text.zip" in err and "--from DIR" in err and err.count("\n") == 1
    assert (
        placed(home) == set() and not list(home.rglob("*.zip*")) and len(release.asked) == requests
    )


def test_without_a_network(home, monkeypatch):
    monkeypatch.setitem(fetch.RELEASED, ("test", "text"), "http://127.0.0.1:9/text.zip")
    monkeypatch.setattr(fetch, "PAUSE", 0)
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(VwsdError, match="failed 4 times.*refused"):
        fetch.fetch_vwsd()
    assert placed(home) == set()


def test_a_damaged_archive_is_named_and_whole_members_stay(release, home):
    body = bytearray(release.files["/pictures.zip"])
    at = body.index(b"test resized image.12.jpg")
    body[at : at + 4] = b"XXXX"
    release.files["/pictures.zip"] = bytes(body)
    with pytest.raises(VwsdError, match="damaged") as e:
        fetch.fetch_vwsd()
    assert "pictures.zip" in e.value.where and "Remove it" in e.value.remedy
    assert "test/test_images/image.12.jpg" not in placed(
        home
    ) and "test/test_images/image.0.jpg" in placed(home)


def test_what_only_a_browser_gets_is_said(release, home, capsys):
    assert cli.main(["fetch", "vwsd", "--images", "original"]) == 1
    out = capsys.readouterr().out
    assert (
        out.count("[OK]") == 6
        and out.count("[MISSING]") == 3
        and "10.4 GB" in out
        and "--images original --from DIR" in out
    )
    assert (
        cli.main(["fetch", "vwsd", "--split", "train"]) == 1 and "17 GB" in capsys.readouterr().out
    )
    assert {path for path, _ in release.asked} == {"/text.zip"}


# ---------------------------------------------------------------------------- a user's own files


def test_from_a_folder_by_name_and_split(home, tmp_path):
    """Trial pictures have the same names and are others; they are left alone wherever they lie."""
    mine = write(
        tmp_path / "mine",
        below("deep/er", toy("test"))
        | below("a/all_images", pictures("trial", "original"))
        | below("z/test_images", pictures("test", "original"))
        | below("loose", pictures("trial", "loose")),
    )
    assert set(states(fetch.fetch_vwsd(source=mine))) == {"OK"}
    assert official.image_variant(home / "test") == "original"
    there = home / "test" / "test_images" / "image.4.jpg"
    assert there.read_bytes() == b"GIF89a test original image.4.jpg" and there.samefile(
        mine / "z" / "test_images" / "image.4.jpg"
    )


def test_from_where_links_are_not_possible(home, tmp_path, monkeypatch):
    mine = write(
        tmp_path / "mine", toy("test") | below("test_images", pictures("test", "original"))
    )
    monkeypatch.setattr(fetch.os, "link", lambda *_: (_ for _ in ()).throw(OSError("another disk")))
    assert set(states(fetch.fetch_vwsd(source=mine))) == {"OK"}
    there = home / "test" / "test_images" / "image.4.jpg"
    assert there.read_bytes() == b"GIF89a test original image.4.jpg" and not there.samefile(
        mine / "test_images" / "image.4.jpg"
    )


@pytest.mark.parametrize(
    "name, pack, inside",
    [
        ("test_images_resized.zip", zipped, ""),
        ("drive-1.zip", zipped, "x/test_images_resized/"),
        ("test_images_resized.tar.gz", tarred, "./"),
        ("b.tgz", tarred, "./test_images_resized/"),
    ],
)
def test_from_archives_flat_or_not(home, tmp_path, name, pack, inside):
    files = {f"{inside}{name}": data for name, data in pictures("test", "resized").items()}
    mine = write(tmp_path / "mine", {"text.zip": zipped(toy("test")), name: pack(files)})
    assert (
        set(states(fetch.fetch_vwsd(source=mine))) == {"OK"}
        and official.image_variant(home / "test") == "resized"
    )
    assert placed(tmp_path / "mine") == {"text.zip", name}


def test_an_archive_may_be_named_itself(home, tmp_path):
    write(tmp_path, {"t.zip": zipped(toy("test"))})
    assert states(fetch.fetch_vwsd(source=tmp_path / "t.zip")) == ["OK"] * 6 + ["MISSING"] * 3


def test_both_variants_at_hand_and_only_the_asked_one_taken(home, tmp_path):
    both = below("test_images", pictures("test", "original")) | below(
        "test_images_resized", pictures("test", "resized")
    )
    mine = write(tmp_path / "mine", toy("test") | both)
    fetch.fetch_vwsd(source=mine, images="resized")
    assert {p.read_bytes().split()[2] for p in (home / "test" / "test_images").iterdir()} == {
        b"resized"
    }


def test_an_edited_text_is_different_and_not_taken(home, tmp_path, capsys):
    files = toy("test")
    files["fa.test.gold.txt"] += b"\n"
    del files["it.test.gold.v1.1.txt"]
    mine = write(tmp_path / "mine", files)
    assert cli.main(["fetch", "vwsd", "--from", str(mine)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (
        "[DIFFERENT] fa.test.gold.txt" in lines[5]
        and lines[3].startswith("[MISSING] it.test.gold")
        and lines[0].startswith("[OK] en.test.data")
    )
    assert not (home / "test" / "fa.test.gold.txt").exists()
    write(home / "test", {"fa.test.gold.txt": files["fa.test.gold.txt"]})
    assert states(fetch.check_official("test"))[5] == "DIFFERENT"
    write(mine / "good", toy("test"))
    assert states(fetch.fetch_vwsd(source=mine))[:6] == ["OK"] * 6  # a published copy replaces it


def test_missing_pictures_are_counted_and_named(home, tmp_path):
    some = {
        name: data
        for name, data in pictures("test", "original").items()
        if name not in ("image.1.jpg", "image.12.jpg")
    }
    found = fetch.fetch_vwsd(
        source=write(tmp_path / "mine", toy("test") | below("test_images", some))
    )
    assert [(row["state"], row["what"]) for row in found[6:]] == [
        ("MISSING", "pictures of en test (original): 11 of 13, without image.1.jpg, image.12.jpg"),
        ("MISSING", "pictures of it test (original): 12 of 13, without image.12.jpg"),
        ("MISSING", "pictures of fa test (original): 12 of 13, without image.12.jpg"),
    ]


def test_nothing_there(home, tmp_path):
    with pytest.raises(VwsdError, match="no such folder"):
        fetch.fetch_vwsd(source=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert (
        states(fetch.fetch_vwsd(source=tmp_path / "empty")) == ["MISSING"] * 9
        and "unknown without" in fetch.check_official("test")[6]["what"]
    )


# ---------------------------------------------------------------------------- one variant a folder


@pytest.fixture
def resized(home, tmp_path):
    """The data folder with all resized pictures but image.12.jpg; and a folder with both
    variants."""
    both = below("test_images", pictures("test", "original")) | below(
        "test_images_resized", pictures("test", "resized")
    )
    mine = write(tmp_path / "mine", toy("test") | both)
    fetch.fetch_vwsd(source=mine, images="resized")
    (home / "test" / "test_images" / "image.12.jpg").unlink()
    return home, mine


def test_another_variant_is_never_mixed_in(resized):
    home, mine = resized
    with pytest.raises(VwsdError, match="resized pictures; original ones are never mixed") as e:
        fetch.fetch_vwsd(source=mine, images="original")
    assert "Remove that folder" in e.value.remedy
    fetch.fetch_vwsd(source=mine)  # without --images it goes on as recorded
    assert (
        home / "test" / "test_images" / "image.12.jpg"
    ).read_bytes() == b"GIF89a test resized image.12.jpg"
    for picture in (home / "test" / "test_images").iterdir():
        picture.unlink()
    assert (
        set(states(fetch.fetch_vwsd(source=mine, images="original"))) == {"OK"}
        and sets.load_set("vwsd", "fa").image_variant == "original"
    )


def test_pictures_without_a_record_are_asked_about(resized):
    home, mine = resized
    (home / "test" / "images.json").unlink()
    assert sets.load_set("vwsd", "en").image_variant == "as stored"
    with pytest.raises(VwsdError, match="no record says of which size"):
        fetch.fetch_vwsd(source=mine)
    assert (
        set(states(fetch.fetch_vwsd(source=mine, images="resized"))) == {"OK"}
        and official.image_variant(home / "test") == "resized"
    )
    (home / "test" / "images.json").write_text("{")
    with pytest.raises(VwsdError, match="cannot be read"):
        fetch.check_official("test")


def test_a_record_beside_the_source_outweighs_the_folders_name(resized, tmp_path, monkeypatch):
    """Resized pictures of another data folder stand in `test_images`, generated ones of the
    rehearsal too.
    """
    home, _ = resized
    monkeypatch.setenv("VWSD_DATA", str(tmp_path / "second"))
    fetch.fetch_vwsd(source=home)
    assert official.image_variant(tmp_path / "second" / "vwsd" / "test") == "resized"
    monkeypatch.setenv("VWSD_DATA", str(tmp_path / "third"))
    (home / "test" / "images.json").write_text('{"variant": "generated"}')
    assert (
        states(fetch.fetch_vwsd(source=home))[6:] == ["MISSING"] * 3
        and not (tmp_path / "third" / "vwsd" / "test" / "test_images").exists()
    )


def test_variants_that_were_never_published(home):
    with pytest.raises(VwsdError, match="trial pictures were never published as resized"):
        fetch.fetch_vwsd("trial", images="resized")


def test_fingerprint_follows_text_variant_and_number_of_pictures(resized):
    home, mine = resized
    before = [sets.fingerprint("vwsd")]
    assert sets.fingerprint("vwsd") == before[0] != ""
    fetch.fetch_vwsd(source=mine)
    before.append(sets.fingerprint("vwsd"))
    (home / "test" / "images.json").write_text('{"variant": "original"}')
    before.append(sets.fingerprint("vwsd"))
    (home / "test" / "fa.test.gold.txt").write_bytes(b"image.13.jpg\n" * 2)
    before.append(sets.fingerprint("vwsd"))
    (home / "test" / "README.txt").write_text("no part of the set")
    assert len(set(before)) == 4 and sets.fingerprint("vwsd") == before[-1]


def test_without_files_the_fingerprint_is_empty_and_the_error_names_the_command(home):
    assert sets.fingerprint("vwsd") == ""
    with pytest.raises(
        VwsdError,
        match=(
            "en.test.data.v1.1.txt and en.test.gold.v1.1.txt.*not here.*vwsd fetch vwsd --split"
            " test"
        ),
    ):
        sets.load_set("vwsd", "en")


def test_the_real_files_are_taken_and_counted(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("VWSD_DATA", str(tmp_path))
    found = fetch.fetch_vwsd(source=shared / "vwsd" / "test")
    assert states(found)[:6] == ["OK"] * 6 and [
        row["what"].split(", without")[0][-8:] for row in found[6:]
    ] == ["of 4,090", "of 2,726", "of 1,756"]
