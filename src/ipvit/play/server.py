"""The web server of the playground: for this computer only, and for nobody but the page it serves.

It listens on 127.0.0.1. Everything but the page's own files needs the session's key, which is part of the address that
is printed (behind ``#``, so that browsers send it to nobody). Requests under another host name (DNS rebinding) or from
another site's page are refused, and so is a body before it is read when it is too large. Files are served from a fixed
list; no path comes from the browser.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import socket
import socketserver
import sys
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from ipvit.core.text.validation_messages import explain
from ipvit.errors import InputError, error_line, printable
from ipvit.play.debounce import SupersededError
from ipvit.play.photos import MAX_UPLOAD
from ipvit.play.playground import Playground
from ipvit.play.settings import CellsRequest, More, PerturbedRequest, PhotoRequest

HOST = "127.0.0.1"
KEY_HEADER = "X-Ipvit-Key"

_PAGE = Path(__file__).parent / "page"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/play.css": ("play.css", "text/css; charset=utf-8"),
    "/play.js": ("play.js", "text/javascript; charset=utf-8"),
    "/ask.js": ("ask.js", "text/javascript; charset=utf-8"),
    "/grid.js": ("grid.js", "text/javascript; charset=utf-8"),
    "/panel.js": ("panel.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_MOST_JSON = 64 * 1024  # bytes of a request
_MOST_DISCARDED = 64 * 2**20  # bytes of a refused body that are read and thrown away
_LINGER = 3.0  # seconds for it
_PATIENCE = 30.0  # seconds without a byte from the browser

Request = TypeVar("Request", bound=BaseModel)


class RequestError(Exception):
    """A request that is not answered: an HTTP status and one line that says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class PlayServer(ThreadingHTTPServer):
    """Serves one playground on this computer.

    Args:
        playground: what is asked.
        port: where; 0 is a free one.

    Attributes:
        address: what to open in a browser, with the session's key.

    Raises:
        InputError: the port is taken.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = os.name == "posix"  # elsewhere it would let two servers share a port

    def __init__(self, playground: Playground, port: int = 0) -> None:
        self.playground = playground
        self.key = secrets.token_urlsafe(32)
        try:
            super().__init__((HOST, port), _Handler)
        except OverflowError:
            raise InputError(f"a port is a number from 0 to 65535, not {port}") from None
        except OSError as error:
            raise InputError(
                f"port {port} cannot be used ({error.strerror}); leave --port away and a free one is taken"
            ) from None
        names = (HOST, "localhost")
        self.hosts = {f"{name}:{self.server_port}" for name in names} | set(names if self.server_port == 80 else ())
        self.address = f"http://{HOST}:{self.server_port}/#{self.key}"

    def server_bind(self) -> None:
        """Bind without the name look-up that ``HTTPServer`` makes here, which may ask the network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent when the browser went away; anything else is a fault of ours and is shown."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: PlayServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ipvit", ""
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """Serve the page's files."""
        self._guarded(self._file)

    def do_POST(self) -> None:
        """Answer a question of the page."""
        self._guarded(self._answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the overridden method
        """Say nothing: the terminal is for the user."""

    def _guarded(self, respond: Callable[[], None]) -> None:
        self._unread = self._stated_length()
        try:
            self._check_sender()
            respond()
        except RequestError as refusal:
            self._say(refusal.status, {"error": refusal.text})
        if self._unread:
            self._discard()

    def _check_sender(self) -> None:
        """Refuse other host names, which is how a foreign page gets around the same-origin policy, and other pages."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise RequestError(403, f"this server answers as {HOST}:{self.server.server_port} only")
        origins = self.headers.get_all("Origin") or []
        if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
            raise RequestError(403, "requests from other pages are not answered")
        if self.command == "POST" and self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise RequestError(403, "requests from other pages are not answered")

    def _file(self) -> None:
        path = self._asked_for()
        if path not in _FILES:
            raise RequestError(404, "there is nothing at this address")
        name, kind = _FILES[path]
        self._send(200, (_PAGE / name).read_bytes(), kind)

    def _answer(self) -> None:
        playground = self.server.playground
        answers: dict[str, Callable[[], dict[str, Any]]] = {
            "/api/start": playground.start,
            "/api/photos": lambda: playground.photos(self._json(More).first),
            "/api/upload": lambda: playground.upload(self._body(MAX_UPLOAD)),
            "/api/view": lambda: playground.view(self._json(PhotoRequest)),
            "/api/cells": lambda: playground.cells(self._json(CellsRequest)),
            "/api/look": lambda: playground.look(self._json(PerturbedRequest)),
        }
        given = self.headers.get(KEY_HEADER, "")
        if not hmac.compare_digest(given.encode(), self.server.key.encode()):
            raise RequestError(401, "open the address that ipvit play printed: it carries the key of this session")
        path = self._asked_for()
        if path not in answers:
            raise RequestError(404, "there is nothing at this address")
        self._say(200, _one_line_for_errors(answers[path]))

    def _asked_for(self) -> str:
        try:
            return urlsplit(self.path).path
        except ValueError:  # http://[
            raise RequestError(400, "the address of this request cannot be read") from None

    def _json(self, kind: type[Request]) -> Request:
        if self.headers.get_content_type() != "application/json":
            raise RequestError(415, "a request must be application/json")
        try:
            return kind.model_validate_json(self._body(_MOST_JSON))
        except ValidationError as error:
            raise InputError(explain(error, kind)) from None

    def _stated_length(self) -> int:
        """Return the length of the body in bytes, or -1 where it is not stated as it should be."""
        if "Transfer-Encoding" in self.headers:
            return -1
        text = self.headers.get("Content-Length", "0").strip()
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else -1

    def _body(self, most: int) -> bytes:
        """Read the body, unless its stated length says that it is too large."""
        length = self._stated_length()
        if length < 0 or "Content-Length" not in self.headers:
            raise RequestError(411, "a request must state its length")
        if length > most:
            allowed = f"{most // 2**20} MB" if most >= 2**20 else f"{most // 2**10} KB"
            raise RequestError(413, f"the file is too large: {length / 2**20:.1f} MB, and {allowed} are the most")
        self._unread = 0
        data = self.rfile.read(length)
        if len(data) < length:
            raise ConnectionAbortedError("the browser stopped in the middle of a request")
        return data

    def _say(self, status: int, content: dict[str, Any]) -> None:
        self._send(status, json.dumps(content, allow_nan=False).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        if self._unread:  # what is left of this request must not be taken for the next one
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _discard(self) -> None:
        """Take in what the browser still sends, keeping nothing: otherwise it would not read the answer."""
        until, left = time.monotonic() + _LINGER, _MOST_DISCARDED
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER)
            while left > 0 and time.monotonic() < until and (chunk := self.connection.recv(2**16)):
                left -= len(chunk)


def _one_line_for_errors(answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the answer, or refuse with the one line that the page shows."""
    try:
        return answer()
    except (RequestError, ConnectionError, TimeoutError):
        raise
    except SupersededError:
        raise RequestError(409, "overtaken by a newer request") from None
    except InputError as error:
        raise RequestError(400, printable(str(error))) from None
    except Exception as error:  # noqa: BLE001 - anything may come out of somebody's network
        if os.environ.get("IPVIT_TRACEBACK"):
            traceback.print_exc()
        raise RequestError(500, error_line(error, 300, named=True)) from None
