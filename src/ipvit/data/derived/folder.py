"""The folder of a copy: what is there, its manifest, its class lists and its contact sheet."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ipvit.core.files import write_atomic
from ipvit.core.versions import installed_version
from ipvit.data.derived.copy import DerivedCopy
from ipvit.data.derived.names import write_class_list
from ipvit.data.derived.sheet import CONTACT_SHEET, write_page
from ipvit.data.derived.writer import make
from ipvit.data.fingerprints import under
from ipvit.data.subset import select
from ipvit.errors import InputError


class CopyFolder:
    """A copy on disk, for the process that holds the folder's lock; opening it checks that it is new or made alike.

    Args:
        job: what is made.
        out: the folder, which exists.

    Attributes:
        there: the images of the source that are known to be whole, with the notes in their files.
        skipped: reason for each image that could not be read.
        written: files that were made.

    Raises:
        InputError: the folder holds something else, or a copy made in another way.
    """

    def __init__(self, job: DerivedCopy, out: Path) -> None:
        earlier = read_manifest(out / job.manifest)
        job = job if earlier is None else begun_as(job, job.settings_of(earlier))
        self.job, self.out = job, out
        self.there: dict[int, str] = {}
        self.skipped: dict[int, str] = {}
        self.written = 0
        claim(out, job, earlier)
        for folder in (out, *(out / name for name in job.versions)):
            write_class_list(job.source, job.folders, folder)  # each of them can be used as class folders by itself
        self._remove_left_overs()
        if job.lists_images:
            found = ((i, job.note(job.place(out, i, job.versions[0]))) for i in range(len(job.source)))
            self.there = {index: note for index, note in found if note is not None}
        self._write_manifest(whole=False)

    def fill(self, indices: Sequence[int], workers: int) -> Iterator[int]:
        """Make the files of images that are not there; yield how many files of each image were.

        Args:
            indices: positions of the images in the source.
            workers: worker processes; 0 works in this process.

        Raises:
            OSError: an image cannot be written.
        """
        for made in make(self.job, self.out, indices, workers):
            self.written += made.written
            if made.reason is None:
                self.there[made.index] = made.note
            else:
                self.skipped[made.index] = made.reason
            yield made.kept

    def finish(self) -> tuple[dict[str, Any], Path | None]:
        """Write manifest and contact sheet; return the manifest, and the sheet's path unless there is no image."""
        manifest = self._write_manifest(whole=True)
        made = sorted(self.there)
        if not made:
            return manifest, None
        chosen = [made[i] for i in select([self.job.source.ids[index] for index in made], self.job.on_sheet)]
        pictures = self.job.sheet(self.out, {index: self.there[index] for index in chosen})
        write_page(self.out / CONTACT_SHEET, self.job.sheet_title, pictures)
        return manifest, self.out / CONTACT_SHEET

    def _write_manifest(self, *, whole: bool) -> dict[str, Any]:
        job = self.job
        manifest = {
            "format": 1,
            "status": "whole" if whole else "unfinished",
            "settings": job.identity(),
            "source": {"name": job.source.name, "images": len(job.source)},
            **job.about(self.out),
            "versions": {"python": platform.python_version()}
            | {name: installed_version(name) for name in job.packages},
            "skipped": [{"image": job.source.ids[i], "reason": self.skipped[i]} for i in sorted(self.skipped)],
        }
        if job.lists_images:
            manifest["images"] = {job.targets[index]: self.there[index] for index in sorted(self.there)}
        write_atomic(self.out / job.manifest, json.dumps(manifest, indent=1).encode())
        return manifest

    def _remove_left_overs(self) -> None:
        """Delete the temporary files of a run that was killed."""
        folders = {target.rpartition("/")[0] for target in self.job.targets}
        for name in self.job.versions:
            for folder in folders:
                for left_over in (self.out / name / folder).glob(".*.tmp"):
                    left_over.unlink(missing_ok=True)


def begun_as(job: DerivedCopy, settings: Mapping[str, object]) -> DerivedCopy:
    """Return the same copy under the fingerprints that its folder was begun with, where those are an earlier scheme's.

    Args:
        job: what is made.
        settings: of the folder.
    """
    job = job.going_on(settings)
    if settings == job.identity():
        return job
    sets = {field.name: getattr(job, field.name) for field in dataclasses.fields(job)}
    before = {
        name: under(data, then) for name, data in sets.items() if (then := getattr(data, "earlier_fingerprint", ""))
    }
    alike = dataclasses.replace(job, **before)
    return alike if settings == alike.identity() else job


def claim(out: Path, job: DerivedCopy, earlier: Mapping[str, Any] | None) -> None:
    """Check that a folder is new or holds a copy made in the same way.

    Args:
        out: the folder, whose lock is held.
        job: what is made.
        earlier: the folder's manifest, or None where it has none.

    Raises:
        InputError: the folder holds something else, or a copy made in another way.
    """
    if earlier is None:
        foreign = next((entry.name for entry in out.iterdir() if not entry.name.startswith(".")), None)
        if foreign is not None:
            raise InputError(
                f"{str(out)!r} holds {foreign!r} but no {job.manifest}; give an empty or new folder as --out"
            )
        return
    settings = job.settings_of(earlier)
    for name, value in job.identity().items():
        if settings.get(name) != value:
            raise InputError(
                f"{str(out)!r} was made with another {name} ({settings.get(name)}, now {value}); give another --out"
            )


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return what a manifest says, or None where there is none.

    Raises:
        InputError: it is damaged.
    """
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError):
        raise InputError(
            f"{str(path)!r} is damaged; delete it and the folder around it, or give another --out"
        ) from None
