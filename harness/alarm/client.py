"""Requests that are tried again when that can help, and never show a secret."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from harness.errors import AlarmError, UsageError
from harness.text import one_line

if TYPE_CHECKING:
    import urllib3

_TIMEOUT = 30.0  # s, to connect, and between two pieces of an answer
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NEXT = re.compile(r'<([^<>]*)>\s*;\s*rel="?next"?')
_MOST_PAGES = 100


@dataclass(frozen=True)
class Pace:
    """How long to wait.

    Args:
        first: s before the second try, doubled each time; and s between two writes, as GitHub asks.
        limited: s before the second try after a limit that does not say how long, doubled each time.
        longest: s; who asks for more is told no.
        tries: at most.
    """

    first: float = 1.0
    limited: float = 60.0
    longest: float = 900.0
    tries: int = 6


class Unsure(AlarmError):
    """A write was sent, and nobody knows whether it was carried out."""


@dataclass(frozen=True)
class Answer:
    """What came back.

    Args:
        status: of HTTP.
        headers: names in lower case.
        content: the JSON document; None when there is none.
    """

    status: int
    headers: Mapping[str, str]
    content: Any


@dataclass
class Client:
    """Talks to one server.

    Args:
        address: ``https://…``, without a slash at its end; plain HTTP only to this machine itself.
        name: what is said of the server in a message; the address itself may be a secret.
        headers: sent with every request; not shown.
        pace: how long to wait.

    Raises:
        UsageError: an address that is none, or over which a secret would be sent in the clear.
    """

    address: str = field(repr=False)
    name: str
    headers: Mapping[str, str] = field(repr=False)
    pace: Pace = field(default_factory=Pace)
    _wrote: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.address)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or not self.address.isascii() or not self.address.isprintable() or " " in self.address:
            raise UsageError(f"{self.name}: the address is none", "expected https://HOST/…")
        if parts.scheme != "https" and (parts.scheme != "http" or host not in _LOOPBACK):
            raise UsageError(
                f"{self.name}: the address begins with {parts.scheme}:", "expected https://HOST/…"
            )
        self._origin = (parts.scheme, host, port)
        self._pool = _pool(parts.scheme, host)

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """Ask."""
        return self._request("GET", self._url(path, query), None)

    def pages(self, path: str, query: Mapping[str, str]) -> Iterator[Any]:
        """The items of every page of a list."""
        url: str | None = self._url(path, query)
        for _ in range(_MOST_PAGES):
            if url is None:
                return
            answer = self._request("GET", url, None)
            if not isinstance(answer.content, list):
                raise AlarmError(f"{self.name}: GET {path}: expected a list")
            yield from answer.content
            found = _NEXT.search(answer.headers.get("link", ""))
            url = found[1] if found else None
            # The token goes with the request: a link must not lead it to somebody else.
            if url is not None and _origin(url) != self._origin:
                raise AlarmError(f"{self.name}: GET {path}: the next page is on another server")
        raise AlarmError(f"{self.name}: GET {path}: more than {_MOST_PAGES} pages")

    def write(self, method: str, path: str, content: object, *, again: bool) -> Answer:
        """Change something.

        Args:
            again: carrying it out twice does no harm.

        Raises:
            Unsure: it was sent, ``again`` is False, and nobody knows whether it was carried out.
            AlarmError: it was refused, or the server could not be reached.
        """
        body = json.dumps(content).encode()
        time.sleep(max(0.0, self._wrote + self.pace.first - time.monotonic()))
        try:
            return self._request(method, self._url(path, None), body, again=again)
        finally:
            self._wrote = time.monotonic()

    def wait(self, attempt: int) -> None:
        """Before the next try after ``attempt`` that did not help; the first is 0."""
        time.sleep(min(self.pace.first * 2**attempt, self.pace.longest))

    def _url(self, path: str, query: Mapping[str, str] | None) -> str:
        return self.address + path + (f"?{urlencode(query)}" if query else "")

    def _request(self, method: str, url: str, body: bytes | None, *, again: bool = True) -> Answer:
        import urllib3

        unsent = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
        shown = f"{self.name}: {method} {self._shown(url)}"
        headers = {**self.headers, **({"Content-Type": "application/json"} if body is not None else {})}
        for attempt in range(self.pace.tries):
            last = attempt == self.pace.tries - 1
            try:
                # Its own retries write the address, which may be a secret, into the log, and cannot see from
                # the body that a 403 is a limit.
                raw = self._pool.request(
                    method, url, body=body, headers=headers, retries=False, redirect=False
                )
            except urllib3.exceptions.HTTPError as error:
                what = type(error).__name__
                if not again and not isinstance(error, unsent):
                    raise Unsure(f"{shown}: {what}") from None
                if last:
                    raise AlarmError(f"{shown}: no answer after {attempt + 1} tries: {what}") from None
                self.wait(attempt)
                continue
            received = {key.lower(): value for key, value in raw.headers.items()}
            answer = Answer(raw.status, received, _json(raw.data))
            if 200 <= answer.status < 300:
                return answer
            said = f"{shown}: {answer.status} {_message(answer.content)}".rstrip()
            if answer.status >= 500 and not again:
                raise Unsure(said)
            pause = self._pause(answer, attempt)
            if pause is None:
                raise AlarmError(said, _ADVICE.get(answer.status, ""))
            if last or pause > self.pace.longest:
                how = f"asks to wait {pause:.0f} s"
                if pause <= self.pace.longest:
                    how = f"after {attempt + 1} tries"
                raise AlarmError(f"{said}: {how}", "run it again later: nothing is done twice")
            time.sleep(pause)
        raise AssertionError("every last try returns or raises")

    def _pause(self, answer: Answer, attempt: int) -> float | None:
        """Seconds until it is worth another try; None when it is not."""
        status = answer.status
        limited = status == 429 or (
            status == 403
            and (
                "retry-after" in answer.headers
                or answer.headers.get("x-ratelimit-remaining") == "0"
                or "rate limit" in _message(answer.content).lower()
            )
        )
        if not limited and status < 500:
            return None
        asked = _asked(answer.headers)
        if asked is not None:
            return asked
        return (self.pace.limited if limited else self.pace.first) * 2.0**attempt

    def _shown(self, url: str) -> str:
        """The path below the address; where the address has one of its own, it may be the secret."""
        return url[len(self.address) :].partition("?")[0] or "/"


_ADVICE = {
    301: "the repository has moved: say its new name with --repository",
    307: "the repository has moved: say its new name with --repository",
    308: "the repository has moved: say its new name with --repository",
    401: "the token is not valid any more",
    403: "the token needs the permission to write issues",
    404: "look at the name of the repository; a token that may not see it gets the same answer",
    410: "issues are switched off in the repository",
}


def _pool(scheme: str, host: str) -> urllib3.PoolManager:
    from urllib.request import getproxies, proxy_bypass

    import urllib3

    timeout = urllib3.Timeout(connect=_TIMEOUT, read=_TIMEOUT)
    proxy = getproxies().get(scheme)
    if proxy and host not in _LOOPBACK and not proxy_bypass(host):
        return urllib3.ProxyManager(proxy, timeout=timeout)
    return urllib3.PoolManager(timeout=timeout)


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    return parts.scheme, parts.hostname, port


def _asked(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks for: ``Retry-After``, or the end of the hour's allowance."""
    import urllib3

    if said := headers.get("retry-after"):
        try:
            return max(0.0, urllib3.Retry().parse_retry_after(said))
        except urllib3.exceptions.InvalidHeader:
            return None
    reset = headers.get("x-ratelimit-reset", "")
    if headers.get("x-ratelimit-remaining") == "0" and reset.isdecimal():
        return max(0.0, int(reset) - time.time()) + 1.0
    return None


def _json(data: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return json.loads(data) if data else None
    except ValueError:
        return None


def _message(content: object) -> str:
    """What the server says of an error; a line."""
    if not isinstance(content, dict):
        return ""
    errors = content.get("errors")
    parts = [content.get("message"), *(errors if isinstance(errors, list) else [])]
    words = [(part.get("message") or part.get("code")) if isinstance(part, dict) else part for part in parts]
    return one_line(", ".join(str(word) for word in words if word))[:300]
