"""The shape-texture cue-conflict images (Geirhos et al. 2019) in their folder layout.

A file ``<shape class>/<shape><n>-<texture><n>.png`` shows the shape of one category in the texture of another, for
example ``cat/cat3-elephant1.png``. The images are 224 pixels wide and high and are meant to be used as they are:
another resize and crop makes the numbers others (texture-vs-shape, issue 26).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ipvit.core.files import user_path
from ipvit.data.dataset import Decoder, fingerprint
from ipvit.data.formats.folder import FolderDataset
from ipvit.errors import InputError

PREFIX = "cue-conflict:"

_BELOW = ("", "style-transfer-preprocessed-512", "stimuli/style-transfer-preprocessed-512")
_NUMBER = re.compile(r"_\d+|\d*")
_LETTERS = re.compile(r"(?P<name>[^\W\d_]+)(_\d+|\d*)")


class CueConflictDataset(FolderDataset):
    """Cue-conflict images; the label is the shape, which is the folder.

    Attributes:
        fields: ``shape`` and ``texture``, ``(N,)`` int64: positions in ``classes``; ``conflict``, ``(N,)`` bool: False
            where the texture is of the shape's own category, as in 80 of the benchmark's 1,280 images.

    Args:
        root: the folder of class folders, or the benchmark's repository or its ``stimuli`` folder.
        decoder: ``fast`` or ``pil``, see :mod:`ipvit.data.decode`.

    Raises:
        InputError: there is no such folder, or a file is not named ``<shape><n>-<texture><n>`` after its folder.
    """

    def __init__(self, root: str | Path, decoder: Decoder = "fast") -> None:
        given = user_path(root)
        super().__init__(
            next((given / below for below in reversed(_BELOW) if (given / below).is_dir()), given), decoder
        )
        self.name = f"{PREFIX}{root}"
        folders = {path.rpartition("/")[0] for path in self.ids}
        cues = [self._cues(path, folders) for path in self.ids]
        self.classes = tuple(sorted({name for pair in cues for name in pair}))
        self.aliases = None
        position = {name: number for number, name in enumerate(self.classes)}
        shape, texture = (np.array([position[pair[cue]] for pair in cues], dtype=np.int64) for cue in (0, 1))
        self.labels = shape
        self.fields = {"shape": shape, "texture": texture, "conflict": shape != texture}
        self._identify()

    def _digest(self, sums: np.ndarray | list[int]) -> str:
        files = super()._digest(sums)
        if "conflict" not in self.fields:  # not read yet
            return files
        return fingerprint(
            "cue-conflict", files, self.fields["shape"], self.fields["texture"], list(self.classes or ())
        )

    def _cues(self, path: str, folders: set[str]) -> tuple[str, str]:
        """Return shape and texture of a file.

        A number stands behind a name, or behind a name and ``_``, which names with digits (``n02123045``) need. What
        follows the folder's name and the hyphen is a folder's name if it can be, else letters.
        """
        shape, _, file = path.rpartition("/")
        stem = Path(file).stem
        number, hyphen, texture = stem.removeprefix(shape).partition("-")
        if shape and stem.startswith(shape) and hyphen and _NUMBER.fullmatch(number):
            known = [name for name in folders if texture.startswith(name) and _NUMBER.fullmatch(texture[len(name) :])]
            if known:
                return shape, max(known, key=len)
            if bare := _LETTERS.fullmatch(texture):
                return shape, bare["name"]
        raise InputError(
            f"{self.root / path} is no cue-conflict image: a file is named SHAPE/SHAPE<n>-TEXTURE<n>.png, for "
            "example cat/cat3-elephant1.png"
        )
