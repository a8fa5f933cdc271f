"""A copy of a data set in other textures, as Stylized-ImageNet is of ImageNet (Geirhos et al. 2019).

Each image is styled by a painting that its id and the seed alone choose, so that the copy is the same whatever the
number of worker processes, and whether it was made at once or in several runs.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from ipvit.data.copies import outcomes
from ipvit.data.dataset import Dataset, UnreadableImage
from ipvit.data.decode import apply_view
from ipvit.data.image_files import CLASS_LIST, IMAGE_SUFFIXES
from ipvit.errors import InputError
from ipvit.files import write_atomic
from ipvit.perturb import seeding
from ipvit.perturb.pixels import as_bytes, as_floats
from ipvit.perturb.stylize import transfer_statistics
from ipvit.preprocessing import View

TRIES = 8
"""Paintings that are tried for an image before it is given up: collections hold unreadable ones."""

_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


class Transfer(Protocol):
    """What styles one image; a network in :mod:`ipvit.models.style` or :class:`StatisticsTransfer`.

    Attributes:
        settings: what the result depends on, for a manifest.
        device: where it computes.
    """

    settings: dict[str, object]
    device: torch.device

    def __call__(self, content: Tensor, style: Tensor, key: np.uint64) -> Tensor:
        """Return ``content`` in the style of ``style``, all ``(3, H, H)`` uint8."""
        ...


class StatisticsTransfer:
    """The transfer that needs no weights, see :mod:`ipvit.perturb.stylize`."""

    device = torch.device("cpu")

    def __init__(self, alpha: float = 1.0, texture_scale: float = 0.05) -> None:
        self.alpha, self.texture_scale = alpha, texture_scale
        self.settings: dict[str, object] = {"method": "statistics", "alpha": alpha, "texture_scale": texture_scale}

    def __call__(self, content: Tensor, style: Tensor, key: np.uint64) -> Tensor:
        """Return the content in the style: ``(3, H, H)`` uint8."""
        styled = transfer_statistics(
            as_floats(content[None]),
            as_floats(style[None]),
            np.array([key], dtype=np.uint64),
            self.alpha,
            self.texture_scale,
        )[0]
        return as_bytes(styled)


@dataclasses.dataclass(frozen=True)
class Made:
    """What became of one image.

    Attributes:
        index: its position in the source.
        style: id of the painting; None where the image was skipped.
        reason: why it was skipped.
        failure: the error that writing it ended with; nothing more can be written then.
    """

    index: int
    style: str | None = None
    reason: str | None = None
    failure: OSError | None = None


@dataclasses.dataclass(frozen=True)
class Stylization:
    """Everything that determines a stylised copy.

    Attributes:
        source: the images.
        styles: the paintings.
        transfer: what styles an image.
        view: how images and paintings are resized and cropped first; Stylized-ImageNet resizes the shortest side to
            256 and crops 224.
        seed: another seed chooses other paintings.
    """

    source: Dataset
    styles: Dataset
    transfer: Transfer
    view: View
    seed: int = 0

    @functools.cached_property
    def targets(self) -> list[str]:
        """Path of each image's copy below the output folder, see :func:`target_paths`."""
        return target_paths(self.source)

    def identity(self) -> dict[str, object]:
        """Return what the copy depends on, for a manifest; not how many images or processes."""
        return {
            **self.transfer.settings,
            "size": self.view.size[0],
            "resize": self.view.resize[0],
            "seed": self.seed,
            "source": self.source.fingerprint,
            "styles": self.styles.fingerprint,
        }

    def key(self, index: int) -> np.ndarray:
        """Return the key that everything random about an image follows from, ``(1,)``."""
        return seeding.keys([self.source.ids[index]], "stylize", self.seed)

    def candidates(self, index: int) -> list[int]:
        """Return the paintings to try for an image, in their order."""
        words = seeding.random_words(self.key(index), TRIES)[0]
        return list(dict.fromkeys((words % np.uint64(len(self.styles))).tolist()))


class Paintings:
    """The painting of each image, the last ones used kept in memory.

    Args:
        job: paintings, their size, and the seed that chooses.
        keep: number of paintings that are kept.
    """

    def __init__(self, job: Stylization, keep: int = 256) -> None:
        self._job, self._keep = job, keep
        self._held: collections.OrderedDict[int, Tensor] = collections.OrderedDict()

    def of(self, index: int) -> tuple[int, Tensor]:
        """Return the painting for an image: its position and its pixels, ``(3, *view.size)`` uint8.

        Raises:
            UnreadableImage: none of those that are tried can be read.
        """
        for candidate in self._job.candidates(index):
            try:
                return candidate, self._read(candidate)
            except UnreadableImage:
                continue
        raise UnreadableImage(f"none of {TRIES} paintings that were tried for it can be read")

    def _read(self, candidate: int) -> Tensor:
        if candidate not in self._held:
            self._held[candidate] = apply_view(self._job.styles.read(candidate), self._job.view)
            while len(self._held) > self._keep:
                self._held.popitem(last=False)
        return self._held[candidate]


def target_paths(source: Dataset, suffix: str = ".png") -> list[str]:
    """Return where each image's copy goes: the source's own folders with such files in them, else one folder a class.

    Where two images would share a path (``a.jpg`` and ``a.png``) both keep their suffix: ``a.jpg.png``.

    Raises:
        InputError: two images would still share a path.
    """
    names = [_in_class_folder(source, index) for index in range(len(source))]
    paths = [f"{_without_suffix(name)}{suffix}" for name in names]
    counts = collections.Counter(paths)
    paths = [path if counts[path] == 1 else f"{name}{suffix}" for name, path in zip(names, paths, strict=True)]
    if len(set(paths)) != len(paths):
        twice = next(path for path, count in collections.Counter(paths).items() if count > 1)
        raise InputError(f"two images of {source.name} would both become {twice!r}; rename one of them")
    return paths


def _in_class_folder(source: Dataset, index: int) -> str:
    parts = [part for part in source.ids[index].replace("\\", "/").split("/") if part not in ("", ".", "..")]
    label = int(source.labels[index])
    if source.classes is None or label < 0:
        return "/".join(parts)
    folder = source.classes[label].replace("/", "-")
    return "/".join(parts) if parts[0] == folder and len(parts) > 1 else f"{folder}/{'-'.join(parts)}"


def _without_suffix(name: str) -> str:
    return name.removesuffix(suffix) if (suffix := Path(name).suffix).lower() in IMAGE_SUFFIXES else name


def write_class_list(source: Dataset, out: Path) -> None:
    """Write ``classes.txt`` where the source's classes have second names, so that a model's classes are found again."""
    if source.classes is not None and source.aliases is not None:
        lines = [f"{name}\t{alias}\n" for name, alias in zip(source.classes, source.aliases, strict=True)]
        write_atomic(out / CLASS_LIST, "".join(lines).encode())


def make(job: Stylization, out: Path, indices: Sequence[int], workers: int) -> Iterator[Made]:
    """Style images and write each as a PNG file; yield what became of them, in their order.

    Args:
        job: what to make.
        out: the folder to write below.
        indices: positions of the images in the source.
        workers: worker processes; 0 works in this process.

    Raises:
        OSError: an image cannot be written.
    """
    workers = min(workers, len(indices))
    threads = torch.get_num_threads()
    if not workers:
        torch.set_num_threads(1)  # sums of several threads differ in their last bits
    try:
        # CUDA does not work in a forked process
        yield from outcomes(_Maker(job, out, indices), workers, None if job.transfer.device.type == "cpu" else "spawn")
    finally:
        torch.set_num_threads(threads)


def style_of(path: Path) -> str | None:
    """Return which painting an image that is already there was made with; None where it is not there or not whole."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_PNG_END), io.SEEK_END)
            if file.read() != _PNG_END:
                return None
            file.seek(0)
            return Image.open(file, formats=["PNG"]).info.get("style")
    except (OSError, SyntaxError, ValueError):
        return None


class _Maker(TorchDataset[Made]):
    def __init__(self, job: Stylization, out: Path, indices: Sequence[int]) -> None:
        self.job, self.out, self.indices = job, out, indices
        self._paintings = Paintings(job)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Made:
        job, index = self.job, int(self.indices[number])
        try:
            content = apply_view(job.source.read(index), job.view)
            painting, style = self._paintings.of(index)
        except UnreadableImage as error:
            return Made(index, reason=str(error))
        styled = job.transfer(content, style, job.key(index)[0])
        name = job.styles.ids[painting]
        try:
            write_atomic(self.out / job.targets[index], _png(styled, source=job.source.ids[index], style=name))
        except OSError as error:
            return Made(index, failure=error)
        return Made(index, style=name)


def _png(pixels: Tensor, **texts: str) -> bytes:
    notes = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        notes.add_text(name, text.encode("utf-8", "backslashreplace").decode())
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG", pnginfo=notes)
    return buffer.getvalue()
