"""Making images whose shape and texture disagree from a user's own classes, as Geirhos et al. 2019 made theirs.

Their stimuli have 16 categories of ImageNet. A network with other classes needs its own: every image is styled by an
image of another class, and named as :mod:`ipvit.data.formats.cue_conflict` reads it.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from ipvit.data.dataset import Dataset
from ipvit.data.derived.names import class_folders
from ipvit.data.derived.stylized import TRIES, Stylization
from ipvit.errors import InputError
from ipvit.perturb import seeding

_MOST = 100
"""Bytes of a class in a file's name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CueConflict(Stylization):
    """Everything that determines a set of cue-conflict images; ``styles`` has the same classes as ``source``.

    Raises:
        InputError: the images or the styles have no classes, or there is no other class to take a texture from.
    """

    def __post_init__(self) -> None:
        for data in (self.source, self.styles):
            if data.classes is None or (np.asarray(data.labels) < 0).any():
                raise InputError(f"cue-conflict images need classes, and {data.name} has none: use class folders")
        if strange := sorted(set(self._textures) - set(self._shapes)):
            raise InputError(f"the styles have a class {strange[0]!r} that is none of {self.source.name}")
        if len(self._textures) < 2:
            raise InputError(f"cue-conflict images need two classes or more; the styles have {len(self._textures)}")

    def identity(self) -> dict[str, object]:
        """Return what the set depends on, for a manifest; not how many images or processes."""
        return super().identity() | {"styles": f"another class of {self.styles.fingerprint}"}

    def about(self, out: Path) -> dict[str, object]:
        """Return shape and texture of every image beside what is said of every copy: names alone may not tell them."""
        textures = _class_names(self.styles)
        pairs = zip(self.targets, self._shapes, range(len(self.targets)), strict=True)
        cues = {path: (shape, textures[self.candidates(index)[0]]) for path, shape, index in pairs}
        return super().about(out) | {"cues": cues}

    @functools.cached_property
    def targets(self) -> list[str]:
        """Path of each image below the output folder: ``cat/cat_12-dog_40.png``.

        The numbers are the positions of the two images in their data sets.
        """
        textures, paths = _class_names(self.styles), []
        for index, shape in enumerate(self._shapes):
            style = self.candidates(index)[0]
            paths.append(f"{shape}/{shape}_{index}-{textures[style]}_{style}.png")
        return paths

    @functools.cached_property
    def folders(self) -> list[str]:
        """Folder of each class; a file has two of these in its name."""
        return class_folders(self.source, _MOST)

    def candidates(self, index: int) -> list[int]:
        """Return images of one other class to take the texture from, in the order in which they are tried."""
        others = [name for name in self._textures if name != self._shapes[index]]
        words = seeding.random_words(self.key(index), 1 + TRIES)[0]
        images = self._textures[others[int(words[0] % np.uint64(len(others)))]]
        return list(dict.fromkeys(images[(words[1:] % np.uint64(len(images))).astype(np.int64)].tolist()))

    @functools.cached_property
    def _shapes(self) -> list[str]:
        """Class of each image of the source."""
        return _class_names(self.source)

    @functools.cached_property
    def _textures(self) -> dict[str, np.ndarray]:
        """Positions of each class's images among the styles."""
        names = np.array(_class_names(self.styles))
        return {str(name): np.flatnonzero(names == name) for name in np.unique(names)}


def _class_names(data: Dataset) -> list[str]:
    """Return the class of each image, as in the names of files."""
    folders = class_folders(data, _MOST)
    return [folders[label] for label in data.labels.tolist()]
