"""An OpenAI-compatible chat endpoint, asked patiently and within limits: `VWSD_CHAT_URL`,
`VWSD_CHAT_MODEL`, `VWSD_CHAT_KEY`.

The key goes into one header of one request and nowhere else: no error repeats the server's words
(the key may be among them), no redirect is followed, and no frame that an error passes through
holds it.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic, sleep
from typing import NamedTuple

from ..errors import VwsdError
from .replay import Answering, one_by_one

TIMEOUT = 60.0  # seconds that one attempt may take, the reading of its answer included
PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each attempt; so many attempts there are
MOST_BYTES = 8 << 20  # of one answer; a definition has some hundreds
LONGEST = 60.0  # seconds of a pause that the server asks for (Retry-After)
PATIENCE = 180.0  # seconds of all pauses for one answer
# no user, password or query: they may be secrets
ADDRESS = re.compile(
    r"https?://((?:\[[\da-f:.]+\]|[\w.-]+)(?::\d+)?(?:/[^\s?#]*?)?)/*", re.ASCII | re.IGNORECASE
)
CHECK_FORMAT = "Check that VWSD_CHAT_URL speaks the OpenAI chat format"
REFUSALS = {
    400: "Check VWSD_CHAT_MODEL.",
    401: "Set VWSD_CHAT_KEY to a valid key.",
    403: "Set VWSD_CHAT_KEY to a key that may use this model.",
    404: "Check VWSD_CHAT_URL and VWSD_CHAT_MODEL.",
    **dict.fromkeys(
        (301, 302, 303, 307, 308),
        "Set VWSD_CHAT_URL to the address where the endpoint is; redirects are not followed.",
    ),
}


def chat_facts() -> dict:
    """`model` and `endpoint` (host and path) in use, never the key; VwsdError names the variable
    that is to be set.

    A key over plain http to another machine is refused: anyone on the way could read it.
    """
    url, model = (os.environ.get(name, "").strip() for name in ("VWSD_CHAT_URL", "VWSD_CHAT_MODEL"))
    if not url.isascii() or not (plain := ADDRESS.fullmatch(url)):
        raise VwsdError(
            "VWSD_CHAT_URL is no plain http(s) address",
            remedy="Set VWSD_CHAT_URL to an endpoint such as http://localhost:8000/v1.",
        )
    if not model:
        raise VwsdError(
            "the chat model is not named",
            remedy="Set VWSD_CHAT_MODEL to the name the endpoint gives it.",
        )
    keyed = bool(os.environ.get("VWSD_CHAT_KEY", "").strip())
    if keyed and url.lower().startswith("http:") and not _this_machine(plain[1]):
        raise VwsdError(
            "the key would go over plain http to another machine, readable to all on the way",
            where=plain[1],
            remedy=(
                "Set VWSD_CHAT_URL to https://..., or unset VWSD_CHAT_KEY where the endpoint wants"
                " none."
            ),
        )
    return {"model": model, "endpoint": plain[1]}


def _this_machine(address: str) -> bool:
    """Is the host of "host:port/path" the machine that this runs on: localhost, 127.0.0.0/8 or ::1,
    and nothing that only begins so?
    """
    host = re.match(r"\[([^\]]*)\]|([^:/]*)", address)
    name = (host[1] or host[2]).lower().removesuffix(".")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:  # a name: whose address it is, another might say
        return False


def chat(
    settings: Mapping,
    asked: Callable[[str], Sequence[Mapping[str, str]]],
    tidy: Callable[[str], str] = str,
) -> tuple[dict, Callable[[], Answering]]:
    """Identity and loader (as registries want them) of the endpoint in use: a text is asked by the
    messages that `asked` makes of it, under `settings` (temperature, ...), and answered through
    `tidy`.
    """
    facts = chat_facts()
    told = {**settings, "endpoint": facts["endpoint"]}
    identity = {"model": facts["model"], "revision": "", "weights_sha256": "", "settings": told}
    answer = one_by_one(lambda text: tidy(ask(asked(text), settings["temperature"])))
    return identity, lambda: answer


def ask(messages: Sequence[Mapping[str, str]], temperature: float = 0) -> str:
    """The endpoint's answer to chat `messages` (role, content) on one line, white space folded.

    Asked again, with pauses, where the server is busy (408, 429, 5xx; Retry-After in seconds or as
    a date is honoured), slow or cut off, or answers with broken JSON. Raises VwsdError where it
    refuses, where its JSON is no chat completion, and when attempts or patience are used up.
    """
    facts = chat_facts()
    request = _request(facts, messages, temperature)
    fault, waited = _Fault("", ""), 0.0
    for pause in PAUSES:
        pause = min(max(pause, fault.wait), LONGEST)
        waited += pause
        if waited > PATIENCE:
            break
        sleep(pause)
        answer, fault = _attempt(request)
        if fault is None:
            return answer
        if not fault.passing:
            break
    # out here, so that no other exception hangs on it
    raise VwsdError(fault.what, where=facts["endpoint"], remedy=fault.remedy)


class _Fault(NamedTuple):
    """Why there is no answer; whether it may pass, and the seconds that the server asks to wait."""

    what: str
    remedy: str
    passing: bool = False
    wait: float = 0.0


def _attempt(request: urllib.request.Request) -> tuple[str, _Fault | None]:
    """The answer to one request, or the fault in its place."""
    try:
        return _content(_body(request)), None
    except urllib.error.HTTPError as e:
        remedy = REFUSALS.get(e.code, "Try again later; what was answered is kept.")
        passing = e.code in (408, 429) or e.code >= 500
        wait = _retry_after(e.headers.get("Retry-After"))
        return "", _Fault(f"the chat endpoint answers with HTTP {e.code}", remedy, passing, wait)
    except (LookupError, TypeError, AttributeError, RecursionError):
        return "", _Fault("the chat endpoint's answer is no chat completion", f"{CHECK_FORMAT}.")
    except _TooLong:
        size = f"more than {MOST_BYTES >> 20} MB"
        return "", _Fault(f"the chat endpoint's answer has {size}", f"{CHECK_FORMAT}.")
    except ValueError:
        remedy = f"{CHECK_FORMAT}, or try again later."
        return "", _Fault("the chat endpoint's answer is no JSON", remedy, True)
    # no such host or port, refused, timed out, hung up, cut off
    except (OSError, OverflowError, http.client.HTTPException) as e:
        what = f"the chat endpoint cannot be reached ({type(e).__name__})"
        return "", _Fault(what, "Check VWSD_CHAT_URL, and that the server is up.", True)


def _request(
    facts: Mapping, messages: Sequence[Mapping[str, str]], temperature: float
) -> urllib.request.Request:
    address = os.environ["VWSD_CHAT_URL"].strip().rstrip("/").removesuffix("/chat/completions")
    body = {"model": facts["model"], "messages": list(messages), "temperature": temperature}
    request = urllib.request.Request(
        f"{address}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    key = os.environ.get("VWSD_CHAT_KEY", "").strip()
    if key:
        if not (key.isascii() and key.isprintable() and " " not in key):
            del key  # http.client's own error would print it
            raise VwsdError(
                "the key holds a space, a line break or a letter beyond ASCII",
                remedy="Set VWSD_CHAT_KEY again, to the key alone.",
            )
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    return request


class _TooLong(Exception):
    """An answer that is no definition any more."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would ask another address, without the question."""

    def redirect_request(self, *_):
        return None


def _body(request: urllib.request.Request) -> bytes:
    """The answer's bytes; TimeoutError where they have not all come in time, also where they drip,
    _TooLong where there are too many.
    """
    end, parts, size = monotonic() + TIMEOUT, [], 0
    # a proxy is another machine, and would see the key
    no_proxy = [urllib.request.ProxyHandler({})] if _this_machine(request.host) else []
    with urllib.request.build_opener(_Stay, *no_proxy).open(request, timeout=TIMEOUT) as answer:
        while part := answer.read1():
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                raise _TooLong
            if monotonic() > end:
                raise TimeoutError
    return b"".join(parts)


def _content(body: bytes) -> str:
    text = json.loads(body)["choices"][0]["message"]["content"]
    storable = text.encode("utf-8", "replace").decode()  # half a surrogate pair could not be
    return " ".join(storable.split())


def _retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for, given in seconds or as a date; 0 where there is
    none or it cannot be read.
    """
    try:
        if re.fullmatch(r"[\d.]+", value or ""):
            return float(value)
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # neither; a date without a time zone
        return 0.0
