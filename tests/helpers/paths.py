"""Where things are."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
REPOSITORY = TESTS.parent
KEPT = TESTS / "kept"
"""Run folders and artifacts of earlier versions, byte for byte."""
