"""Every example runs to its end, the notebook cell by cell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ipvit.cli import main

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def run(code: list[str], folder: Path) -> str:
    command = [sys.executable, *code]  # new, as a user's: nothing is imported that the script does not import
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_a_script_prints_a_table(script, tmp_path):
    assert "shape: (" in run([str(script)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run_in_their_order(notebook, tmp_path):
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert "report.html" in run(["-c", code], tmp_path)
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code"), (
        "notebooks are kept without output"
    )


@pytest.mark.slow
def test_an_experiment_in_a_file_is_a_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = f"{EXAMPLES / 'own_experiment.py'}:Grey"
    assert main([place, "-m", "demo:deit_micro", "-d", "demo:trifeature", "--limit", "8", "--workers", "0"]) == 0


def test_every_example_is_in_the_list():
    text = (EXAMPLES / "README.md").read_text("utf-8")
    for path in [*SCRIPTS, *EXAMPLES.glob("*.ipynb")]:
        assert f"`{path.name}`" in text
