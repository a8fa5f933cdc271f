"""The shape-texture cue-conflict images (Geirhos et al. 2019) in their folder layout.

A file ``<shape class>/<shape><n>-<texture><n>.png`` shows the shape of one category in the texture of another, for
example ``cat/cat3-elephant1.png``. The images are 224 pixels wide and high and are meant to be used as they are:
another resize and crop makes the numbers others (texture-vs-shape, issue 26).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from ipvit.core.files import user_path
from ipvit.data.dataset import Decoder, Fingerprint, InPython, fingerprint
from ipvit.data.formats.folder import FolderDataset
from ipvit.errors import InputError

PREFIX = "cue-conflict:"

MANIFEST = "stylize.json"
"""What ``ipvit stylize`` leaves in its folder: which shape and texture every image has, among other things."""

_BELOW = ("", "style-transfer-preprocessed-512", "stimuli/style-transfer-preprocessed-512")
_NUMBER = re.compile(r"_\d+|\d*")
_LETTERS = re.compile(r"(?P<name>[^\W\d_]+)(_\d+|\d*)")


def _written(manifest: Path) -> dict[str, tuple[str, str]]:
    """Return shape and texture by path, as ``ipvit stylize --cue-conflict`` wrote them down; nothing for other folders.

    Names of files alone do not always tell: a class may be called ``n02123045`` or ``red-fox 2``. What a copy of before
    they were written down does not name is read from the names.
    """
    if not manifest.is_file():
        return {}
    try:
        found = json.loads(manifest.read_text("utf-8")).get("cues", {})
        return {str(path): (str(pair[0]), str(pair[1])) for path, pair in found.items()}
    except (ValueError, TypeError, AttributeError, LookupError, OSError):
        raise InputError(f"{str(manifest)!r} is damaged; delete it, or make the folder again") from None


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
        written = _written(self.root / MANIFEST)
        known = {path.rpartition("/")[0] for path in self.ids} | set(self.classes or ())
        cues = [written.get(path) or self._cues(path, known) for path in self.ids]
        stated = dict(zip(self.classes or (), self.aliases or (), strict=False))
        self.classes = tuple(sorted({name for pair in cues for name in pair}))
        # second names as in classes.txt, which are a model's names of the classes
        self.aliases = tuple(stated.get(name, name) for name in self.classes) if stated else None
        position = {name: number for number, name in enumerate(self.classes)}
        shape, texture = (np.array([position[pair[cue]] for pair in cues], dtype=np.int64) for cue in (0, 1))
        self.labels = shape
        self.fields = {"shape": shape, "texture": texture, "conflict": shape != texture}
        self._identify()

    def _digest(self, sums: np.ndarray | InPython, begun: Fingerprint) -> str:
        files = super()._digest(sums, begun)
        if "conflict" not in self.fields:  # not read yet
            return files
        return fingerprint(
            "cue-conflict", files, self.fields["shape"], self.fields["texture"], list(self.classes or ())
        )

    def _cues(self, path: str, known: set[str]) -> tuple[str, str]:
        """Return shape and texture of a file.

        A number stands behind a name, or behind a name and ``_``, which names with digits (``n02123045``) need. What
        follows the folder's name and the hyphen is the name of a folder or of a class in ``classes.txt`` if it can be,
        else letters.
        """
        shape, _, file = path.rpartition("/")
        stem = Path(file).stem
        number, hyphen, texture = stem.removeprefix(shape).partition("-")
        if shape and stem.startswith(shape) and hyphen and _NUMBER.fullmatch(number):
            fitting = [name for name in known if texture.startswith(name) and _NUMBER.fullmatch(texture[len(name) :])]
            if fitting:
                return shape, max(fitting, key=len)
            if bare := _LETTERS.fullmatch(texture):
                return shape, bare["name"]
        raise InputError(
            f"{self.root / path} is no cue-conflict image: a file is named SHAPE/SHAPE<n>-TEXTURE<n>.png, for "
            "example cat/cat3-elephant1.png"
        )
