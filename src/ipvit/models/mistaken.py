"""What a name seems to be that is no network's: said at once, before a library is asked for it."""

from __future__ import annotations

import re
from pathlib import Path

from ipvit.core.files import user_path
from ipvit.errors import InputError, shown

_WEIGHTS = (".pth", ".pt", ".bin", ".safetensors", ".ckpt", ".tar", ".pth.tar", ".npz")
_ADDRESS = re.compile(r"https?://|file://", re.IGNORECASE)


def refuse_mistaken(name: str) -> None:
    """Refuse what cannot be the name of a network of timm's.

    Args:
        name: of a model as a user gave it, without weights behind ``@`` and without label.

    Raises:
        InputError: it seems to be something else, and how that is given.
    """
    if seems := _seems(name):
        raise InputError(f"{shown(name)} is no network: it seems to be {seems}")


def refuse_several(name: str) -> None:
    """Refuse several names in one.

    Args:
        name: as of :func:`refuse_mistaken`.

    Raises:
        InputError: how they are given.
    """
    if seems := _several(name.partition("?")[0]):
        raise InputError(f"{shown(name)} is no network: it seems to be {seems}")


def _several(name: str) -> str:
    if "," not in name:
        return ""
    names = [part.strip() for part in name.split(",") if part.strip()]
    return f"several; give each by itself: {' '.join(f'--model {part}' for part in names)}"


def _seems(name: str) -> str:
    if not name.strip():
        return "empty; `ipvit models` lists names"
    if _ADDRESS.match(name):
        return "the address of weights; give it behind the network's name, NAME@ADDRESS"
    name = name.partition("?")[0]  # what follows are options
    if several := _several(name):
        return several
    path = user_path(name)
    if name.endswith(".py"):
        return f"a Python file; say which function of it makes the network: {name}:FUNCTION"
    if name.lower().endswith(_WEIGHTS):
        return f"a file of weights; give it behind the network's name: NAME@{name}"
    if name.lower().endswith((".yaml", ".yml")):
        return f"a study or a recipe; `ipvit run {name}` or `ipvit train {name}` takes it"
    if path.is_dir() or name.startswith((".", "~")) or Path(name).is_absolute():
        return "a folder or a file; images are given with --data, weights as NAME@FILE"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return (
            f"a name of the Hugging Face hub; write hf-hub:{name} for timm's networks, transformers:{name} for others"
        )
    return "a path; images are given with --data, weights as NAME@FILE" if re.search(r"[/\\]", name) else ""
