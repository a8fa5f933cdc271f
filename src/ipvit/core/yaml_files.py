"""Reading YAML files that people write: plain values only, and nothing that unfolds beyond what a file can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from ipvit.core.files import user_path
from ipvit.core.text.text_files import read_text
from ipvit.errors import InputError, printable, shown

MOST_BYTES = 4 * 2**20
MOST_VALUES = 100_000
"""With every alias written out: a few lines of aliases of aliases stand for more than fits into memory."""

_MERGE = "tag:yaml.org,2002:merge"


def read_mapping(path: str | Path, what: str, holds: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: the file.
        what: what it is, for messages: ``study``.
        holds: the keys it should have, in words.

    Raises:
        InputError: it cannot be read, is not YAML, holds no mapping, a key twice, or more than a file can mean.
    """
    text = _text(path, what)
    try:
        loader: Any = yaml.SafeLoader(text)  # what constructs values has no types
        root: yaml.Node | None = loader.get_single_node()
        _check(root, str(path))
        content = None if root is None else loader.construct_document(root)
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{path}: not YAML: brackets in brackets, too deep") from None
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, LookupError, OverflowError) as error:
        # beside YAMLError: what PyYAML raises on a date such as 2021-99-99, or on a sequence tagged as a number
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"{path}{line}: not YAML: {_problem(error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a {what} is a mapping with {holds}")
    return {str(key): value for key, value in cast("dict[Any, Any]", content).items()}


def _text(path: str | Path, what: str) -> str:
    place = user_path(path)
    try:
        if place.stat().st_size > MOST_BYTES:
            raise InputError(f"the {what} {str(path)!r} has more than {MOST_BYTES // 2**20} MB; is it the right file?")
        return read_text(place)
    except OSError as error:
        raise InputError(f"cannot read the {what} {str(path)!r}: {error.strerror}") from None
    except InputError as error:
        raise InputError(f"the {what} {error}") from None


def _problem(error: Exception) -> str:
    text = getattr(error, "problem", None) or str(error)
    tag = text.removeprefix("could not determine a constructor for the tag ")
    return f"the tag {tag} is not read; give plain values" if tag != text else printable(text)[:200]


def _check(root: yaml.Node | None, where: str) -> None:
    """Refuse keys that stand there twice, and aliases that mean themselves or too much."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node))
        if known is not None:
            return known
        line = f"{where}, line {node.start_mark.line + 1}"
        if id(node) in open_nodes:
            raise InputError(f"{line}: this value contains itself")
        open_nodes.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _each_key_once(node, where)
        total = 1 + sum(map(size, _children(node)))
        if total > MOST_VALUES:
            raise InputError(f"{line}: more than {MOST_VALUES:,} values with all aliases written out")
        open_nodes.discard(id(node))
        sizes[id(node)] = total
        return total

    if root is not None:
        size(root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _each_key_once(node: yaml.MappingNode, where: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            raise InputError(f"{where}, line {line}: {shown(key.value)} stands in line {lines[key.value]} already")
        lines[key.value] = line
