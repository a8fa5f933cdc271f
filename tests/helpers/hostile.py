"""What hostile-input tests share: values no key wants, ways to damage things, and what the command line may answer."""

from __future__ import annotations

import copy
import datetime
import io
import os
import socket
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from helpers.command_line import NETWORK
from helpers.tiny import write_images
from ipvit.cli import main

FOREIGN_WORDS = ("Traceback", "Input should", "Field required", "Extra inputs", "pydantic", "Value error", "<class '")
"""What no message of ours contains."""

TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "",
            " ",
            "~",
            "~nobody/x",
            "..",
            "/",
            "a\x1b[31mb",
            "[/bold]",
            "[red]",
            "<img src=x onerror=alert(1)>",
            "😀",
            "'",
            '"',
            "a\nb",
            "x" * 300,
            "nan",
            "1e400",
            "{}",
            "%s",
            "@",
            ":",
            "?",
            "=",
            ".py:",
            "x.py:",
            "\u202e",
            "\ufeff",
        ]
    ),
)
"""Text, some of it what names should not be."""

NUMBERS = st.one_of(
    st.integers(-3, 20), st.integers(), st.just(10**400), st.floats(), st.sampled_from([0.0, -0.0, 1e308, 5e-324])
)

JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, st.just(datetime.date(2021, 1, 1)), st.just(b"\xff\x00")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
"""Anything that YAML can say."""

JSON_JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)


def places(content: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value in nested mappings and lists."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [way for key, value in inner for way in [(*above, key), *places(value, (*above, key))]]


@st.composite
def mutated(draw: Callable[..., Any], content: Any, junk: st.SearchStrategy[Any] = JUNK, most: int = 3) -> Any:
    """Draw the content with some of its values replaced, left out, renamed, doubled or put into each other."""
    found = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, most))):
        ways = places(found)
        if not ways:
            break
        *above, key = draw(st.sampled_from(ways))
        parent = found
        for step in above:
            parent = parent[step]
        what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename", "wrap", "nest", "add"]))
        if what == "remove":
            del parent[key]
        elif what == "rename" and isinstance(parent, dict):
            parent[draw(TEXT)] = parent.pop(key)
        elif what == "wrap":
            parent[key] = [parent[key]]
        elif what == "nest":
            parent[key] = {draw(TEXT): parent[key]}
        elif what == "add" and isinstance(parent, dict):
            parent[draw(TEXT)] = draw(junk)
        else:
            parent[key] = draw(junk)
    return found


@st.composite
def damaged(draw: Callable[..., Any], data: bytes) -> bytes:
    """Draw bytes with some changed, cut off, doubled or put in."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(found) - 1, 0)))
        what = draw(st.sampled_from(["change", "cut", "insert", "zero"]))
        if what == "cut":
            del found[at:]
        elif what == "insert":
            found[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif what == "zero":
            found[at : at + 8] = bytes(len(found[at : at + 8]))
        elif found:
            found[at] = draw(st.integers(0, 255))
    return bytes(found)


def fuzz(examples: int, **drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], None]:
    """Run a function at once on that many drawn examples, the same ones every time.

    ``IPVIT_FUZZ_SEED`` is a number from which others are drawn.
    """
    number = os.environ.get("IPVIT_FUZZ_SEED")

    def run(check: Callable[..., None]) -> None:
        quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        length = settings(
            max_examples=examples, derandomize=number is None, database=None, deadline=None, suppress_health_check=quiet
        )
        drawing = given(**drawn)(length(check))
        (drawing if number is None else seed(int(number))(drawing))()

    return run


def at_length(fast: int, slow: int) -> Any:
    """Parametrise a test by its number of examples: few every time, many in the slow pass."""
    return pytest.mark.parametrize("examples", [fast, pytest.param(slow, marks=pytest.mark.slow)])


def answer(arguments: list[str], allowed: tuple[int, ...] = (0, 2)) -> tuple[int, str]:
    """Run the command line; check its exit code and that what it complains of is short lines in our own words.

    ``IPVIT_TRACEBACK`` must be set, so that what nobody expected is raised.

    Returns:
        The exit code and what is on standard error.
    """
    said, out = io.StringIO(), io.StringIO()
    with redirect_stderr(said), redirect_stdout(out):
        code = main(arguments)
    text = said.getvalue()
    assert code in allowed, f"exit code {code}: {text}"
    if code == 2:
        lines = text.splitlines()
        assert lines, "wrong input without a word"
        assert lines[-1].startswith("ipvit: ") and len(lines[-1]) < 3000, text
        assert len([line for line in lines if line.startswith("ipvit: ") and "warning" not in line]) < 5, text
    for word in FOREIGN_WORDS:
        assert word not in text, text
    assert "\x1b" not in text + out.getvalue()
    return code, text


def offline_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with images and a network, from which nobody reaches another computer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPVIT_TRACEBACK", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setattr(socket.socket, "connect", offline)
    write_images(tmp_path / "images", per_class=2, classes=4)
    (tmp_path / "net.py").write_text(NETWORK)
    return tmp_path


def offline(*_: object, **__: object) -> None:
    raise OSError("no network in tests")


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))
