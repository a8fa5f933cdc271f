"""The examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

import ipvit

ROOT = Path(ipvit.__file__).parent
EXAMPLE = re.compile(r"^ *>>> (?!.*# doctest: \+SKIP$)", re.MULTILINE)
"""The first line of an example that runs."""

TEXTS = {path: path.read_text("utf-8") for path in sorted(ROOT.rglob("*.py"))}
EXAMPLES = {path: n for path, text in TEXTS.items() if (n := len(EXAMPLE.findall(text)))}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", EXAMPLES, ids=module_name)
def test_every_example_in_a_module_does_what_it_says(path):
    found = doctest.testmod(importlib.import_module(module_name(path)))
    assert found.attempted == EXAMPLES[path] and not found.failed
