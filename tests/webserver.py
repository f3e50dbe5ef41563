"""A webhook and an issue tracker that behave like the real ones, failures included; on loopback.

``python tests/webserver.py PORT`` serves an empty tracker and prints what becomes of its issues.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

#: What a server may do instead of answering: status, headers, JSON; or "drop" the connection, or carry the
#: request out and then drop it ("lose"), or answer 502 after it was carried out ("lie").
Fault = tuple[int, dict[str, str], Any] | str


@dataclass
class Request:
    """What came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    content: Any
    at: float = field(default_factory=time.monotonic)


class Server:
    """Answers on a thread; a context manager."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.faults: list[tuple[Callable[[Request], bool], Fault]] = []
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                parts = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                data = self.rfile.read(length)
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                headers = {key.lower(): value for key, value in self.headers.items()}
                request = Request(
                    self.command, parts.path, query, headers, json.loads(data) if data else None
                )
                with owner._lock:
                    owner.requests.append(request)
                    fault = owner._fault(request)
                    answer = None if isinstance(fault, tuple) or fault == "drop" else owner.answer(request)
                if fault in ("drop", "lose"):
                    self.close_connection = True
                    return
                if fault == "lie":
                    answer = (502, {}, {"message": "Server Error"})
                if isinstance(fault, tuple):
                    answer = fault
                assert answer is not None
                status, more, content = answer
                body = b"" if content is None else json.dumps(content).encode()
                self.send_response(status)
                for key, value in {**more, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = _serve  # noqa: N815 - the base class's words

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fail(self, fault: Fault, *, method: str = "", path: str = "", times: int = 1) -> None:
        """Let the next ``times`` requests of the kind fail."""

        def matches(request: Request) -> bool:
            return method in ("", request.method) and re.fullmatch(path or ".*", request.path) is not None

        self.faults += [(matches, fault)] * times

    def _fault(self, request: Request) -> Fault | None:
        for index, (matches, fault) in enumerate(self.faults):
            if matches(request):
                del self.faults[index]
                return fault
        return None

    def made(self, method: str, path: str = ".*") -> list[Request]:
        """The requests of a kind, in their order."""
        return [one for one in self.requests if one.method == method and re.fullmatch(path, one.path)]

    def answer(self, request: Request) -> tuple[int, dict[str, str], Any]:
        """What the server does when nothing fails."""
        raise NotImplementedError


class Hook(Server):
    """A webhook; its address is a secret."""

    SECRET = "T0SECRET/B0SECRET/xyzzy"

    def __init__(self) -> None:
        super().__init__()
        self.url += f"/services/{self.SECRET}"

    def answer(self, request: Request) -> tuple[int, dict[str, str], Any]:
        return 200, {}, None


class Tracker(Server):
    """The issues of one repository, as GitHub's REST API has them."""

    TOKEN = "ghs_0123456789secretsecretsecret"
    REPOSITORY = "someone/something"
    LIMIT = 65_536

    def __init__(self, page: int = 100, port: int = 0) -> None:
        super().__init__(port)
        self.page = page
        self.issues: list[dict[str, Any]] = []
        self.comments: dict[int, list[dict[str, Any]]] = {}

    def add(self, **changes: Any) -> dict[str, Any]:
        """An issue that somebody made."""
        number = len(self.issues) + 1
        whole = {
            "number": number,
            "state": "open",
            "title": "something",
            "body": None,
            "labels": [],
            **changes,
        }
        self.issues.append(whole)
        self.comments[number] = []
        return whole

    def answer(self, request: Request) -> tuple[int, dict[str, str], Any]:
        if request.headers.get("authorization") != f"Bearer {self.TOKEN}":
            return 401, {}, {"message": "Bad credentials"}
        if not request.headers.get("user-agent"):
            return 403, {}, {"message": "Request forbidden by administrative rules."}
        root = f"/repos/{self.REPOSITORY}/issues"
        found = re.fullmatch(rf"{root}(?:/(\d+)(/comments)?)?", request.path)
        if not found:
            return 404, {}, {"message": "Not Found"}
        body = request.content.get("body") if request.content else None
        if isinstance(body, str) and len(body) > self.LIMIT:
            return (
                422,
                {},
                {
                    "message": "Validation Failed",
                    "errors": [{"message": f"body is too long (maximum is {self.LIMIT} characters)"}],
                },
            )
        if found[1] is None:
            if request.method == "POST":
                labels = [{"name": name} for name in request.content["labels"]]
                made = self.add(title=request.content["title"], body=body, labels=labels)
                return 201, {}, made
            return self._list(request, self._selected(request))
        number = int(found[1])
        if not 1 <= number <= len(self.issues):
            return 404, {}, {"message": "Not Found"}
        if found[2]:
            if request.method == "POST":
                self.comments[number].append({"id": len(self.comments[number]), "body": body})
                return 201, {}, self.comments[number][-1]
            return self._list(request, self.comments[number])
        assert request.method == "PATCH"
        self.issues[number - 1].update(request.content)
        return 200, {}, self.issues[number - 1]

    def _selected(self, request: Request) -> list[dict[str, Any]]:
        wanted = request.query.get("labels", "")
        state = request.query.get("state", "open")
        return [
            issue
            for issue in reversed(self.issues)  # the newest first, like GitHub
            if state in ("all", issue["state"]) and wanted in {label["name"] for label in issue["labels"]}
        ]

    def _list(self, request: Request, items: list[Any]) -> tuple[int, dict[str, str], Any]:
        size = min(self.page, int(request.query.get("per_page", "30")))
        page = int(request.query.get("page", "1"))
        headers = {}
        if page * size < len(items):
            query = "&".join(
                f"{key}={value}" for key, value in {**request.query, "page": str(page + 1)}.items()
            )
            headers["Link"] = f'<{self.url}{request.path}?{query}>; rel="next", <{self.url}>; rel="last"'
        return 200, headers, items[(page - 1) * size : page * size]


class Printing(Tracker):
    """Says on its standard output what becomes of its issues."""

    def answer(self, request: Request) -> tuple[int, dict[str, str], Any]:
        status, headers, content = super().answer(request)
        if status < 300 and request.method != "GET" and "title" in content:
            print(f"issue #{content['number']}, {content['state']}: {content['title']}", flush=True)
        return status, headers, content


if __name__ == "__main__":
    with Printing(port=int(sys.argv[1])):
        threading.Event().wait()
