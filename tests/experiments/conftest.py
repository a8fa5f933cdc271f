"""What several tests of experiments use."""

import pytest

from helpers.plain_loops import working_folder


@pytest.fixture
def nets(tmp_path, monkeypatch) -> str:
    """The file of networks that salience comes from."""
    return str(working_folder(tmp_path, monkeypatch) / "nets.py")
