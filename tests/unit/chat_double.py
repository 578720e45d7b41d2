"""A chat endpoint on localhost that answers as its `script` says, one entry a request: a way to
misbehave, an HTTP status, or (status, headers).
"""

import json
import secrets
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Double(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((self.path, self.headers.get("Authorization"), body))
            act = self.server.script.pop(0) if self.server.script else "well"
        code, headers = (
            act if isinstance(act, tuple) else (act if isinstance(act, int) else 200, {})
        )
        answer = {
            "choices": [
                {
                    "message": {
                        "content": (
                            f"It is  {body['messages'][-1]['content'].splitlines()[-1]}.\n Really."
                        )
                    }
                }
            ]
        }
        whole = json.dumps(
            answer if code == 200 else {"error": {"message": f"key {self.server.key} is bad"}}
        ).encode()
        text = {
            "bad": whole[:25],
            "odd": b'{"error": "' + self.server.key.encode() + b'"}',
            "half": b'{"choices": [{"message": {"content": "\\ud83d"}}]}',
            "deep": b"[" * 200_000,
            "more": b'{"choices": "' + b"x" * (9 << 20) + b'"}',
            "words": b'{"choices": [{"message": {"content": ["a"]}}]}',
            "null": b'{"choices": [{"message": {"content": null}}]}',
            "latin": '{"é'.encode("latin-1"),
        }.get(str(act), whole)
        if act == "slow":
            self.server.release.wait(10)
        elif act != "hang up":
            self.send_response(code)
            for name, value in {
                "Content-Length": len(text),
                "X-Echo": self.server.key,
                **headers,
            }.items():
                self.send_header(name, str(value))
            self.end_headers()
            self._send(act, text)
        self.close_connection = True

    def _send(self, act, text):
        if act == "drip":
            try:
                for byte in text:
                    self.wfile.write(bytes([byte]))
                    self.server.release.wait(0.05)
            except OSError:  # the client has had enough
                pass
        else:
            try:
                self.wfile.write(text[:30] if act == "cut" else text)
            except OSError:  # the client has had enough
                pass

    do_GET = do_POST  # never wanted: a redirect that was followed

    def log_message(self, *_):
        pass


@contextmanager
def served(monkeypatch, endpoint):
    """The double in use through the environment, with a random key and pauses that are noted in
    `paused`, not made.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Double)
    server.daemon_threads, server.key, server.lock, server.release = (
        True,
        secrets.token_hex(16),
        threading.Lock(),
        threading.Event(),
    )
    server.script, server.asked, server.paused = [], [], []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    for name, value in {
        "URL": f"http://127.0.0.1:{server.server_port}/v1",
        "MODEL": "toy",
        "KEY": server.key,
    }.items():
        monkeypatch.setenv(f"VWSD_CHAT_{name}", value)
    monkeypatch.setattr(endpoint, "sleep", server.paused.append)
    monkeypatch.setattr(endpoint, "TIMEOUT", 0.3)
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


def holds(key, folder, *texts):
    """Where a key stands: files below a folder (their names too) and texts."""
    files = [
        str(p)
        for p in folder.rglob("*")
        if key in p.name or p.is_file() and key.encode() in p.read_bytes()
    ]
    return files + [text for text in texts if key in text]
