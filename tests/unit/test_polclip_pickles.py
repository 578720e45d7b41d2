"""Hostile pickles and torch files, assembled by hand: refused in one sentence, in little memory and
time, before anything of them is built.
"""

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polclip import pickles, published
from polclip.published import convert_tensors
from vwsdlib.errors import VwsdError

ROOT = Path(__file__).resolve().parents[2]
PIXELS = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(0)).half()
SAVED = pickle.dumps({"x": PIXELS}, protocol=4)
# sets a permitted function's defaults: BUILD with the state (None, {"__defaults__": (1,)})
BUILD = (
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b."
)


def saved(value, **how) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **how)
    return file.getvalue()


def zipped(value, compress=zipfile.ZIP_STORED, more=0) -> bytes:
    """What torch saved, its members written again; `more` bytes of nothing are added to the
    storage.
    """
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved(value))) as old,
        zipfile.ZipFile(file, "w", compress) as new,
    ):
        for member in old.infolist():
            data = old.read(member)
            new.writestr(
                member.filename, data + b"\0" * more if member.filename.endswith("data/0") else data
            )
    return file.getvalue()


def claiming(numel: int) -> bytes:
    """An older torch file whose storage is said to have `numel` numbers."""
    data = saved(torch.zeros(4), _use_new_zipfile_serialization=False)
    return data.replace(b"K\x04N", b"J" + struct.pack("<i", numel) + b"N", 1)


def doubled(times: int) -> bytes:
    """A tuple of a tuple of ... twice each, as the key of a dict: its hash would never be done."""
    body = b"\x80\x02}K\x01\x85q\x00" + b"".join(
        b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(times)
    )
    return body + b"K\x01s."


def strided(size, stride, typed=False) -> bytes:
    four = torch.zeros(4)
    storage = pickle.dumps(four.storage() if typed else four.untyped_storage(), protocol=2)[2:-1]
    number = lambda n: b"J" + struct.pack("<i", n)  # noqa: E731
    sizes, strides = (b"(" + b"".join(map(number, some)) + b"t" for some in (size, stride))
    return (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"K\x00"
        + sizes
        + strides
        + b"\x89ccollections\nOrderedDict\n)RtRs."
    )


def hostile() -> dict[str, bytes]:
    huge = struct.pack("<I", 0xFFFFFFF0)
    return {
        "build.pkl": BUILD,
        "memo.pkl": b"\x80\x02Nr" + huge + b".",  # nine bytes: a memo of 4,294,967,281 places
        "memo_text.pkl": b"N" + b"p4294967280\n.",
        "bytes8.pkl": b"\x80\x04\x8e" + struct.pack("<Q", 4 << 30) + b".",
        "bytearray8.pkl": b"\x80\x05\x96" + struct.pack("<Q", 4 << 30) + b".",
        "text8.pkl": b"\x80\x04\x8d" + struct.pack("<Q", 4 << 30) + b".",
        "frame.pkl": b"\x80\x04\x95" + struct.pack("<Q", 4 << 30) + b".",
        "long4.pkl": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "bytes4.pkl": b"\x80\x03B" + huge + b".",
        "marks.pkl": b"\x80\x02" + b"(" * 8_000_000 + b".",
        "deep.pkl": b"\x80\x02N" + b"\x85" * 2_000_000 + b".",
        "doubled.pkl": doubled(60),
        "expanded.pkl": strided((40_000, 40_000), (0, 0)),
        "expanded_more.pkl": strided((60_000, 60_000, 60_000), (0, 0, 0)),
        "expanded.pt": saved(torch.zeros(1).expand(40_000, 40_000)),
        "expanded_old.pt": saved(
            torch.zeros(1).expand(40_000, 40_000), _use_new_zipfile_serialization=False
        ),
        "longer.pkl": strided(
            (3, 224, 224), (1, 1, 1), typed=True
        ),  # than its four numbers: torch would add what lies in memory
        "beyond.pkl": strided((2,), (1 << 20,), typed=True),
        "negative.pkl": strided((2,), (-1,), typed=True),
        "dimensions.pkl": strided((1,) * 3000, (1,) * 3000, typed=True),
        "conjugate.pt": saved(torch.zeros(3, 224, 224, dtype=torch.complex64).conj()),
        "negated.pt": saved(torch._neg_view(torch.zeros(3, 224, 224))),
        "claims.pt": claiming(2_000_000_000),
        "sparse.pt": saved(
            torch.sparse_coo_tensor(
                torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (30_000, 30_000)
            )
        ),
        "quantised.pt": saved(
            torch.quantize_per_tensor(torch.zeros(3, 224, 224), 0.1, 0, torch.qint8)
        ),
        "meta.pt": saved(torch.zeros(3, 224, 224, device="meta")),
        "nothing.pt": b"PK\x03\x04" + b"\0" * 40,
        "packed.pt": zipped(PIXELS, zipfile.ZIP_DEFLATED, 300 << 20),
        "large.pt": b"\0" * (pickles.MOST_BYTES + 1),
        "large.pkl": b"\0" * (pickles.MOST_BYTES + 1),
    }


PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from vwsdlib.errors import VwsdError
from polclip.published import convert_tensors
import torch, safetensors.numpy, tqdm
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (700 << 20),) * 2)
said = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    begun = time.monotonic()
    try:
        convert_tensors(folder, Path(sys.argv[1] + ".out"))
        said[folder.name] = "CONVERTED"
    except VwsdError as e:
        said[folder.name] = str(e)
    except BaseException as e:
        said[folder.name] = f"CRASHED {type(e).__name__}: {e}"
    if time.monotonic() - begun > 10:
        said[folder.name] += " TOO SLOW"
from torch._utils import _rebuild_tensor_v2
out = Path(sys.argv[1] + ".out").exists()
print(json.dumps({"said": said, "defaults": _rebuild_tensor_v2.__defaults__, "out": out}))
"""


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """What each hostile file is answered with, in a process that may take 700 MB more than it has
    after its imports.
    """
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc: the memory of the process cannot be told")
    folder = tmp_path_factory.mktemp("hostile")
    for name, data in hostile().items():
        (folder / name).mkdir()
        (folder / name / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", hostile())
def test_a_hostile_file_ends_in_a_sentence_with_its_name(answered, name):
    said = answered["said"][name]
    assert (
        f"/{name}]" in said
        and not said.startswith(("CRASHED", "CONVERTED"))
        and "TOO SLOW" not in said
        and said.count("\n") == 0
    ), said


def test_nothing_of_them_is_built(answered):
    assert answered["defaults"] == [None] and answered["out"] is False
    said = answered["said"]
    assert "BUILD" in said["build.pkl"] and "nothing was executed" in said["build.pkl"]
    for name, word in (
        ("sparse.pt", "sparse"),
        ("quantised.pt", "quantised"),
        ("meta.pt", "meta"),
        ("packed.pt", "unpack to more"),
        ("large.pt", "a file of 16 MB"),
    ):
        assert word in said[name]


def test_the_build_would_have_worked():
    """The pickle does what the test says, where it is unpickled by ordinary means."""

    def victim(*_):
        return None

    class Ordinary(pickle.Unpickler):
        def find_class(self, module, name):
            return victim

    Ordinary(io.BytesIO(BUILD)).load()
    assert victim.__defaults__ == (1,)


def test_a_zip_of_whole_members_is_read(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.pt").write_bytes(zipped(PIXELS))
    assert convert_tensors(tmp_path / "s", tmp_path / "t") == 1


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from([".pkl", ".pt", "old.pt"]),
    st.lists(st.tuples(st.integers(0, 800), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 400),
)
def test_mutated_bytes_end_in_tensors_or_a_sentence(ending, changes, cut):
    """Headers and opcodes stand in the first and last hundreds of bytes: there the bytes are
    changed, or the end is cut off.
    """
    data = bytearray({".pkl": SAVED, ".pt": SAVED_TORCH, "old.pt": SAVED_OLD}[ending])
    for place, value in changes:
        data[place if place < 400 else -(place - 399)] = value
    data = bytes(data[: len(data) - cut])
    load = pickles.unpickle if ending == ".pkl" else pickles.load_torch
    try:
        value = load(data, "f")
        tensors = value if isinstance(value, dict) else {"pixels": value}
        for tensor in tensors.values():
            published._array(tensor, "f")
    except VwsdError as e:
        assert e.where == "f" and e.remedy


SAVED_TORCH, SAVED_OLD = saved(PIXELS), saved(PIXELS, _use_new_zipfile_serialization=False)


def test_json_of_brackets_is_not_built(tmp_path):
    path = tmp_path / "x.json"
    for text in ("[" * 3_000_000, '[{"a":' * 500_000, '["' + "x" * 20_000_000):
        path.write_text(text)
        with pytest.raises(
            VwsdError,
            match=(
                "nested more than 64 deep, or a text without an end|not whole JSON|not the fields"
            ),
        ):
            list(published.read_textual_test(path))


def test_brackets_in_texts_are_texts(tmp_path):
    texts = ["[[[" * 40, 'a "quoted" \\ [', "\\", "{" * 200, "\u2028]"]
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"a": text} for text in texts * 3000]))
    assert list(published._read(path, lambda item, where: item["a"])) == texts * 3000

    class Bytes(io.BytesIO):
        def read(self, size=-1):
            return super().read(1)

    shallow, depths = published._Shallow(Bytes(b'[{"a": "[[\\"{{\\\\", "b": ["]"]}]'), path), []
    while shallow.read():  # a byte at a time: a text may go on in the next part
        depths.append(shallow.depth)
    assert max(depths) == 3 and depths[-1] == 0
