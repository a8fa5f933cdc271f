"""Results as their authors publish them, in the folder ``published`` beside the real weights and photos."""

from pathlib import Path

import pytest


def beside(real: Path, name: str) -> Path:
    """A file of published results; the test is skipped where it is not there."""
    path = real.parent / "published" / name
    if not path.is_file():
        pytest.skip(f"there are no published results {path}")
    return path
