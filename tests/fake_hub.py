"""A hub on 127.0.0.1 that serves folders as repositories, notes what it was asked for, and has the
faults of the real one; and checkpoints in the layouts that are published.
"""

import hashlib
import json
import re
import shutil
import socket
import struct
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40  # what `main` is at first
LARGE = (".safetensors", ".bin", ".model", ".spm", "tokenizer.json")  # named by their SHA-256
WEIGHTS = (".safetensors", ".bin")
CUT_ONCE = ("drop once", "reset once", "no ranges", "stall once")
REFUSED = {  # of every question for a file, or for the listing too: status and headers
    "rate": (429, {"Retry-After": "3600"}),
    "gated": (403, {"X-Error-Code": "GatedRepo"}),
    "login": (401, {}),
    "gone": (404, {"X-Error-Code": "RepoNotFound"}),
    "down": (503, {}),
}


@dataclass
class Request:
    """One question: path, whether it came with a token, the byte that it starts from, and how many
    bytes were sent.
    """

    path: str
    token: bool = False
    start: int = 0
    sent: int = 0


class FakeHub:
    """Serves `root/<org>/<name>` at `url`, as a context manager.

    fault: a key of REFUSED; or, of weights, `drop` (half of what is asked for, always), `drop
    once`, `reset once` (the connection is torn), `stall once` (half, and nothing more), `no
    ranges` (`drop once`, and then all of it), `damage once` (other bytes), `busy once` (503);
    `rate once` (a pause of one second); `xet` (files are announced as stored in Xet, which has no
    server here).
    """

    def __init__(self, root: Path, fault: str = ""):
        self.root, self.fault, self.commit = Path(root), fault, COMMIT
        self.requests: list[Request] = []
        self.stalled, self.ended = threading.Event(), threading.Event()
        self.elsewhere = ""  # of another server, to which questions for files are sent on
        self._spent: set[str] = set()

    def __enter__(self):
        handler = type("Bound", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def asked(self, name: str) -> list[Request]:
        """Questions for a file, in their order."""
        return [request for request in self.requests if request.path.endswith(f"/{name}")]

    def first_time(self, path: str) -> bool:
        """Was this path not asked for before?"""
        new = path not in self._spent
        self._spent.add(path)
        return new


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        listed = re.fullmatch(r"/api/models/(.+?)/revision/(.+)", path)
        file = re.fullmatch(r"/(.+?/.+?)/resolve/([^/]+)/(.+)", path)
        self.noted, fault = Request(path, "Authorization" in self.headers), self.hub.fault
        if not (listed or file):  # what the client asks of its own accord
            return self._answer(b"{}", 404)
        self.hub.requests.append(self.noted)
        if fault in REFUSED and (file or fault != "gated"):
            return self._answer(b"{}", *REFUSED[fault])
        if fault == "rate once" and self.hub.first_time(path):
            return self._answer(b"{}", 429, {"Retry-After": "1"})
        if listed:
            return self._answer(json.dumps(self._listing(*listed.groups())).encode())
        if fault == "busy once" and path.endswith(WEIGHTS) and self.hub.first_time(path):
            return self._answer(b"{}", 503)
        if self.hub.elsewhere:
            return self._answer(b"", 302, {"Location": self.hub.elsewhere + path})
        return self._file(path, self.hub.root / file[1] / file[3])

    def _listing(self, repo: str, revision: str) -> dict:
        folder, siblings = self.hub.root / repo, []
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name, size = path.relative_to(folder).as_posix(), path.stat().st_size
                content = path.read_bytes()
                sibling = {"rfilename": name, "size": size, "blobId": _git_id(content)}
                if name.endswith(LARGE):
                    digest = hashlib.sha256(content).hexdigest()
                    sibling["lfs"] = {"size": size, "sha256": digest, "pointerSize": 134}
                siblings.append(sibling)
        commit = self.hub.commit if revision == "main" else revision
        return {"id": repo, "sha": commit, "siblings": siblings}

    def _file(self, path: str, file: Path):
        if not file.is_file():
            return self._answer(b"{}", 404, {"X-Error-Code": "EntryNotFound"})
        content, fault = file.read_bytes(), self.hub.fault
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and fault != "no ranges" else 0
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{_git_id(content)}"'}
        if fault == "xet":
            headers["X-Xet-Hash"] = hashlib.sha256(content).hexdigest()
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        cut = self._cut(path, len(body))
        if fault == "damage once" and path.endswith(WEIGHTS) and self.hub.first_time(path):
            body = bytes(len(body))
        self.noted.start = start
        return self._answer(body, 206 if start else 200, headers, cut)

    def _cut(self, path: str, size: int) -> int:
        """Bytes that are sent before the connection ends."""
        fault = self.hub.fault
        if path.endswith(WEIGHTS):
            once = fault in CUT_ONCE and self.hub.first_time(path)
            if fault == "drop" or once:
                return size // 2
        return size

    def _answer(self, body: bytes, status=200, headers=None, cut: int | None = None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.noted.sent = len(body[:cut])
        self.wfile.write(body[:cut])
        self.wfile.flush()
        if cut is not None and cut < len(body):
            if self.hub.fault == "stall once":
                self.hub.stalled.set()
                self.hub.ended.wait(60)
            if self.hub.fault == "reset once":  # a torn connection, not one that was closed
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


# ---------------------------------------------------------------- layouts, from the tiny ones


def pickled(folder: Path, part: str = "") -> Path:
    """One part's safetensors as `pytorch_model.bin`, as older repositories have them."""
    import torch
    from safetensors.torch import load_file

    file = folder / part / "model.safetensors"
    torch.save(load_file(file), file.with_name("pytorch_model.bin"))
    file.unlink()
    return folder


def as_safetensors(folder: Path, part: str = "") -> Path:
    """One part's `pytorch_model.bin` as safetensors."""
    import torch
    from safetensors.torch import save_file

    file = folder / part / "pytorch_model.bin"
    tensors = torch.load(file, weights_only=True)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, file.with_name("model.safetensors"), {"format": "pt"})
    file.unlink()
    return folder


def sharded(folder: Path, shards: int = 3) -> Path:
    """The weights in `shards` files behind an index, in the form that they have."""
    import torch
    from safetensors.torch import load_file, save_file

    safe = (folder / "model.safetensors").is_file()
    file = folder / ("model.safetensors" if safe else "pytorch_model.bin")
    tensors = load_file(file) if safe else torch.load(file, weights_only=True)
    names, shard_of = list(tensors), {}
    for number in range(shards):
        shard = f"{file.stem}-{number + 1:05d}-of-{shards:05d}{file.suffix}"
        some = {name: tensors[name].clone() for name in names[number::shards]}
        if safe:
            save_file(some, folder / shard, {"format": "pt"})
        else:
            torch.save(some, folder / shard)
        shard_of |= dict.fromkeys(some, shard)
    index = {"metadata": {}, "weight_map": shard_of}
    (folder / f"{file.name}.index.json").write_text(json.dumps(index))
    file.unlink()
    return folder


def with_sentencepiece(folder: Path) -> Path:
    """SigLIP's first tokenizer: `spiece.model` alone, read by SiglipTokenizer."""
    import sentencepiece

    lines = ["fruit bat at the station", "gomma per smacchiare", "درخت آندرومدا", "an old tree"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 20),
        model_prefix=str(folder / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    (folder / "tokenizer.json").unlink()
    told = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 64, "pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder


def with_clutter(folder: Path) -> Path:
    """What repositories hold beside what is loaded here: the same weights in other forms."""
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        if not (folder / name).exists():
            (folder / name).write_bytes(b"never read" * 100)
    (folder / "onnx" / "config.json").write_text("{}")
    (folder / "README.md").write_text("a card")
    return folder


def published(models: Path, root: Path, repo: str) -> Path:
    """A copy of a tiny checkpoint in the hub's root, to be rearranged."""
    return shutil.copytree(models / repo, root / repo)
