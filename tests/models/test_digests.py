"""The digest of a network holds all that decides its answers, also what no state dict holds."""

from __future__ import annotations

import torch
from torch import nn

import ipvit


class Odd(nn.Module):
    """A network whose answers depend on what no state dict holds."""

    def __init__(self, scales=(1,), act=torch.abs, buffer=1.0, table=None) -> None:
        super().__init__()
        self.head = nn.Linear(12, 2)
        nn.init.ones_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.scales, self.act, self.table = list(scales), act, table or {"a": 1}
        self.register_buffer("factor", torch.tensor([buffer]), persistent=False)

    def forward(self, x):
        return self.act(self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))) * self.scales[0] * self.factor


def digest(module: nn.Module) -> str:
    return ipvit.wrap(module.eval(), size=16, classes=["a", "b"]).digest


def test_what_no_state_dict_holds_is_part_of_a_networks_digest():
    others = [Odd(scales=(-1,)), Odd(act=torch.neg), Odd(buffer=2.0), Odd(table={"a": 2})]
    assert digest(Odd()) == digest(Odd()) and len({digest(Odd()), *map(digest, others)}) == 5


def test_traced_networks_differ_by_their_code():
    traced = [
        torch.jit.trace(Odd(act=act).eval(), torch.rand(2, 3, 16, 16)) for act in (torch.abs, torch.neg, torch.abs)
    ]
    assert digest(traced[0]) == digest(traced[2]) != digest(traced[1])
