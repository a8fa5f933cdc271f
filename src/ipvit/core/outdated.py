"""Marks on what is made of a run's records while these go on: tables, figures and the page are then of before.

A run marks them before it writes anything; whoever makes them anew takes the marks away.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from ipvit.core.files import write_atomic
from ipvit.core.text.notebook import escaped

PAGE = "report.html"
MARK = "OUTDATED.txt"
"""A file beside tables, and beside figures, that are not of the folder's last study."""
MADE = ("tables", "figures")
"""Folders of a run folder whose files are made of its records."""
_ON_PAGE = "<!-- outdated -->"
_BODY = re.compile(rb"<body[^>]*>\s*(?:<main[^>]*>)?")


def mark_outdated(out: Path) -> None:
    """Mark what was made of a run folder's records by an earlier call; where nothing was, nothing is written."""
    text = (
        "What stands here is of an earlier call: the run went on since, and has not ended.\n"
        f"ipvit report {out} makes it of what is measured by now.\n"
    )
    for name in MADE:
        folder = out / name
        if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).exists():
            write_atomic(folder / MARK, text.encode())
    _mark_page(out / PAGE, text)


def clear_mark(folder: Path) -> None:
    """Take the mark away from tables or figures that have been made anew."""
    with contextlib.suppress(FileNotFoundError):
        (folder / MARK).unlink()


def put_earlier_aside(folder: Path, current: set[str], of: set[str]) -> None:
    """Move tables or figures of what is no longer in the study into ``earlier`` below their folder.

    Args:
        folder: of the files.
        current: stems of the files that have been made now.
        of: names that stems begin with, each whole or before ``-``: other files are not ours.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem = path.stem
        ours = any(stem == name or stem.startswith(f"{name}-") for name in of)
        if path.is_file() and not path.is_symlink() and ours and stem not in current:
            earlier = folder / "earlier"
            earlier.mkdir(exist_ok=True)
            path.replace(earlier / path.name)


def _mark_page(page: Path, text: str) -> None:
    if page.is_symlink() or not page.is_file():
        return
    content = page.read_bytes()
    body = _BODY.search(content)
    if body is None or _ON_PAGE.encode() in content:
        return
    said = escaped(" ".join(text.split()))
    mark = f'{_ON_PAGE}<p class="warn"><strong>Outdated.</strong> {said}</p>'
    write_atomic(page, content[: body.end()] + mark.encode() + content[body.end() :])
