"""Packages whose names are imported when they are first used."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def lazy_names(package: str, where: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package that imports a module when a name of it is first used.

    The package's own submodules are found likewise.

    Args:
        package: the package's ``__name__``; its ``__all__`` is what it offers.
        where: the full name of the module that defines each function or class.
    """
    namespace = vars(sys.modules[package])
    hidden = frozenset(name for name, module in where.items() if module == f"{package}.{name}")
    if hidden:
        sys.modules[package].__class__ = type("Package", (_Package,), {"functions": hidden})

    def get(name: str) -> Any:
        if name in where:
            namespace[name] = getattr(importlib.import_module(where[name]), name)
            return namespace[name]
        if not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}") is not None:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listed() -> list[str]:
        special = {name for name in namespace if name.startswith("__") and name.endswith("__")}
        return sorted({*special, *namespace["__all__"]})

    return get, listed


class _Package(ModuleType):
    """A package that keeps its functions where a submodule has the name of one.

    Importing a submodule sets it as an attribute of its package: ``package.shuffle`` would then be the module, and the
    function ``shuffle`` in it would never be looked up.
    """

    functions: frozenset[str]

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self.functions or not isinstance(value, ModuleType):
            super().__setattr__(name, value)
