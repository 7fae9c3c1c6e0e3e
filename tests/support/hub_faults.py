"""What can go wrong at the small Hub: each is a fault for `SmallHub.fail`."""

import os
import signal
import threading
import time
from typing import Any

from small_hub import small_file
from small_hub_answers import Answer, answer
from small_hub_server import Fault, Handler, SmallHub

CUT = Answer(0)
"""No answer: the connection ends."""


def status(code: int, message: str = "", **headers: str) -> Fault:
    """Answer with an error."""
    more = {"X-Error-Message": message} if message else {}
    return lambda hub, handler: answer({"error": message or "fault"}, code, **more, **headers)


def page(code: int) -> Fault:
    """Answer with a page, as a proxy does, and not with JSON."""
    return lambda hub, handler: Answer(code, b"<html>Bad gateway</html>", {"Content-Type": "text/html"})


def cut(hub: SmallHub, handler: Handler) -> Answer:
    """End the connection."""
    return CUT


def cut_in_body(hub: SmallHub, handler: Handler) -> Answer:
    """End the connection while the client is still sending, half of it read; a fault for `when="start"`."""
    handler.rfile.read(int(handler.headers.get("Content-Length") or 0) // 2)
    return CUT


def cut_in_answer(hub: SmallHub, handler: Handler) -> Answer:
    """Announce a file, send half of it and end the connection."""
    oid = handler.path.split("/")[2]
    content = hub.state.storage[oid]
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.send_header("ETag", f'"{oid}"')
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.wfile.flush()
    return CUT


class _Slow:
    """A file of a connection that gives and takes small pieces with waits between."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        pieces = []
        for start in range(0, size, 4096):
            time.sleep(0.001)
            pieces.append(self._file.read(min(4096, size - start)))
        return b"".join(pieces)

    def write(self, content: bytes) -> int:
        for start in range(0, len(content), 4096):
            time.sleep(0.001)
            self._file.write(content[start : start + 4096])
            self._file.flush()
        return len(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def slow(hub: SmallHub, handler: Handler) -> None:
    """From now on this connection is slow; a fault for `when="start"`."""
    handler.rfile, handler.wfile = _Slow(handler.rfile), _Slow(handler.wfile)


def another_commit(path: str, content: bytes, then: Answer | None = None) -> Fault:
    """Somebody else commits a file to main first; `then` is answered, or what the Hub would say."""

    def fault(hub: SmallHub, handler: Handler) -> Answer | None:
        for repository in hub.state.repositories.values():
            head = repository.resolve("main")
            tree = repository.commits[head] | {path: small_file(content)}
            repository.add("refs/heads/main", head, tree, "somebody else")
        return then

    return fault


def other_bytes(path: str) -> Fault:
    """The Hub stores a file wrongly."""

    def fault(hub: SmallHub, handler: Handler) -> None:
        for repository in hub.state.repositories.values():
            repository.tree("main")[path] = small_file(b"other bytes")

    return fault


def expired(hub: SmallHub, handler: Handler) -> None:
    """From now on the token is not known."""
    hub.state.tokens.clear()


class Killer:
    """Ends the client by a signal: `hub.fail(None, killer.kill, ...)`; `clients.started` must be `killer.started`."""

    def __init__(self, number: int = signal.SIGKILL) -> None:
        self._signal = number
        self._pid: int | None = None
        self._known = threading.Event()

    def started(self, pid: int) -> None:
        self._pid = pid
        self._known.set()

    def kill(self, hub: SmallHub, handler: Handler) -> Answer:
        self._known.wait(10)
        os.kill(self._pid, self._signal)
        return CUT
