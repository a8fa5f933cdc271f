"""The user's own Python files: ``path/to/file.py:NAME``."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ipvit.errors import InputError
from ipvit.files import user_path

OWN_FILE = ".py:"
"""What tells such a name from all others."""


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
def users_code(name: str) -> Iterator[None]:
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
