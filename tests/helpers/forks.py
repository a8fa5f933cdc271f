"""Python in forks of a process that has imported what takes seconds: they start at once.

For what a process does once its modules are there: to be killed, to be the second on a folder, to run a script.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

from helpers.paths import TESTS


@functools.cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.imported"])
    before = dict(os.environ)
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    os.environ.update(OMP_NUM_THREADS="1", PYTHONPATH=path)
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


class Python:
    """``python ARGUMENTS``, in a group of processes of its own; has what is used of :class:`subprocess.Popen`.

    Args:
        arguments: ``SCRIPT``, ``-c CODE`` or ``-m MODULE``, and what follows.
        cwd: folder to work in; this process' by default.
        env: its environment; this process' by default.
    """

    def __init__(
        self, arguments: Sequence[object], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fork-")  # removed with this object
        self._said = [Path(self._folder.name, name) for name in ("out", "error")]
        for path in self._said:
            path.touch()
        words = [str(argument) for argument in arguments]
        todo = (words, str(cwd or Path.cwd()), dict(os.environ if env is None else env), *map(str, self._said))
        self._process = _server().Process(target=_be, args=todo)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or the negative number of the signal that ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("python", timeout or 0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; return what it wrote on standard output and on standard error."""
        self.wait(timeout)
        out, error = self._said
        return out.read_text(), error.read_text()

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)


def python(
    arguments: Sequence[object],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS`` to its end, as :func:`subprocess.run` does with ``text=True, capture_output=True``."""
    process = Python(arguments, cwd=cwd, env=env)
    out, error = process.communicate(timeout)
    assert process.returncode is not None
    return subprocess.CompletedProcess([*map(str, arguments)], process.returncode, out, error)


def ranks(
    arguments: Sequence[object], count: int, *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> list[Python]:
    """Start ``python ARGUMENTS`` so many times as the processes of one run; no launcher watches over them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    known = dict(os.environ if env is None else env) | common
    return [
        Python(arguments, cwd=cwd, env=known | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)
    ]


def _be(words: list[str], folder: str, environment: dict[str, str], out: str, error: str) -> None:
    """Be a new interpreter, as far as a script can tell."""
    multiprocessing.set_start_method("fork", force=True)  # what a new interpreter starts its own with
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, out), (2, error)):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
    sys.path[:0] = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]
    kind, *rest = words
    if kind == "-m":
        sys.argv, sys.path[:0] = rest, [folder]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv, sys.path[:0] = ["-c", *rest[1:]], [folder]
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), module.__dict__)  # noqa: S102 - as python -c does
    else:
        sys.argv, sys.path[:0] = words, [str(Path(kind).parent)]
        runpy.run_path(kind, run_name="__main__")
