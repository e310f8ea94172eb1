"""A proxy before an S3 server that answers some requests wrongly, as servers and networks do."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

__all__ = ["FAULTS", "Proxy", "faulty_proxy"]

_EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
FAULTS: dict[str, tuple[int, bytes]] = {
    "500": (500, _INTERNAL),
    "503": (503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"),
    "expired": (400, _EXPIRED),
    "denied": (403, _DENIED),
}
"""Status and body of faults that are an answer. The others are: hang, truncated, lost (done, but not answered)."""


class Proxy:
    """What the proxy does, and what it has seen.

    Attributes:
        fault: asked with the method and path of each request; gives the name of a fault, or None.
        sent: number of bytes of bodies that were sent to clients, by path.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self.faults = 0
        self.sent: dict[str, int] = {}


@contextmanager
def faulty_proxy(server: str, *, hang_s: float) -> Iterator[Proxy]:
    """Start a proxy before the server at an address."""
    target = urlsplit(server)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.fault(self.command, self.path)
            proxy.faults += fault is not None
            if fault in FAULTS:
                self.answer(FAULTS[fault][0], {"Content-Type": "application/xml"}, FAULTS[fault][1])
                return
            if fault == "hang":
                time.sleep(hang_s)
                self.close_connection = True
                return
            connection = http.client.HTTPConnection(target.hostname or "", target.port)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if fault == "lost":
                self.close_connection = True
                return
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN}
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.answer(answer.status, headers, content, truncated=fault == "truncated", length=length)

        def answer(
            self,
            status: int,
            headers: dict[str, str],
            body: bytes,
            *,
            truncated: bool = False,
            length: str | None = None,
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if truncated else body)
                proxy.sent[self.path] = proxy.sent.get(self.path, 0) + len(body)
            self.close_connection = self.close_connection or truncated

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        proxy = Proxy(f"http://127.0.0.1:{listener.server_address[1]}")
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        yield proxy
        listener.shutdown()
        thread.join()


_OWN = ("content-length", "connection", "transfer-encoding", "date", "server")
"""Headers that the proxy writes itself."""
