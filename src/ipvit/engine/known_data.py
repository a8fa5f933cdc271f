"""Which fingerprint a run uses for its data: that of its records, as long as they are of the same files.

Fingerprints name their scheme (:mod:`ipvit.data.fingerprints`), and schemes change. A run folder that was begun under
another one goes on under it, so that nothing is measured twice and everything made of the data (patches, features,
heads) is found. Its manifest keeps which fingerprint of today's scheme the files had then: once that changes, the
folder's records are of other files, whatever the scheme they were written under says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipvit.core.manifest import Manifest
from ipvit.data.dataset import Dataset
from ipvit.data.fingerprints import under
from ipvit.engine.manifest import read_manifest
from ipvit.engine.store import Store
from ipvit.experiments.base import BindContext


def known_as(data: Dataset, folders: Sequence[Path], *, verify: bool = False) -> Dataset:
    """Return the data under the fingerprint that its records in a run folder have.

    Args:
        data: as it was opened; stays as it is.
        folders: run folders, of which the first that knows the data counts.
        verify: read every byte of every file: only what was measured of just these bytes is the same.
    """
    if verify:
        return under(data, _of_all_bytes(data))
    today, earlier = data.fingerprint, getattr(data, "earlier_fingerprint", "")
    for folder in folders:
        manifest = read_manifest(folder)
        if manifest is None:
            continue
        if manifest.data.fingerprint == today:
            return data
        alike = [other for other, then in manifest.fingerprints.items() if then == today]
        if manifest.data.fingerprint in alike:
            return under(data, manifest.data.fingerprint)
        if alike and today not in (held := Store(folder).fingerprints()):
            return next((under(data, other) for other in alike if other in held), data)
        if earlier and earlier not in manifest.fingerprints and _holds(folder, manifest, earlier, today):
            return under(data, earlier)
    return data


def alike(data: Dataset, context: BindContext, folders: Sequence[Path], *, verify: bool = False) -> BindContext:
    """Return a context that opens further data as the run's folders know them.

    What has no records of its own, such as the images that heads are fitted on, goes with the run's data.
    """
    earlier = data.fingerprint == getattr(data, "earlier_fingerprint", "")

    def opened(*args: Any, **options: Any) -> Dataset:
        found = context.open_data(*args, **options)
        known = known_as(found, folders, verify=verify)
        before = getattr(found, "earlier_fingerprint", "")
        return under(found, before) if earlier and before and not verify and known is found else known

    return dataclasses.replace(context, open_data=opened)


def _of_all_bytes(data: Dataset) -> str:
    read = getattr(data, "fingerprint_of_all_bytes", None)
    return data.fingerprint if read is None else read()


def _holds(folder: Path, manifest: Manifest, earlier: str, today: str) -> bool:
    """Whether a folder has records under an earlier fingerprint and none under today's."""
    subjects = {subject.fingerprint for subject in manifest.subjects.values()}
    if earlier == manifest.data.fingerprint or earlier in subjects:
        return True
    held = Store(folder).fingerprints()
    return earlier in held and today not in held
