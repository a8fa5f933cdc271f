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

from ipvit.errors import harmless


class Terminal(Console):
    """A rich console without markup, in whose texts every control character is a replacement character.

    Square brackets in a name are no styles, and an escape sequence in one reaches no terminal: what is bold or red is
    said with ``style=``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, **options)

    def on_broken_pipe(self) -> None:
        """Go on without the reader, as in ``| head``: rich would end the process with the code of a failure."""
        silence(self.file)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of something to show, their text made harmless."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)


@contextlib.contextmanager
def progress(what: str, total: int, *, shown: bool) -> Generator[Callable[..., None]]:
    """Show a bar on standard error where that is a terminal; gives what moves it on, by one or by a given number."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Terminal(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not shown or not console.is_terminal or total == 0) as bar:
        task = bar.add_task(what, total=total)

        def move_on(count: int = 1) -> None:
            bar.advance(task, count)

        yield move_on


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
