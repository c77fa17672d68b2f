"""A server of one page to this machine alone, from memory."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import override

__all__ = ["PageServer"]

HOST = "127.0.0.1"
WEB_PORT = 80  # which browsers leave out of the name of a host
PATIENCE = 60.0  # seconds that a client may take to ask, or to take an answer
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",  # index.html says the rest, for pages from disk as well
    "Cross-Origin-Resource-Policy": "same-origin",  # no other site reads a model by a script tag
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # another run may be served at the same port
}


class PageServer(ThreadingHTTPServer):
    """Serves files to programs on this machine.

    Attributes:
        files: what it serves, by path; empty at first, so that the port is held before they are made.

    Args:
        port: where to listen; 0 for any that is free.

    Raises:
        OSError: another program listens there, or this one may not.

    Example:
        >>> with PageServer(0) as server:
        ...     print(server.address.rpartition(":")[0])
        http://127.0.0.1
    """

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # where it would let two programs listen at one port
    files: Mapping[str, bytes]

    def __init__(self, port: int) -> None:
        self.files = {}
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                reason = "another program uses it"
            elif error.errno == errno.EACCES:
                reason = "only an administrator may use it"
            else:
                raise
            raise OSError(f"port {port} cannot be had, {reason}: give another, or --port 0 for any free one") from error

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that go away or are too slow: a closed tab is no mistake."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://{HOST}:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE
    server: PageServer

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def _answer(self, *, with_content: bool) -> None:
        # A site whose name was made to lead here would be let in by the browser, but it asks under its own name.
        host, _, port = self.headers.get("Host", "").lower().partition(":")
        if host not in {HOST, "localhost"} or (port or str(WEB_PORT)) != str(self.server.server_port):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        name = self.path.partition("?")[0].removeprefix("/") or "index.html"
        content = self.server.files.get(name)
        if content is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{TYPES[name.rpartition('.')[2]]}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        for header, value in HEADERS.items():
            self.send_header(header, value)
        self.end_headers()
        if with_content:
            self.wfile.write(content)

    @override
    def log_message(self, *_: Any) -> None:
        """Say nothing of each request."""
