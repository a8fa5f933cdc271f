"""What folders with a changed copy of a data set have in common: processes that make it, a manifest, a page."""

from __future__ import annotations

import base64
import io
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ipvit.core.versions import installed_version
from ipvit.data.loader import one_thread
from ipvit.errors import InputError
from ipvit.files import write_atomic


class Outcome(Protocol):
    """What became of one image."""

    @property
    def failure(self) -> OSError | None:
        """The error that writing it ended with; nothing more can be written then."""
        ...


OutcomeT = TypeVar("OutcomeT", bound=Outcome)


def outcomes(maker: TorchDataset[OutcomeT], workers: int, start_method: str | None = None) -> Iterator[OutcomeT]:
    """Make a copy, image by image; yield what became of each, in their order.

    Args:
        maker: item *i* writes the copies of the *i*-th image.
        workers: worker processes, each with one thread; 0 works in this process.
        start_method: how the processes start, as in :mod:`multiprocessing`; the platform's way by default.

    Raises:
        OSError: an image cannot be written.
    """
    loader = DataLoader(
        maker,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=one_thread,
        multiprocessing_context=start_method if workers else None,
    )
    for outcome in loader:
        if outcome.failure is not None:
            raise outcome.failure
        yield outcome


def claim(out: Path, manifest: str, identity: Mapping[str, object]) -> bool:
    """Check that a folder is new or holds a copy made in the same way; return whether it is new.

    Args:
        out: the folder, whose lock is held.
        manifest: name of the file that says how a copy was made.
        identity: what the copy depends on.

    Raises:
        InputError: the folder holds something else, or a copy made in another way.
    """
    earlier = read_manifest(out / manifest)
    if earlier is None:
        foreign = next((entry.name for entry in out.iterdir() if not entry.name.startswith(".")), None)
        if foreign is not None:
            raise InputError(f"{str(out)!r} holds {foreign!r} but no {manifest}; give an empty or new folder as --out")
        return True
    settings = earlier.get("settings", {})
    for name, value in identity.items():
        if settings.get(name) != value:
            raise InputError(
                f"{str(out)!r} was made with another {name} ({settings.get(name)}, now {value}); give another --out"
            )
    return False


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


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Return the versions of Python and of packages, for a manifest."""
    return {"python": platform.python_version()} | {name: installed_version(name) for name in packages}


def remove_left_overs(folders: Iterable[Path]) -> None:
    """Delete the temporary files of a run that was killed."""
    for folder in folders:
        for left_over in folder.glob(".*.tmp"):
            left_over.unlink(missing_ok=True)


def write_page(path: Path, title: str, pictures: Sequence[tuple[str, Image.Image]]) -> None:
    """Write a page that holds pictures, each with the words for who cannot see it."""
    parts = [f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>']
    for words, picture in pictures:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        text = base64.b64encode(buffer.getvalue()).decode()
        parts.append(f'<p><img alt="{words}" src="data:image/png;base64,{text}">')
    write_atomic(path, "".join(parts).encode())
