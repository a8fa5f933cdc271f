"""Assertions about a run, as text: one small grammar and its parser.

.. code-block:: text

    assertion = quantity, " ", claim
    quantity  = TABLE, ".", MEASURE, [ "[", COLUMN, "=", VALUE, { ",", COLUMN, "=", VALUE }, "]" ]
              | "profile.", QUESTION
    claim     = ( ">=" | "<=" | ">" | "<" ), NUMBER
              | "no-worse-than", RUN, [ "by", NUMBER ]
              | "within", NUMBER, "of", RUN

A value with a comma, a bracket or a space at its ends stands in double quotes. Numbers are in the unit of the column:
percentages in points.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ipvit.core.files import user_path
from ipvit.errors import InputError, shown

Sign = Literal[">=", "<=", ">", "<"]

PROFILE = "profile"
"""The table whose measures are the questions of a profile."""

_QUANTITY = re.compile(r'^(?P<table>[^\s.\[\]]+)\.(?P<measure>[^\s\[\]]+)\s*(?:\[(?P<where>(?:"[^"]*"|[^"\]])*)\])?\s*')
_CONDITION = re.compile(r'\s*(?P<column>[^\s=,"]+)\s*=\s*(?:"(?P<quoted>[^"]*)"|(?P<plain>[^",]*?))\s*(?:,|$)')
_NUMBER = r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_BOUND = re.compile(rf"^(?P<sign>>=|<=|>|<)\s*{_NUMBER}$")
_NO_WORSE = re.compile(rf"^no-worse-than\s+(?P<run>\S.*?)(?:\s+by\s+{_NUMBER})?$")
_WITHIN = re.compile(rf"^within\s+{_NUMBER}\s+of\s+(?P<run>\S.*)$")

EXAMPLES = (
    "'occlusion.top1[information_loss=0.5] >= 40', 'accuracy.top1 no-worse-than runs/v1 by 1' or "
    "'profile.corruptions within 2 of runs/v1'"
)


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What is asserted of: a measure of the rows of a table with some values.

    Attributes:
        table: its name, or ``profile``.
        measure: the column, or the question of the profile.
        where: column and value of the rows that are meant, all of them where it is empty.
    """

    table: str
    measure: str
    where: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        told = ",".join(f"{column}={value}" for column, value in self.where)
        return f"{self.table}.{self.measure}{f'[{told}]' if told else ''}"


@dataclasses.dataclass(frozen=True)
class Bound:
    """The value is above or below a number, and so is the end of its interval that is nearer to it."""

    sign: Sign
    number: float


@dataclasses.dataclass(frozen=True)
class NoWorse:
    """The paired difference to another run ends above minus a margin."""

    run: str
    margin: float


@dataclasses.dataclass(frozen=True)
class Within:
    """The paired difference to another run lies within a margin, with its whole interval."""

    run: str
    margin: float


Claim = Bound | NoWorse | Within


@dataclasses.dataclass(frozen=True)
class Assertion:
    """One assertion: what of, and what."""

    text: str
    quantity: Quantity
    claim: Claim

    @property
    def reference(self) -> str:
        """The run that is compared with; empty where none is."""
        return "" if isinstance(self.claim, Bound) else self.claim.run


def parse(text: str) -> Assertion:
    """Return an assertion.

    Raises:
        InputError: it is none; says what is wrong and what one looks like.

    >>> parse("accuracy.top1 no-worse-than runs/v1 by 1").claim
    NoWorse(run='runs/v1', margin=1.0)
    >>> parse("occlusion.top1[information_loss=0.5] >= 40").quantity.where
    (('information_loss', '0.5'),)
    """
    whole = " ".join(text.split())
    found = _QUANTITY.match(whole)
    if found is None:
        raise _wrong(whole, "it begins with TABLE.MEASURE or TABLE.MEASURE[COLUMN=VALUE]")
    quantity = Quantity(found["table"], found["measure"], _conditions(whole, found["where"]))
    return Assertion(whole, quantity, _claim(whole, whole[found.end() :].strip()))


def read(given: Sequence[str]) -> tuple[Assertion, ...]:
    """Return assertions; ``@FILE`` stands for the lines of a file, without empty ones and what follows a ``#``.

    Raises:
        InputError: one of them is none, or the file cannot be read.
    """
    found: list[Assertion] = []
    for text in given:
        if not text.startswith("@"):
            found.append(parse(text))
            continue
        path = user_path(text[1:])
        lines = [line.partition("#")[0].strip() for line in _lines(path)]
        if not any(lines):
            raise InputError(f"--assert {shown(text)}: the file has no assertion; one a line, for example {EXAMPLES}")
        for number, line in enumerate(lines, 1):
            if line:
                try:
                    found.append(parse(line))
                except InputError as error:
                    raise InputError(f"{path}, line {number}: {error}") from None
    return tuple(found)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise InputError(f"--assert {shown(f'@{path}')}: the file cannot be read: {reason}") from None


def _conditions(text: str, where: str | None) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    place = 0
    while where and place < len(where):
        condition = _CONDITION.match(where, place)
        if condition is None:
            raise _wrong(text, f"between the brackets stand COLUMN=VALUE, with commas between, not {shown(where)}")
        column, value = condition["column"], condition["quoted"] or condition["plain"] or ""
        if column in dict(found):
            raise _wrong(text, f"{shown(column)} stands twice between the brackets")
        found.append((column, value))
        place = condition.end()
    if where is not None and not found:
        raise _wrong(text, "there is nothing between the brackets")
    return tuple(found)


def _claim(text: str, rest: str) -> Claim:
    if found := _BOUND.match(rest):
        return Bound(found["sign"], _number(found["number"]))  # pyright: ignore[reportArgumentType]
    if found := _NO_WORSE.match(rest):
        return NoWorse(found["run"], _margin(text, found["number"] or "0"))
    if found := _WITHIN.match(rest):
        return Within(found["run"], _margin(text, found["number"]))
    if not rest:
        raise _wrong(text, "it says nothing of the quantity")
    if rest.startswith("="):
        raise _wrong(text, "a measured number equals none: write >= or <=, or within NUMBER of RUN")
    raise _wrong(text, f"{shown(rest)} is none of '>= NUMBER', 'no-worse-than RUN by NUMBER', 'within NUMBER of RUN'")


def _number(text: str) -> float:
    return float(text)


def _margin(text: str, number: str) -> float:
    margin = float(number)
    if not (margin >= 0 and math.isfinite(margin)):
        raise _wrong(text, f"a margin is 0 or more, not {number}")
    return margin


def _wrong(text: str, what: str) -> InputError:
    return InputError(f"--assert {shown(text, 120)}: {what}; for example {EXAMPLES}")
