"""``ipvit bundle``: what a run says, as one zip file without images and without code."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ipvit.core.files import path_component
from ipvit.engine.folders.bundle import SUFFIX, copy_file, write_bundle
from ipvit.engine.folders.class_names import FILE as CLASS_NAMES
from ipvit.engine.folders.last_run import LAST_RUN
from ipvit.engine.folders.scope import LISTED
from ipvit.engine.manifest import read_manifest, write_manifest
from ipvit.engine.store import ANALYSIS, RECORDS, Store
from ipvit.engine.study import STUDY
from ipvit.errors import InputError
from ipvit.results import Run


def bundle(run: str | Path | Run, out: str | Path | None = None) -> Path:
    """Write a run as one zip file; return its path.

    It holds the records of what the run's last study asked for, image by image, the manifest without tracebacks, the
    study, tables, figures and the page. It holds no pictures and no code. Names of images are in it, and the names by
    which models and data were given.

    Args:
        run: a run, or its folder.
        out: the file; by default ``NAME.zip`` in the working folder.

    Raises:
        InputError: there is no such run, or such a file already.
    """
    found = run if isinstance(run, Run) else Run(run)
    target = Path(f"{found.out.resolve().name}{SUFFIX}") if out is None else Path(out)
    if target.suffix != SUFFIX:
        raise InputError(f"a bundle is a zip file: give {str(target) + SUFFIX!r} as --out")
    if target.exists():
        raise InputError(f"{str(target)!r} is there already; give another --out")
    with tempfile.TemporaryDirectory(prefix="ipvit-bundle-") as folder:
        _copy(found, Path(folder))
        Run(folder).report()
        write_bundle(Path(folder), target)
    return target


def _copy(run: Run, folder: Path) -> None:
    """Write what a run rests on into another folder: of everything that its folder holds, what was asked for."""
    manifest = read_manifest(run.out)
    assert manifest is not None
    shown = {model.digest for model in run.manifest.models}
    write_manifest(
        folder,
        manifest.model_copy(
            update={
                "models": tuple(model for model in manifest.models if model.digest in shown),
                "failures": tuple(failure.model_copy(update={"details": ""}) for failure in manifest.failures),
            }
        ),
    )
    copy_file(run.out / STUDY, folder / STUDY)
    store = Store(folder)
    for name in run.analyses:
        part = Path(RECORDS) / path_component(name)
        for file in (ANALYSIS, CLASS_NAMES, LAST_RUN, LISTED):
            copy_file(run.out / part / file, folder / part / file)
        for records in run.records_as_stored(name):
            store.write(records)
