"""Kinds of values that options and manifests have: what a column of a table and a JSON file can hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""A whole number of 64 bits."""

Count = Annotated[int, Field(ge=0, lt=2**63)]
"""0 or more."""

Positive = Annotated[int, Field(ge=1, lt=2**63)]
"""1 or more."""


Runs = Annotated[int, Field(ge=1, le=10_000)]
"""How often something random is repeated: each time is a condition of its own, and all of them are held in memory."""

Processes = Annotated[int, Field(ge=0, le=1024)]
"""Worker processes."""


def _spelled_out(value: object) -> object:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


ForeignText = Annotated[str, BeforeValidator(_spelled_out)]
"""Text from anywhere, such as an error's message; halves of characters, which no file can hold, are spelled out."""
