"""What becomes of `vwsd fetch models` where the hub has a fault, and of every published layout when
it is fetched and loaded: a table, from processes of their own against a hub on this machine.

    python -m tests.hub_faults

Exit code 0 where every row ends as it should: complete, or in one sentence.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests import fake_hub
from tests.fake_hub import FakeHub, published

KEY, SENTENCE, SIGLIP = "clip-vit-b32", "clip-b32-multilingual", "siglip-multilingual"
RUN = """import sys
from vwsdlib.encoders import hub
hub.PAUSES = (0.01,) * 4  # as many tries as ever, without the wait
from vwsd_companion.cli import main
sys.exit(main(sys.argv[1:]))"""
LOAD = """import sys
from vwsdlib.encoders.pretrained import load_pretrained
encoder = load_pretrained(sys.argv[1])
vectors = encoder.encode_texts(["fruit bat", "an old tree"])
print(f"loads: {len(vectors)} x {vectors.shape[1]}, {encoder.identity()['revision']}")"""
FAULTS = {  # fault -> (exit code, what must be said)
    "": (0, "MB"),
    "drop once": (0, "MB"),
    "reset once": (0, "MB"),
    "stall once": (0, "MB"),  # and killed meanwhile
    "no ranges": (0, "MB"),
    "damage once": (0, "MB"),
    "rate once": (0, "MB"),
    "busy once": (0, "MB"),
    "xet": (0, "MB"),
    "drop": (2, "the download stopped at"),
    "rate": (2, "(429)"),
    "gated": (2, "(403)"),
    "login": (2, "(401)"),
    "gone": (2, "(404)"),
    "down": (2, "(503)"),
    "dead hub": (2, "cannot be fetched"),
    "dead proxy": (2, "the proxy does not answer"),
    "offline": (2, "HF_HUB_OFFLINE is set"),
}


def _missing_shard(folder: Path) -> Path:
    fake_hub.sharded(folder)
    next(folder.glob("*-00002-of-*")).unlink()
    return folder


def _first_pickled(folder: Path) -> Path:
    return fake_hub.pickled(fake_hub.as_safetensors(folder, "2_Dense"))


def _pickled_shards(folder: Path) -> Path:
    return fake_hub.sharded(fake_hub.pickled(folder))


LAYOUTS = {  # layout -> (checkpoint, what makes it of the tiny one, what must be said)
    "safetensors and the same in other forms": (KEY, fake_hub.with_clutter, "loads"),
    ".bin alone": (KEY, fake_hub.pickled, "loads"),
    "shards of safetensors": (KEY, fake_hub.sharded, "loads"),
    "shards of .bin": (KEY, _pickled_shards, "loads"),
    "a shard that is missing": (KEY, _missing_shard, "1 of 3 shards are missing"),
    "mixed: safetensors, 2_Dense .bin": (SENTENCE, lambda folder: folder, "loads"),
    "mixed: .bin, 2_Dense safetensors": (SENTENCE, _first_pickled, "loads"),
    "spiece.model, SiglipTokenizer": (SIGLIP, fake_hub.with_sentencepiece, "loads"),
}


class Home:
    """A folder with a hub's repositories and the caches of one user."""

    def __init__(self, folder: Path):
        self.folder, self.root = folder, folder / "published"

    def run(self, code: str, *words: str, url: str, **more: str) -> subprocess.Popen:
        """A process of the user's, asking the hub at `url`."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        told = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(self.folder / "hf"),
            "VWSD_CACHE": str(self.folder / "cache"),
            "NO_PROXY": "127.0.0.1",
            "CI": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env={**kept, **told, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _ended(process: subprocess.Popen) -> tuple[int, str]:
    """(exit code, last line) of a process."""
    said = process.communicate(timeout=300)[0].strip()
    return process.returncode, said.splitlines()[-1] if said else ""


def _fault_row(fault: str, home: Home) -> tuple[int, str, str]:
    """Fetch a checkpoint from a hub with `fault`: exit code, last line, bytes of its weights."""
    words = ("fetch", "models", "--only", KEY)
    more = {"offline": {"HF_HUB_OFFLINE": "1"}, "dead proxy": {"HTTP_PROXY": "http://127.0.0.1:9"}}
    with FakeHub(home.root, fault) as hub:
        urls = {"dead hub": "http://127.0.0.1:9", "dead proxy": "http://hub.invalid"}
        url = urls.get(fault, hub.url)
        process = home.run(RUN, *words, url=url, **more.get(fault, {}))
        if fault == "stall once":
            hub.stalled.wait(60)
            _wait_for(home, hub.asked("model.safetensors")[0].sent)
            process.send_signal(signal.SIGKILL)
            process.wait()
            hub.ended.set()
            process = home.run(RUN, *words, url=url)
        code, said = _ended(process)
        sent = [request.sent for request in hub.asked("model.safetensors")]
    if fault == "drop":
        with FakeHub(home.root) as hub:
            _ended(home.run(RUN, *words, url=hub.url))
            sent.append(hub.asked("model.safetensors")[0].sent)
    return code, said, " + ".join(f"{n:,}" for n in sent) or "-"


def _wait_for(home: Home, size: int, seconds: float = 60) -> None:
    """Until a file that is being fetched has `size` bytes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any(part.stat().st_size >= size for part in home.folder.rglob("*.incomplete")):
            return
        time.sleep(0.02)


def _layout_row(key: str, home: Home) -> tuple[int, str]:
    """Fetch a checkpoint and load it without the hub: exit code and last line."""
    with FakeHub(home.root) as hub:
        code, said = _ended(home.run(RUN, "fetch", "models", "--only", key, url=hub.url))
        if key == SENTENCE:
            _ended(home.run(RUN, "fetch", "models", "--only", KEY, url=hub.url))
    if code:
        return code, said
    return _ended(home.run(LOAD, key, url="http://127.0.0.1:9", HF_HUB_OFFLINE="1"))


def main() -> int:
    """Print the table; the exit code says whether each row ended as it should."""
    from vwsd_standins.rehearsal.models import make_models
    from vwsdlib.encoders.checkpoints import CHECKPOINTS

    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        models = make_models(Path(folder) / "models")
        size = (models / CHECKPOINTS[KEY].repo / "model.safetensors").stat().st_size
        print(f"a fault of the hub | exit code | bytes of {size:,} that were sent | last line")
        for number, (fault, (wanted, words)) in enumerate(FAULTS.items()):
            home = Home(Path(folder) / f"fault{number}")
            published(models, home.root, CHECKPOINTS[KEY].repo)
            code, said, sent = _fault_row(fault, home)
            wrong += (code, words in said) != (wanted, True)
            print(f"{fault or 'none'} | {code} | {sent} | {said.replace(folder, '')}", flush=True)
        print("\na layout | exit code | last line")
        for number, (layout, (key, arrange, words)) in enumerate(LAYOUTS.items()):
            home = Home(Path(folder) / f"layout{number}")
            for other in {KEY, key}:
                published(models, home.root, CHECKPOINTS[other].repo)
            arrange(home.root / CHECKPOINTS[key].repo)
            code, said = _layout_row(key, home)
            wrong += words not in said or bool(code) != (words != "loads")
            print(f"{layout} | {code} | {said.replace(folder, '')}", flush=True)
    print(f"\n{wrong} rows ended otherwise than they should")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
