"""Writing to the terminal: names of files, classes and networks are shown and never obeyed."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Generator, Iterable
from typing import IO, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from ipvit.core.text.glued import glued
from ipvit.errors import harmless


class Terminal(Console):
    """A rich console without markup, in whose texts every control character is a replacement character.

    Square brackets in a name are no styles, a word between colons is no emoji (``net.py:three:``), and an escape
    sequence in one reaches no terminal: what is bold or red is said with ``style=``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does, but never break a line within an interval or between a number and its unit."""
        super().print(*(glued(one, _SPACE) if isinstance(one, str) else one for one in objects), **options)

    def on_broken_pipe(self) -> None:
        """Go on without the reader, as in ``| head``: rich would end the process with the code of a failure."""
        silence(self.file)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of something to show, their text made harmless."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else harmless(segment.text.replace(_SPACE, " "))
            yield segment if segment.control else Segment(text, segment.style)


_SPACE = "\ue000"
"""Stands for a space while lines are broken: rich breaks them at no-break spaces too."""


@contextlib.contextmanager
def progress(what: str, total: int, *, shown: bool, unit: str = "", where: str = "") -> Generator[Callable[..., None]]:
    """Show a bar on standard error where that is a terminal.

    Args:
        what: is going on.
        total: how many there are to do.
        shown: False shows nothing.
        unit: of which they are, in the plural.
        where: the results go, for example a folder.

    Yields:
        What moves the bar on, by one or by a given number; a text that it is given too takes the place of ``what``.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class TimeLeft(TimeRemainingColumn):
        """The time that remains, and that it is this."""

        def render(self, task: Any) -> Text:
            return super().render(task) + Text(" left", "progress.remaining")

    console = Terminal(stderr=True)
    columns = (
        TextColumn("{task.description}", table_column=_column(no_wrap=True)),
        BarColumn(bar_width=None, table_column=_column(min_width=6, ratio=1)),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}{task.fields[unit]}", table_column=_column(no_wrap=True)),
        TextColumn("{task.fields[rate]}", table_column=_column(no_wrap=True)),
        TimeLeft(compact=True, table_column=_column(no_wrap=True)),
        TextColumn("{task.fields[where]}", style="dim", table_column=_column(no_wrap=True)),
    )
    fields: dict[str, Any] = {"unit": f" {unit}" if unit else "", "rate": "", "where": _into(where, console.width)}
    disable = not shown or not console.is_terminal or total == 0
    with Progress(*columns, console=console, disable=disable, expand=True) as bar:
        task = bar.add_task(what, total=total, **fields)

        def move_on(count: int = 1, now: str = "") -> None:
            bar.advance(task, count)
            speed = bar.tasks[0].speed if bar.tasks else None
            bar.update(task, description=now or what, rate=_rate(speed))

        yield move_on


def _column(**options: Any) -> Any:
    from rich.table import Column

    return Column(**options)


def _into(where: str, width: int) -> str:
    """Return where results go as the end of a bar: a path that is long there keeps its beginning and its end."""
    room = max(12, width - 68)
    if len(where) > room:
        where = f"{where[: room // 3]}…{where[-(room - room // 3 - 1) :]}"
    return f"into {where}" if where else ""


def _rate(speed: float | None) -> str:
    """Return how many a second, or a minute where they are few."""
    if not speed:
        return ""
    if speed < 1:
        return f"{60 * speed:.3g}/min"
    return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s"


def print_json(content: object) -> int:
    """Print content as JSON on standard output and return the exit code 0; a reader may go away."""
    try:
        json.dump(content, sys.stdout, indent=1, ensure_ascii=False)
        sys.stdout.write("\n")
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
    return 0


def silence(stream: TextIO | IO[str]) -> None:
    """Let what is still written to a stream that nobody reads go nowhere, also what its buffer holds."""
    with contextlib.suppress(OSError, ValueError):  # one without a file of the system
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def open_standard_streams() -> None:
    """Open the standard streams that this process was started without, as by ``>&-``, on nothing.

    A file that is opened later would take the place of the missing one, and what is printed would go into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
