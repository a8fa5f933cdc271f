"""Print pip constraints: the oldest versions that pyproject.toml allows of what a user installs and the tests need.

What builds the documentation and checks the source (the extras ``docs`` and ``dev``) is not held to its oldest version.
"""

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
NOT_TRIED = {"docs", "dev"}


def oldest(project: dict) -> list[str]:
    """Return a constraint ``NAME==VERSION`` for each requirement ``NAME>=VERSION`` of the table ``[project]``.

    Raises:
        ValueError: a requirement has no lower bound.
    """
    extras = project["optional-dependencies"]
    requirements = [
        *project["dependencies"],
        *(line for name in extras if name not in NOT_TRIED for line in extras[name]),
    ]
    constraints = []
    for requirement in requirements:
        if requirement.startswith(f"{project['name']}["):
            continue  # an extra made of other extras
        if not (parts := re.match(r"([\w.-]+)>=([\w.]+)", requirement)):
            raise ValueError(f"{PYPROJECT}: {requirement!r} has no lower bound; write NAME>=VERSION")
        constraints.append("==".join(parts.groups()))
    return constraints


if __name__ == "__main__":
    sys.stdout.write("\n".join(oldest(tomllib.loads(PYPROJECT.read_text("utf-8"))["project"])) + "\n")
