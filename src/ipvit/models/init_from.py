"""Weights to start a training from."""

from __future__ import annotations

import torch
from torch import nn

from ipvit.errors import InputError
from ipvit.models.io.state_dict import read_state_dict, resolve
from ipvit.models.zoo.bundled import BUNDLED, bundled_weights

_COPIES = {"head_dist.weight": "head.weight", "head_dist.bias": "head.bias", "dist_token": "cls_token"}
"""What a second head and token start as, where the checkpoint has one of each."""


def init_from(network: nn.Module, name: str) -> list[str]:
    """Give a network the weights of a checkpoint wherever name and shape agree.

    A second head that the checkpoint lacks starts as a copy of its first, and a second token as a copy of its class
    token, so that a network with a shape token can continue one without.

    Args:
        network: changed in place.
        name: a safetensors or PyTorch file, its URL, ``demo:NAME`` or ``tin50:NAME``.

    Returns:
        The names of the weights that stay as they were.

    Raises:
        InputError: there is no such file, or nothing in it fits.
    """
    source, _, plain = name.partition(":")
    path = bundled_weights(source, plain) if source in BUNDLED else resolve(name)
    stored, own = dict(read_state_dict(path)), network.state_dict()
    for second, first in _COPIES.items():
        if second in own and second not in stored and first in stored:
            stored[second] = stored[first].clone()
    positions = stored.get("pos_embed")
    if positions is not None and "dist_token" in own and own["pos_embed"].shape[1] == positions.shape[1] + 1:
        stored["pos_embed"] = torch.cat([positions[:, :1], positions[:, :1], positions[:, 1:]], dim=1)
    fitting = {key: value for key, value in stored.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise InputError(f"model.start: nothing in {name!r} fits the network")
    network.load_state_dict(own | fitting)
    return sorted(own.keys() - fitting.keys())
