"""Downloading weights: resumed when cut, checked by size and digest, kept once for all processes."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlparse

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ipvit.core.digests import digest_of, digest_of_file, stated_hash
from ipvit.core.files import LONGEST, path_component, write_atomic
from ipvit.core.terminal import Terminal
from ipvit.errors import DownloadError, InputError, error_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

TIMEOUT = 30.0
"""Seconds without a byte after which a server is given up."""

CHUNK = 1 << 20
"""Bytes read at a time."""


class _CutShortError(OSError):
    """The connection ended before the file did; what has come is kept."""


def fetch(url: str, *, sha256: str | None = None, timeout: float = TIMEOUT) -> Path:
    """Return the local file for a URL, downloading it unless it is there.

    The file lies in torch's hub folder, in ``checkpoints/ipvit``. Its SHA-256 is noted in a small JSON file beside it
    the first time, and compared ever after.

    Args:
        url: ``http``, ``https`` or ``file`` (used in place).
        sha256: the file's SHA-256 or its first hex digits; by default those in its name, if any.
        timeout: seconds without a byte after which the server is given up.

    Raises:
        InputError: no network, no such file, a web page instead of weights, or content other than stated or noted.
    """
    stated = sha256 or stated_hash(url)
    if urlparse(url).scheme == "file":
        path = Path(unquote(urlparse(url).path))
        if not path.is_file():
            raise InputError(f"there is no file {str(path)!r} ({url})")
        _check_stated(repr(str(path)), digest_of_file(path), stated, "get it anew")
        return path
    target = cache_path(url)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if not target.is_file():
                _Download(url, target, timeout).run(stated)
            _check(target, url, stated)
    except OSError as error:
        raise InputError(
            f"cannot keep weights in {str(target.parent)!r}: {_line(error)}; TORCH_HOME moves it"
        ) from None
    return target


def cache_path(url: str) -> Path:
    """Return where the file of a URL is kept, and where to put it by hand."""
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints" / "ipvit" / digest_of(url.encode(), 12)
    return folder / path_component(Path(unquote(urlparse(url).path)).name or "weights", plain=False, most=LONGEST)


@dataclasses.dataclass
class _Download:
    url: str
    target: Path
    timeout: float

    @property
    def part(self) -> Path:
        """What has come so far."""
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def validator(self) -> Path:
        """The version of the file on the server that ``part`` is the beginning of (its ETag or date)."""
        return self.target.with_name(f"{self.target.name}.part.version")

    def run(self, stated: str | None) -> None:
        """Fetch the whole file and move it into place; goes on where a cut connection stopped."""
        while True:
            before = self._have()
            try:
                self._receive()
                break
            except urllib.error.HTTPError as error:
                raise DownloadError(f"{self.url} answers {error.code} {error.reason}; {self._by_hand()}") from None
            except (OSError, http.client.HTTPException) as error:
                if self._have() > before:
                    continue  # bytes came: the server lives, ask for the rest
                kept = f"; {self._have():,} bytes are kept, the same command goes on from there" if self._have() else ""
                raise DownloadError(f"cannot download {self.url} ({_line(error)}){kept}; {self._by_hand()}") from None
        try:
            _check_stated(f"what {self.url} sends", digest_of_file(self.part), stated, "it was not kept; try again")
            _refuse_page(self.part, f"what {self.url} sends", self._by_hand())
        except InputError:
            self.part.unlink()
            raise
        self.part.replace(self.target)
        self.validator.unlink(missing_ok=True)

    def _receive(self) -> None:
        """Ask for what is missing, once, and keep what comes."""
        start = self._have()
        request = urllib.request.Request(self.url, headers={"User-Agent": "ipvit"})
        if start:
            request.add_header("Range", f"bytes={start}-")
            if self.validator.is_file():
                request.add_header("If-Range", self.validator.read_text())
        try:
            response = urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
                raise
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return  # nothing is missing
            self.part.unlink()  # the file on the server is another one, shorter than what is here
            self._receive()
            return
        with response:
            if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
                raise InputError(f"{self.url} is a web page, not weights; {self._by_hand()}")
            resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT and _starts_at(response, start)
            start = start if resumed else 0
            self._note_version(response)
            length = response.headers.get("Content-Length")
            total = start + int(length) if length else None
            with self.part.open("ab" if resumed else "wb") as file:
                self._copy(response, file, start, total)
        if total is not None and self._have() != total:
            raise _CutShortError(f"the connection ended after {self._have():,} of {total:,} bytes")

    def _copy(self, response: Any, file: IO[bytes], start: int, total: int | None) -> None:
        with _progress(self.target.name, start, total) as advance:
            while block := response.read(CHUNK):
                file.write(block)
                advance(len(block))
            file.flush()
            os.fsync(file.fileno())

    def _note_version(self, response: Any) -> None:
        tag = response.headers.get("ETag")
        version = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
        if version:
            self.validator.write_text(version)
        else:
            self.validator.unlink(missing_ok=True)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _by_hand(self) -> str:
        return f"save it by hand as {str(self.target)!r}"


def _starts_at(response: Any, start: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _check(target: Path, url: str, stated: str | None) -> None:
    """Compare a kept file with what its name states and with what was noted; note it the first time."""
    digest = digest_of_file(target)
    _check_stated(repr(str(target)), digest, stated, f"delete it to download {url} again")
    note = target.with_name(f"{target.name}.json")
    if not note.is_file():
        _refuse_page(target, repr(str(target)), f"delete it and download {url} itself")
        content = {"url": url, "sha256": digest, "size": target.stat().st_size}
        write_atomic(note, json.dumps(content, indent=1).encode())
        return
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{str(note)!r} is damaged; delete it to note the weights beside it anew") from None
    if noted != digest:
        raise InputError(
            f"{str(target)!r} has changed since it was first used (SHA-256 {digest[:12]}, was {noted[:12]}); delete it "
            f"to download it again, or delete {note.name!r} beside it if the new content is wanted"
        )


def _check_stated(what: str, digest: str, stated: str | None, advice: str) -> None:
    if stated and not digest.startswith(stated.lower()):
        raise InputError(f"{what} has SHA-256 {digest[:12]}, stated {stated[:12]}: {advice}, or give NAME@FILE")


def _refuse_page(path: Path, what: str, advice: str) -> None:
    with path.open("rb") as file:
        if file.read(512).lstrip()[:1] == b"<":
            raise InputError(f"{what} is a web page, not weights; {advice}")


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Let one process at a time work on a file; the others wait, and then find it there."""
    with target.with_name(f".{target.name}.lock").open("a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)  # let go of when the file is closed or the process ends
        yield


@contextlib.contextmanager
def _progress(name: str, start: int, total: int | None) -> Iterator[Any]:
    console = Terminal(file=sys.stderr)
    if not console.is_terminal:
        yield lambda _count: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=total, completed=start)
        yield lambda count: progress.advance(task, count)


def _line(error: BaseException) -> str:
    return error_line(getattr(error, "reason", None) or error)
