"""A small Hub over HTTP for tests: what the real clients send is answered, anything else is an error and noted.

It can be told to fail: `hub.fail("commit", hub_faults.status(500))`. Requests are named as in `small_hub_answers.ROUTES`.
"""

import re
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from small_hub import Refused, State
from small_hub_answers import ANSWERS, AT_STORAGE, READS, ROUTES, Answer, Call, answer

Fault = Callable[["SmallHub", "Handler"], Answer | None]
"""What goes wrong: it gives the answer to send, or None where the Hub shall answer as always."""


@dataclass
class _Planned:
    kind: str | None  # of request; None: any
    fault: Fault
    when: str  # start: the body is not read yet; before or after the request was carried out
    skip: int
    times: int


class SmallHub:
    """The servers and what they hold. Use as a context manager; `endpoint` is the address, `storage` that of large files.

    Attributes:
        state: repositories, storage, tokens.
        calls: (kind of request, path) in order.
        headers: of every request, by name in lower case.
        unknown: requests that no route knows, and faults of the Hub itself; a test must find none.
        ignored: paths that a .gitignore in the repository names.
    """

    def __init__(self, small: int = 10 * 1024, part: int | None = None) -> None:
        self.small, self.part = small, part
        self.servers = [_Server(("127.0.0.1", 0), Handler) for _ in range(2)]
        for server in self.servers:
            server.hub = self
        self.endpoint, self.storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in self.servers)
        self.reset()

    def reset(self) -> None:
        """Forget everything but the address."""
        self.restore(State())
        self.unknown: list[str] = []
        self.ignored: set[str] = set()

    def restore(self, state: State) -> None:
        """Go back to an earlier state; calls are counted anew, and nothing is planned to fail."""
        self.state = state
        self.calls: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.reset_faults()

    def reset_faults(self) -> None:
        """Let nothing fail any more."""
        self._planned: list[_Planned] = []

    def __enter__(self) -> "SmallHub":
        for server in self.servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def fail(self, kind: str | None, fault: Fault, *, when: str = "before", skip: int = 0, times: int = 1) -> None:
        """Let the next `times` requests of this kind, after `skip` of them, meet a fault."""
        self._planned.append(_Planned(kind, fault, when, skip, times))

    def fault_of(self, kind: str, when: str) -> Fault | None:
        for plan in self._planned:
            if plan.when != when or plan.kind not in (None, kind) or plan.times == 0:
                continue
            if plan.skip:
                plan.skip -= 1
                continue
            plan.times -= 1
            return plan.fault
        return None

    def count(self, *kinds: str) -> int:
        return sum(kind in kinds for kind, _ in self.calls)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: SmallHub

    def handle_error(self, request: object, client_address: object) -> None:
        """Note a fault of the Hub itself; a client that went away is none."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.hub.unknown.append(repr(error))


class Handler(BaseHTTPRequestHandler):
    """Finds the route, meets the planned fault, answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _handle(self) -> None:
        hub, where = self.server.hub, urlsplit(self.path)
        kind, found = _route(self.command, where.path, at_storage=self.server is hub.servers[1])
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.call = Call(kind, {}, {k: v[0] for k, v in parse_qs(where.query).items()}, b"", None, headers)
        with hub.state.lock:
            hub.calls.append((kind, where.path))
            hub.headers.append(headers)
            if found is None:
                hub.unknown.append(f"{self.command} {self.path}")
            planned = {when: hub.fault_of(kind, when) for when in ("start", "before", "after")}
        if planned["start"] and (given := planned["start"](hub, self)):
            self.send(given)
            return
        self.call.body = self._body()
        given = planned["before"](hub, self) if planned["before"] else None
        if given is None:
            given = self._answer(found)
        if planned["after"]:
            given = planned["after"](hub, self) or given
        self.send(given)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _handle

    def _answer(self, found: re.Match | None) -> Answer:
        hub, call = self.server.hub, self.call
        if found is None:
            return answer({"error": "the small Hub does not know this route"}, 501)
        call.parts = {k: unquote(v) if v else v for k, v in found.groupdict().items()}
        try:
            with hub.state.lock:
                call.user = self._user(call.kind)
                return ANSWERS[call.kind](hub, call)
        except Refused as error:
            more = {"X-Error-Code": error.code} if error.code else {}
            return answer({"error": error.message}, error.status, **more, **{"X-Error-Message": error.message})

    def _user(self, kind: str) -> str | None:
        if kind in AT_STORAGE:
            assert "authorization" not in self.call.headers, "a token was sent to the storage"
            return None
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.server.hub.state.tokens:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        if not token and (kind not in READS or kind == "whoami"):
            raise Refused(401, "", "Invalid username or password.")
        return self.server.hub.state.tokens.get(token)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def send(self, given: Answer) -> None:
        if given.status == 0:
            self.cut()
            return
        self.send_response(given.status)
        headers = given.headers or {}
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(given.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(given.body)

    def cut(self) -> None:
        """End the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args: object) -> None:
        """Stay silent."""


def _route(method: str, path: str, *, at_storage: bool) -> tuple[str, re.Match | None]:
    for kind, (verb, pattern) in ROUTES.items():
        if (kind in AT_STORAGE) == at_storage and verb == method and (found := re.fullmatch(pattern, path)):
            return kind, found
    return "unknown", None
