"""Write what the commands on the pages print (docs/outputs/NAME.txt).

    python docs/figures/outputs.py [NAME ...]

Every command runs on the bundled networks and the procedural set, in a terminal of 88 columns, in an empty folder.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

OUTPUTS = Path(__file__).parents[1] / "outputs"
COLUMNS = 88
BOTH = "-m demo:deit_micro -m demo:resnet_micro -d demo:trifeature"
SHAPE = "-m demo:deit_micro -m demo:deit_micro_sin"

COMMANDS = {
    "accuracy": f"ipvit accuracy {BOTH} --limit 100",
    "occlusion": f"ipvit occlusion {BOTH} --grid 8x8 --levels 0,0.25,0.5,0.75 --runs 2 --limit 100",
    "feature-drop": f"ipvit feature-drop {BOTH} --limit 40",
    "correlation": f"ipvit correlation {BOTH} --grid 8x8 --limit 100",
    "attention": "ipvit attention -m demo:deit_micro -d demo:trifeature --limit 40",
    "shape-bias": f"ipvit shape-bias {SHAPE} -d demo:trifeature/cue-conflict --limit 100",
    "token-similarity": "ipvit token-similarity -m demo:deit_micro_shape -d demo:trifeature --limit 100",
    "segment": f"ipvit segment {SHAPE} -d demo:trifeature --limit 40",
    "shuffle": f"ipvit shuffle {BOTH} --grids 2x2,4x4 --limit 100",
    "position": f"ipvit position {BOTH} --limit 100",
    "corruptions": f"ipvit corruptions {BOTH} --corruptions fog,contrast --severities 3 --limit 40",
    "attack": f"ipvit attack {BOTH} --attacks fgsm pgd --epsilons 2 8 --limit 40",
    "profile": "ipvit profile runs/study",
}
"""Name of the page, and the command whose output it shows."""

BEFORE = {
    "profile": f"ipvit shuffle {BOTH} --grids 2x2,4x4 --limit 100 --out runs/study --quiet",
}
"""What has to be there first; not shown."""


def run(arguments: list[str], *, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def printed(command: str, folder: Path) -> str:
    """Return what a command prints on standard output, run in a folder."""
    environment = os.environ | {"COLUMNS": str(COLUMNS), "NO_COLOR": "1", "TERM": "dumb"}
    done = run(["-m", "ipvit", *shlex.split(command)[1:]], cwd=folder, env=environment)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr}")
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


def output_of(name: str) -> str:
    """Return the command and what it prints, as the page shows it."""
    with tempfile.TemporaryDirectory() as folder:
        if name in BEFORE:
            printed(BEFORE[name], Path(folder))
        text = printed(COMMANDS[name], Path(folder)).replace(folder, ".")
    return f"$ {COMMANDS[name]}\n{text}\n"


def main(names: list[str]) -> None:
    """Write the outputs of all commands, or of those named."""
    OUTPUTS.mkdir(exist_ok=True)
    for name in names or COMMANDS:
        (OUTPUTS / f"{name}.txt").write_text(output_of(name), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
