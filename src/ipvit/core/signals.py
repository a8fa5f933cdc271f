"""Signals that end a process: what they do, and how something short is brought to its end all the same."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP
"""Ctrl-C; what Slurm, spot machines and torchrun send before they kill; a terminal that is closed."""


def interrupt_by_signals() -> None:
    """Let each of the signals interrupt as Ctrl-C does; one that is ignored, as under ``nohup``, stays ignored."""
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def ignore_signals() -> None:
    """Let nothing interrupt what remains to be done at the end of the process."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def uninterrupted() -> Generator[None]:
    """Let the signals wait until something short is done.

    Raises:
        KeyboardInterrupt: afterwards, where one came.
    """
    caught: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        caught.append(number)

    before = {}
    if threading.current_thread() is threading.main_thread():  # only there are handlers set and called
        handlers = {number: signal.getsignal(number) for number in ENDING}
        before = {number: found for number, found in handlers.items() if found not in (None, signal.SIG_IGN)}
    try:
        for number in before:
            signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        raise KeyboardInterrupt
