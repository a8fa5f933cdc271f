"""Building a network as all sources do: fixed initialisation, foreign keys, downloads that fail."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
from collections.abc import Iterator
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from ipvit.errors import FOREIGN_ERRORS, InputError, UnavailableWeightsError, error_line
from ipvit.models.io.pickles import refused_type, said_of

RANDOM_SEED = 0
"""Networks without pretrained weights are initialised from this seed, so that their digest is always the same."""


def fitted(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Let the family's own converter rename foreign keys and resample positions, where plain loading would not do."""
    own = network.state_dict()
    if all(key in state and state[key].shape == value.shape for key, value in own.items()):
        return state
    # positions are resampled: in float32, whatever the file saves space by
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    module = importlib.import_module(type(network).__module__)
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        converted = convert(dict(state), network)
    except FOREIGN_ERRORS:
        return state  # not a checkpoint of this family: the strict comparison says which keys are wrong
    return converted if isinstance(converted, dict) else state


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Initialise from a fixed seed and leave the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        yield


@contextlib.contextmanager
def quick_refusal_when_offline() -> Iterator[None]:
    """Without a network, let the hub client look into its cache only, instead of retrying for most of a minute."""
    from huggingface_hub import constants

    behind_proxy = any(key.lower() in ("https_proxy", "all_proxy") and value for key, value in os.environ.items())
    if behind_proxy or _resolves(urlparse(constants.ENDPOINT).hostname):
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def cannot_fetch(name: str, error: Exception) -> InputError:
    """Return what to tell a user whose weights could not be downloaded, or were and hold code."""
    kind = refused_type(error)
    if kind is not None:
        return InputError(f"the weights of {name} are not weights alone: {said_of(kind)}, as {name}@FILE")
    instead = f"give a local file as {name}@FILE, or --no-pretrained for random weights"
    return UnavailableWeightsError(name, error_line(error, 160), instead)


def _resolves(host: str | None) -> bool:
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True
