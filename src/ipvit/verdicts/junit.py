"""Decided assertions as a JUnit file, which continuous integration shows: one case an assertion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from ipvit.core.files import write_atomic
from ipvit.errors import harmless
from ipvit.verdicts.deciding import Decided


def write_junit(path: Path, decided: Sequence[Decided]) -> None:
    """Write the file.

    Raises:
        OSError: it cannot be written.
    """
    failed = sum(not one.holds for one in decided)
    counts = f'tests="{len(decided)}" failures="{failed}" errors="0"'
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<testsuites name="ipvit" {counts}>']
    lines.append(f'  <testsuite name="ipvit" {counts}>')
    for one in decided:
        lines.append(
            f"    <testcase classname={_attribute(f'ipvit.{one.assertion.quantity.table}')} "
            f'name={_attribute(one.assertion.text)} time="0">'
        )
        if one.holds:
            lines.append(f"      <system-out>{escape(harmless(one.why))}</system-out>")
        else:
            text = escape(harmless("\n".join(one.rows or (one.why,))))
            lines.append(f"      <failure message={_attribute(one.why)}>{text}</failure>")
        lines.append("    </testcase>")
    write_atomic(path, "\n".join([*lines, "  </testsuite>", "</testsuites>", ""]).encode())


def _attribute(text: str) -> str:
    return quoteattr(harmless(text))
