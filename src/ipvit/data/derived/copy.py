"""What determines a copy of a data set in another form, and what its files hold."""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from PIL import Image
from torch import Tensor

from ipvit.core.preprocessing import View
from ipvit.data.dataset import Dataset
from ipvit.data.decode import apply_view, warnings_name
from ipvit.data.derived.names import class_folders, target_paths


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a copy.

    Attributes:
        version: its folder below the output folder, one of :attr:`DerivedCopy.versions`.
        data: its content.
        note: what :meth:`DerivedCopy.note` reads from it.
    """

    version: str
    data: bytes
    note: str = ""


Renderer = Callable[[int, Sequence[str]], Iterator[File]]
"""Makes some versions of an image, given its position in the source and the versions; raises UnreadableImage."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DerivedCopy(ABC):
    """Everything that determines a copy.

    What is random follows from an image's id and the seed alone, so that the copy is the same whatever the number of
    worker processes, and whether it was made at once or in several runs.

    Attributes:
        source: the images.
        view: how they are resized and cropped first; Stylized-ImageNet and ImageNet-C resize the shortest side to 256
            and crop 224.
        seed: another seed is another copy.
    """

    source: Dataset
    view: View
    seed: int = 0

    manifest: ClassVar[str]
    """Name of the file that says how a copy was made."""
    suffix: ClassVar[str]
    """Of the files that are made."""
    packages: ClassVar[tuple[str, ...]] = ("ipvit", "torch", "torchvision", "numpy", "pillow")
    """Those whose versions the manifest states."""
    lists_images: ClassVar[bool] = False
    """Whether the manifest names every image, with the note in its file."""
    sheet_title: ClassVar[str]
    on_sheet: ClassVar[int]
    """Number of images on the contact sheet."""

    @functools.cached_property
    def folders(self) -> list[str]:
        """Folder of each class of the source."""
        return class_folders(self.source)

    @functools.cached_property
    def targets(self) -> list[str]:
        """Path of each image's copies below the folder of a version, see :func:`target_paths`."""
        return target_paths(self.source, self.suffix)

    @property
    def versions(self) -> tuple[str, ...]:
        """Folders below the output folder, each with one copy of every image; ``("",)``: the output folder itself."""
        return ("",)

    @property
    def start_method(self) -> str | None:
        """How worker processes must start, as in :mod:`multiprocessing`; None for the platform's way."""
        return None

    def check(self) -> None:
        """Raise InputError where no copy can be made; called before anything is written."""
        _ = self.identity(), self.targets

    def place(self, out: Path, index: int, version: str) -> Path:
        """Return where a version of an image goes."""
        return out / version / self.targets[index]

    def picture(self, index: int) -> Tensor:
        """Decode, resize and crop an image: ``(3, *view.size)`` uint8; raises UnreadableImage."""
        with warnings_name(self.source.ids[index]):
            picture = self.source.read(index)
        return apply_view(picture, self.view)

    @abstractmethod
    def identity(self) -> dict[str, object]:
        """Return what an image of the copy depends on, for the manifest; not how many images or processes."""

    def settings_of(self, manifest: Mapping[str, Any]) -> dict[str, object]:
        """Return what the images of a folder depend on, from its manifest; see :meth:`identity`."""
        return dict(manifest.get("settings", {}))

    def going_on(self, settings: Mapping[str, object]) -> Self:
        """Return the same copy with what it takes over from a folder that was begun, given its settings."""
        return self

    @abstractmethod
    def renderer(self) -> Renderer:
        """Return what makes the files; it travels to each worker process, where it may keep what it has read."""

    @abstractmethod
    def note(self, path: Path) -> str | None:
        """Return what a file says of how it was made; None where it is not there or was not written to its end."""

    @abstractmethod
    def about(self, out: Path) -> dict[str, object]:
        """Return further entries of the manifest, given the output folder."""

    @abstractmethod
    def sheet(self, out: Path, chosen: Mapping[int, str]) -> list[tuple[str, Image.Image]]:
        """Return the pictures of the contact sheet, each with the words for who cannot see it.

        Args:
            out: the output folder.
            chosen: positions of the images to show, with the notes in their files.
        """
