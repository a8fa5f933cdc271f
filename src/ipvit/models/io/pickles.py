"""What is said of a file of weights that holds more than weights: which type, and what to save instead.

The words of the library that refuses it are left out: they advise to switch off what keeps its code from running.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path

from ipvit.errors import printable

SAVE_WEIGHTS = "save the weights alone, torch.save(model.state_dict(), FILE), and give that file"
"""What to do."""

_NAMED = re.compile(
    r"GLOBAL (.+?) (?:was not an allowed|whose module)|unrecognized function <[\w -]*? ?([\w.]+)(?: at 0x\w+)?>"
    r"|but got <class '(.+?)'>|but got ([\w.]+)",
    re.DOTALL,
)
_ADVICE = re.compile(r"weights_only|safe_globals|trusted source|allow_pickle", re.IGNORECASE)
_MOST_STEPS = 1_000_000
_LONGEST = 300


def refused_type(error: BaseException | None) -> str | None:
    """Return the type that a reader of weights refused, if that is what an error, or what led to it, says.

    Args:
        error: as raised by ``torch.load``, by itself or inside another library.

    Returns:
        The type with its module; empty where something was refused that has no name; None for any other error.
    """
    found: str | None = None
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = str(error)
        if _ADVICE.search(text):
            named = _NAMED.search(text)
            if named is not None:
                return printable(next(filter(None, named.groups())))[:_LONGEST]
            found = ""
        error = error.__cause__ or error.__context__
    return found


def first_type(path: Path) -> str:
    """Return the first type that a file's pickle names and that is no part of weights; empty where none is found.

    The pickle is listed and not run.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
                return "" if name is None else _first_type(archive.read(name))
        return _first_type(path.read_bytes())
    except Exception:  # noqa: BLE001 - a damaged file: it is refused in any case
        return ""


def _first_type(data: bytes) -> str:
    texts: list[str] = []
    for step, (operation, argument, _) in enumerate(pickletools.genops(data)):
        if step > _MOST_STEPS:
            break
        if operation.name in ("GLOBAL", "INST"):
            found = str(argument).replace(" ", ".", 1)
        elif operation.name == "STACK_GLOBAL" and len(texts) > 1:
            found = ".".join(texts[-2:])
        else:
            if isinstance(argument, str) and "UNICODE" in operation.name:
                texts = [*texts[-1:], argument]
            continue
        if not found.startswith(("torch.", "collections.OrderedDict", "numpy.")) or found.startswith(
            "torch.nn.modules"
        ):
            return printable(found)[:_LONGEST]
    return ""


def said_of(kind: str) -> str:
    """Return what is said of a file that holds a type: that it was not read, and what to do.

    >>> said_of("posix.system")
    'it holds posix.system beside tensors and was not read, since that would run code; save the weights alone, torch.save(model.state_dict(), FILE), and give that file'
    """  # noqa: E501 - one line is what users see
    what = f"it holds {kind} beside tensors" if kind else "it holds more than tensors"
    return f"{what} and was not read, since that would run code; {SAVE_WEIGHTS}"
