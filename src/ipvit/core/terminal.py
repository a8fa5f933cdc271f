"""Writing to the terminal: names of files, classes and networks are shown and never obeyed."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Generator, Iterable
from typing import Any

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
    """Print content as JSON on standard output and return the exit code 0."""
    json.dump(content, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
    return 0
