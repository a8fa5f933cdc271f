"""What an experiment's own code made of its records, beside them in the run folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from ipvit.analysis.last_run import LastRun
from ipvit.core.files import path_component, write_atomic
from ipvit.engine.store import RECORDS

LAST_RUN = "last-run.json"
_MOST_BYTES = 64 * 2**20


def keep_last_run(root: Path, last_run: LastRun) -> None:
    """Keep it in place of an earlier one."""
    path = root / RECORDS / path_component(last_run.name) / LAST_RUN
    write_atomic(path, last_run.model_dump_json(indent=1).encode())


def read_last_run(root: Path, experiment: str) -> LastRun | None:
    """Return what was kept of an experiment, or None where there is nothing, or nothing that can be read."""
    path = root / RECORDS / path_component(experiment) / LAST_RUN
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        found = LastRun.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, RecursionError):
        return None
    return found if found.name == experiment else None
