"""Which networks are on the device: all of them while they fit; else some wait in the host's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ipvit.core.memory import is_out_of_memory
from ipvit.models.adapters import unwrap
from ipvit.models.model import Model

HOST = torch.device("cpu")


class Residents:
    """The networks of a run, and where they are.

    All are brought to the device at first. Where one does not fit, or leaves no room to compute, those that were used
    longest ago go to the host, and each comes back when it is called.

    Args:
        device: where they compute.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._there: dict[
            nn.Module, Model
        ] = {}  # by the network, which several models may share; used longest ago first
        self._away: dict[nn.Module, Model] = {}
        self._hooks: list[Any] = []
        self._begun = False
        self.moves = 0
        """How often a network has come back from the host."""

    def bring(self, model: Model) -> None:
        """Put a network on the device, where it is not; others make room as far as they must.

        Raises:
            RuntimeError: it does not fit alone.
        """
        if self._device == HOST:
            if not self._begun:
                model.to(HOST)
            return
        network = unwrap(model.backbone)
        if network in self._there:
            self._there[network] = self._there.pop(network)
            return
        while not self._fits(model):
            self._send_away(next(iter(self._there)))
        self.moves += self._away.pop(network, None) is not None
        self._there[network] = model

    def begin(self) -> None:
        """Let networks come by themselves from now on, where some are on the host: they are as they will be called."""
        self._begun = True
        if self._away:
            self._watch()

    def make_room(self, model: Model) -> bool:
        """Send all networks but one to the host; tell whether there were any."""
        others = [network for network in self._there if network is not unwrap(model.backbone)]
        for network in others:
            self._send_away(network)
        return bool(others)

    def leave(self) -> None:
        """Let no network come by itself any more."""
        for hook in self._hooks:
            hook.remove()

    def notes(self) -> list[str]:
        """Say that networks took turns, where they did."""
        if not self.moves:
            return []
        return [
            f"the networks do not fit into the memory of {self._device} together: those that were not measured waited "
            f"in the host's and came back {self.moves:,} times, which takes time; fewer models a run need no turns"
        ]

    def _fits(self, model: Model) -> bool:
        try:
            model.to(self._device)
        except Exception as error:
            if not is_out_of_memory(error) or not self._there:
                raise
            return False
        return True

    def _send_away(self, network: nn.Module) -> None:
        self._away[network] = model = self._there.pop(network)
        model.to(HOST)
        torch.cuda.empty_cache()
        if self._begun and not self._hooks:
            self._watch()

    def _watch(self) -> None:
        """Let each network come when it is called: what one is attacked with may be shown to others."""
        for model in (*self._there.values(), *self._away.values()):
            self._hooks.append(model.backbone.register_forward_pre_hook(self._brings(model)))

    def _brings(self, model: Model) -> Callable[[nn.Module, Any], None]:
        def bring(_network: nn.Module, _inputs: Any) -> None:
            self.bring(model)

        return bring
