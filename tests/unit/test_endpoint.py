"""The chat endpoint: faults that pass are sat out within limits, others stop at once, and the key
is nowhere but in its header.
"""

import logging
import re
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from chat_double import holds, served

from vwsdlib.errors import VwsdError
from vwsdlib.language import endpoint
from vwsdlib.language.replay import append, read_store, replay

ASKED = [{"role": "system", "content": "Define."}, {"role": "user", "content": "What?\n\na bank"}]
ANSWER = "It is a bank. Really."


@pytest.fixture
def chat(own_folders, monkeypatch, capfd, caplog):
    """The double; afterwards its key must stand in no file, no log and no output."""
    caplog.set_level(logging.DEBUG)
    with served(monkeypatch, endpoint) as server:
        yield server
        assert not holds(server.key, own_folders, caplog.text, *capfd.readouterr())


def refused(chat, shown="facts = "):
    """The error that `ask` ends in, held against the key with all frames and their variables,
    `shown` among them.
    """
    with pytest.raises(VwsdError) as e:
        endpoint.ask(ASKED)
    frames = "".join(
        traceback.TracebackException.from_exception(e.value, capture_locals=True).format()
    )
    assert shown in frames and not holds(chat.key, chat.folder, frames, str(e.value), repr(e.value))
    assert e.value.__context__ is None and e.value.__cause__ is None
    return str(e.value)


@pytest.fixture(autouse=True)
def folder(chat, own_folders):
    chat.folder = own_folders


def test_the_search_for_the_key_can_find_it(chat, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    (folder / "x.txt").write_text(f"... {chat.key} ...")
    assert len(holds(chat.key, folder, f"a log of {chat.key}", "clean")) == 2


def test_a_question_as_the_format_wants_it(chat):
    assert endpoint.ask(ASKED, 0.5) == ANSWER
    assert chat.asked == [
        (
            "/v1/chat/completions",
            f"Bearer {chat.key}",
            {"model": "toy", "messages": ASKED, "temperature": 0.5},
        )
    ]
    assert endpoint.chat_facts() == {
        "model": "toy",
        "endpoint": f"127.0.0.1:{chat.server_port}/v1",
    } and chat.paused == [0]


def test_addresses_end_alike(chat, monkeypatch):
    for end in ("/", "/chat/completions", "/chat/completions/"):
        monkeypatch.setenv("VWSD_CHAT_URL", f"http://127.0.0.1:{chat.server_port}/v1{end}")
        assert endpoint.ask(ASKED) == ANSWER
    assert {path for path, _, _ in chat.asked} == {"/v1/chat/completions"}


def test_no_key_no_header(chat, monkeypatch):
    monkeypatch.delenv("VWSD_CHAT_KEY")
    endpoint.ask(ASKED)
    assert chat.asked[0][1] is None


@pytest.mark.parametrize(
    "fault", ["slow", "drip", "bad", "latin", "cut", "hang up", 408, 429, 500, 503]
)
def test_what_passes_is_sat_out(chat, fault):
    chat.script = [fault, fault]
    assert endpoint.ask(ASKED) == ANSWER and len(chat.asked) == 3 and chat.paused == [0, 1, 2]


def test_every_fault_in_a_row(chat):
    chat.script = ["slow", 429, 500, "bad", "cut"]
    assert endpoint.ask(ASKED) == ANSWER and len(chat.asked) == 6


@pytest.mark.parametrize(
    "fault, words",
    [
        ("slow", "TimeoutError"),
        ("bad", "no JSON"),
        ("cut", "VWSD_CHAT_URL"),
        (500, "HTTP 500.*Try again later"),
    ],
)
def test_what_stays_is_given_up(chat, fault, words):
    chat.script = [fault] * 20
    assert (
        re.search(words, refused(chat))
        and len(chat.asked) == 6
        and chat.paused == list(endpoint.PAUSES)
    )


@pytest.mark.parametrize(
    "fault, words",
    [
        (400, "VWSD_CHAT_MODEL"),
        (401, "VWSD_CHAT_KEY"),
        (403, "VWSD_CHAT_KEY"),
        (404, "VWSD_CHAT_URL"),
        (418, "HTTP 418"),
        ("odd", "no chat completion"),
        ("null", "no chat completion"),
        ("deep", "no chat completion"),
        ("words", "no chat completion"),
        ("more", "more than 8 MB"),
    ],
)
def test_a_refusal_stops_at_once(chat, fault, words):
    chat.script = [fault]
    assert words in refused(chat) and len(chat.asked) == 1


def test_retry_after_in_seconds_and_as_a_date(chat):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    chat.script = [
        (429, {"Retry-After": "7"}),
        (503, {"Retry-After": later}),
        (429, {"Retry-After": "soon"}),
        (429, {"Retry-After": "0"}),
    ]
    assert endpoint.ask(ASKED) == ANSWER
    first, seconds, date, *rest = chat.paused
    assert (first, seconds, rest) == (
        0,
        7,
        [4, 8],
    ) and 25 < date <= 30  # without a time that can be read, our own pause


def test_waiting_is_bounded(chat):
    chat.script = [(429, {"Retry-After": "86400"})] * 20
    assert "HTTP 429" in refused(chat)
    assert (
        chat.paused == [0, 60, 60, 60]
        and sum(chat.paused) <= endpoint.PATIENCE
        and len(chat.asked) == 4
    )


@pytest.mark.parametrize(
    "value, seconds",
    [
        (None, 0),
        ("", 0),
        ("2.5", 2.5),
        ("-3", 0),
        ("nan", 0),
        ("1.2.3", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2099 07:28:00 -0000", 0),
    ],
)
def test_odd_times_to_wait(value, seconds):
    assert endpoint._retry_after(value) == seconds


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(chat, code):
    with pytest.MonkeyPatch.context() as other, served(other, endpoint) as elsewhere:
        other.undo()  # the double that redirects is in use again
        chat.script = [
            (
                code,
                {
                    "Location": (
                        f"http://127.0.0.1:{elsewhere.server_port}/v1/chat/completions?{chat.key}"
                    )
                },
            )
        ]
        assert (
            "redirects are not followed" in refused(chat)
            and len(chat.asked) == 1
            and not elsewhere.asked
        )


def test_half_a_character_can_be_stored(chat, tmp_path):
    chat.script = ["half"]
    append(tmp_path / "x.jsonl", [{"key": "a", "out": endpoint.ask(ASKED)}])
    assert read_store(tmp_path / "x.jsonl") == {"a": "?"}


@pytest.mark.parametrize("key", ["{}\nX: 1", "{} {}", "{}é"])
def test_a_key_that_cannot_be_one_is_not_printed(chat, monkeypatch, key):
    monkeypatch.setenv("VWSD_CHAT_KEY", key.replace("{}", chat.key))
    assert "Set VWSD_CHAT_KEY again" in refused(chat) and not chat.asked


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost/v1",
        "file:///v1",
        "http://",
        "http://[::1",
        "http://me:{}@localhost/v1",
        "http://:{}@localhost/v1",
        "http://localhost/v1?key={}",
        "http://localhost/v1#{}",
    ],
)
def test_an_address_is_plain(chat, monkeypatch, address):
    monkeypatch.setenv("VWSD_CHAT_URL", address.replace("{}", chat.key))
    with pytest.raises(VwsdError, match="VWSD_CHAT_URL") as e:
        print(endpoint.chat_facts())
        endpoint.ask(ASKED)
    assert chat.key not in str(e.value)


@pytest.mark.parametrize(
    "host",
    [
        "llm.example.org",
        "localhost.example.org",
        "127.0.0.1.example.org",
        "10.0.0.7:8000",
        "192.168.1.2",
        "[fe80::1]:80",
        "0.0.0.0",
        "2130706433",
        "127.1.example",
        "localhost-a:80",
        "[::ffff:10.0.0.1]",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "HTTP"])
def test_a_key_goes_to_another_machine_over_https_alone(chat, monkeypatch, host, scheme):
    monkeypatch.setenv("VWSD_CHAT_URL", f"{scheme}://{host}/v1")
    assert (
        "over plain http to another machine" in refused(chat, "plain = ")
        and not chat.asked
        and not chat.paused
    )
    monkeypatch.setenv("VWSD_CHAT_URL", f"https://{host}/v1")
    assert endpoint.chat_facts()["endpoint"] == f"{host}/v1"
    monkeypatch.setenv("VWSD_CHAT_URL", f"http://{host}/v1")
    monkeypatch.delenv("VWSD_CHAT_KEY")
    assert endpoint.chat_facts()["endpoint"] == f"{host}/v1"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1", "127.8.9.1:80", "[::1]:8000"]
)
def test_a_key_goes_to_this_machine_as_it_is(chat, monkeypatch, host):
    monkeypatch.setenv("VWSD_CHAT_URL", f"http://{host}/v1")
    assert endpoint.chat_facts()["endpoint"] == f"{host}/v1"


def test_the_model_is_named(chat, monkeypatch):
    monkeypatch.delenv("VWSD_CHAT_MODEL")
    with pytest.raises(VwsdError, match="Set VWSD_CHAT_MODEL"):
        endpoint.chat_facts()


def test_a_server_that_is_not_there(chat, monkeypatch):
    for port in (1, 80000):
        monkeypatch.setenv("VWSD_CHAT_URL", f"http://127.0.0.1:{port}/v1")
        assert "cannot be reached" in refused(chat)
    assert len(chat.paused) == 12


# ---------------------------------------------------------------- answers that are kept


def test_the_store_passes_over_what_was_cut_off(tmp_path):
    path = tmp_path / "deep" / "x.jsonl"
    append(path, [{"key": "a", "out": "1"}, {"key": "b", "out": "2"}])
    path.write_bytes(path.read_bytes()[:-5])
    append(path, [{"key": "c", "out": "3\u2028"}])
    assert (
        read_store(path) == {"a": "1", "c": "3\u2028"} and len(path.read_bytes().split(b"\n")) == 4
    )
    path.write_bytes(path.read_bytes() + b'\xff\xfe\n[1]\n{"key": "d"}\nnull\n')
    assert (
        read_store(path) == {"a": "1", "c": "3\u2028"} and read_store(tmp_path / "none.jsonl") == {}
    )


def test_a_replay_asks_only_for_what_is_missing(tmp_path):
    asked = []

    def load():
        asked.append("loaded")
        return lambda texts: (
            [(text, text.upper())] for text in texts if asked.append(text) is None
        )

    def run(texts, **facts):
        facts = {"model": "m", **facts}
        return replay("toy", facts, texts, load, tmp_path, note=lambda: {"seen": True})

    assert run(["a", "b", "a"]) == ({"a": "A", "b": "B"}, 0) and asked == ["loaded", "a", "b"]
    assert run(["b", "a"]) == ({"b": "B", "a": "A"}, 2) and len(asked) == 3
    assert run(["a", "c"])[1] == 1 and asked[3:] == ["loaded", "c"]
    assert run(["a"], prompt="other")[1] == 0 and asked[-1] == "a"  # another identity, another file
    assert len(list(tmp_path.iterdir())) == 2 and all(
        '"seen": true' in p.read_text() for p in tmp_path.iterdir()
    )
