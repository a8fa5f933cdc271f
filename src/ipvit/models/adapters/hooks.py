"""Read what flows through a network, and put something else there, without copying its forward pass.

Everything here is a context manager or cleans up after itself: hooks and swapped attributes are gone afterwards, also
when the network raises.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from torch import Tensor, nn

_ABSENT = object()


@dataclasses.dataclass(frozen=True)
class HookPoint:
    """A place in a network: what enters or leaves one of its modules."""

    module: nn.Module
    side: Literal["input", "output"] = "input"


@dataclasses.dataclass(frozen=True)
class BlockInput:
    """What passed a :class:`HookPoint`: the arguments of the module, or what it returned as the only one."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


class _EverythingReadError(Exception):
    """Raised inside a forward pass once every hook point has been passed."""


def read(network: nn.Module, images: Tensor, points: Sequence[HookPoint], *, copy: bool = False) -> list[BlockInput]:
    """Run a network until every hook point has been passed, and no further.

    Args:
        network: the network.
        images: its input.
        points: where to read.
        copy: keep copies, where what works in place further on must not change what was read.

    Returns:
        What passed each hook point, in the order of ``points``.

    Raises:
        RuntimeError: a hook point is on a module that the forward pass does not call.
    """
    found: dict[int, BlockInput] = {}

    def keep(position: int, block_input: BlockInput) -> None:
        found[position] = copied(block_input) if copy else block_input
        if len(found) == len(points):
            raise _EverythingReadError

    with contextlib.ExitStack() as stack:
        for position, point in enumerate(points):
            stack.enter_context(watched(point, lambda block_input, position=position: keep(position, block_input)))
        with contextlib.suppress(_EverythingReadError):
            network(images)
    missing = [type(point.module).__name__ for position, point in enumerate(points) if position not in found]
    if missing:
        raise RuntimeError(f"{type(network).__name__} does not call {', '.join(missing)}: nothing to read there")
    return [found[position] for position in range(len(points))]


@contextlib.contextmanager
def watched(point: HookPoint, seen: Callable[[BlockInput], None]) -> Iterator[None]:
    """Let ``seen`` have a look at what passes a hook point."""
    if point.side == "input":
        handle = point.module.register_forward_pre_hook(
            lambda _module, args, kwargs: seen(BlockInput(args, dict(kwargs))), with_kwargs=True
        )
    else:
        handle = point.module.register_forward_hook(lambda _module, _args, output: seen(BlockInput((output,))))
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def replaced(point: HookPoint, replace: Callable[[BlockInput], BlockInput]) -> Iterator[None]:
    """Let ``replace`` decide what passes a hook point.

    Args:
        point: where.
        replace: takes what would have passed, returns what passes instead.
    """

    def enter(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        block_input = replace(BlockInput(args, dict(kwargs)))
        return block_input.args, block_input.kwargs

    if point.side == "input":
        handle = point.module.register_forward_pre_hook(enter, with_kwargs=True)
    else:
        handle = point.module.register_forward_hook(
            lambda _module, _args, output: replace(BlockInput((output,))).args[0]
        )
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def skipped(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let modules return their input and compute nothing."""
    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.enter_context(changed(module, "forward", _pass_through))
        yield


@contextlib.contextmanager
def changed(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an instance another attribute (not a module or parameter) for a while."""
    before = vars(owner).get(name, _ABSENT)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def copied(block_input: BlockInput) -> BlockInput:
    """Return a copy, so that what works in place leaves the original alone."""
    return BlockInput(
        tuple(arg.clone() if isinstance(arg, Tensor) else arg for arg in block_input.args), block_input.kwargs
    )


def _pass_through(*args: Any, **_: Any) -> Any:
    return args[0] if len(args) == 1 else args
