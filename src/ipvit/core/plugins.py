"""The user's own code: functions and classes in Python files, ``path/to/file.py:NAME``, or in installed packages."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Generator, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, cast

from ipvit.core.files import user_path
from ipvit.errors import InputError, did_you_mean

OWN_FILE = ".py:"
"""What tells such a name from all others."""

Kind = Literal["attack", "corruption", "fill"]
"""What a function can be; packages register theirs under the entry points ``ipvit.attacks``, ``ipvit.corruptions`` and
``ipvit.fills``."""


class OwnCodeError(RuntimeError):
    """A function of the user's own failed, or returned what cannot be used, while something was measured.

    It is the failure of that condition and no :class:`InputError`, which would end the whole run.
    """


@dataclasses.dataclass(frozen=True)
class OwnFunction:
    """A function of the user's own.

    Attributes:
        label: its name in the file, or the one that it is registered under.
        location: ``path/to/file.py:function``, or ``package.module:function`` for one that is registered.
        digest: SHA-256 of the file's content: a changed function is another one.
    """

    label: str
    location: str
    digest: str

    @property
    def name(self) -> str:
        """What it is called in tables: the label, and six digits that tell versions of the file apart."""
        return f"{self.label}-{self.digest[:6]}"

    def load(self) -> Any:
        """Return the function itself, imported once in every process, and anew when its file has changed."""
        return _imported(self.location, self.digest)

    def __call__(self, *arguments: Any) -> Any:
        """Call the function.

        Raises:
            OwnCodeError: it raised something; the message names file and line.
            MemoryError: it did not fit into the memory.
        """
        try:
            with users_code(self.location):
                return self.load()(*arguments)
        except InputError as error:
            if isinstance(error.__cause__, MemoryError):  # a smaller batch may fit
                raise error.__cause__ from None
            raise OwnCodeError(str(error)) from error


def check_name(kind: Kind, name: str, known: Sequence[str]) -> None:
    """Check that a name is a known one, that of a registered function or ``path/to/file.py:function``; import nothing.

    Raises:
        ValueError: it is none of them, with close matches.
    """
    known = [*known, *(other for other in _registered(kind) if other not in known)]
    if name not in known and OWN_FILE not in name:
        raise ValueError(
            f"unknown {kind} {name!r}; known: {', '.join(known)}, or FILE.py:FUNCTION.{did_you_mean(name, known)}"
        )


def own_function(kind: Kind, name: str) -> OwnFunction:
    """Return the function of a name as it is now, imported.

    Args:
        kind: what the function is.
        name: ``path/to/file.py:function``, or the name that it is registered under.

    Raises:
        InputError: there is no such file or function, or importing it fails.
    """
    if OWN_FILE in name:
        location, label = name, name.rpartition(":")[2]
        path = user_path(name.rpartition(":")[0])
        if not path.is_file():
            raise InputError(f"there is no file {str(path)!r}")
    else:
        point = _registered(kind)[name]
        location, label = point.value, name
        path = _source(location)
    found = OwnFunction(label, location, hashlib.sha256(path.read_bytes()).hexdigest())
    found.load()
    return found


@functools.cache
def _registered(kind: Kind) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"ipvit.{kind}s")}


def _source(location: str) -> Path:
    """Return the file of ``package.module:function``."""
    module = location.partition(":")[0]
    with users_code(location):
        spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise InputError(f"{location}: there is no file of the module {module}")
    return Path(spec.origin)


@functools.cache
def _imported(location: str, _digest: str) -> Any:
    if OWN_FILE in location:
        return import_own(location)  # what it returns is looked at each time
    module = location.partition(":")[0]
    with users_code(location):
        if module in sys.modules:  # it may have been imported before its file was changed
            importlib.reload(sys.modules[module])
        found = EntryPoint(location, location, "").load()
    if not callable(found):
        raise InputError(f"{location} is no function")
    return found


def named_code(content: Any) -> list[str]:
    """Return the names ``path/to/file.py:NAME`` among all texts of nested mappings and lists, each once.

    >>> named_code({"models": ["resnet50", {"name": "net.py:make@w.pt"}], "net.py:Mine": None})
    ['net.py:make@w.pt', 'net.py:Mine']
    """
    return list(dict.fromkeys(text for text in _texts(content) if OWN_FILE in text))


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        for key, value in cast("Mapping[Any, Any]", content).items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(content, list | tuple):
        for item in cast("Sequence[Any]", content):
            yield from _texts(item)


def import_own(name: str) -> Any:
    """Import a file and return what has a name in it.

    Args:
        name: ``path/to/file.py:NAME``, a function or class.

    Raises:
        InputError: there is no such file, importing it fails, or nothing in it that can be called has that name.
    """
    location, _, attribute = name.rpartition(":")
    path = user_path(location)
    if not path.is_file():
        raise InputError(f"there is no file {location!r}")
    spec = importlib.util.spec_from_file_location(f"ipvit_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    with users_code(name):
        spec.loader.exec_module(module)
    found = getattr(module, attribute, None)
    if not callable(found):
        raise InputError(f"{location} has no function {attribute!r}, nor a class of that name")
    return found


@contextlib.contextmanager
def users_code(name: str) -> Generator[None]:
    """Run code of the user's own Python file; what it raises is an InputError that names file and line.

    Args:
        name: ``path/to/file.py:NAME``.
    """
    path = name.rpartition(":")[0]
    try:
        yield
    except InputError:
        raise
    except SyntaxError as error:
        raise InputError(f"{error.filename}:{error.lineno}: not Python: {error.msg}") from error
    except (Exception, SystemExit) as error:
        where, own = path, user_path(path).resolve()
        for frame in traceback.extract_tb(error.__traceback__):
            if Path(frame.filename).resolve() == own:
                where = f"{path}:{frame.lineno}"
        raise InputError(f"{where}: {type(error).__name__}: {error}") from error
