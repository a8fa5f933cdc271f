"""Models that another program computes: OpenVINO gives the same logits and attention in less time on a processor."""

from __future__ import annotations

import functools
import gc
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ipvit.errors import error_line
from ipvit.models.adapters import Adapter
from ipvit.models.answers import AnswerSpace
from ipvit.models.backend import COMPUTES, HINTS, check_backend
from ipvit.models.model import Model

_ROUNDING = {"fp32": 1e-3, "bf16": 0.2}
"""How far, as a share of the largest value, the answers to the same image may lie apart; another graph than the network
is off by about as much as its values."""


class ConversionError(RuntimeError):
    """A network that the backend cannot compute."""


class OpenVinoModel(Model):
    """A model whose logits and attention OpenVINO computes on the CPU; it can do nothing else.

    It has the digest of the model it was made of, whose backbone it shares; its results are told apart by
    :attr:`backend`.

    Args:
        model: on the CPU, in evaluation mode.
        precision: ``fp32``, or ``bf16`` for matrix products and convolutions with operands of 16 bits.
    """

    backend = "openvino"

    def __init__(self, model: Model, precision: str) -> None:
        super().__init__(
            model.backbone,
            name=model.name,
            preprocessing=model.preprocessing,
            classes=model.classes,
            architecture=model.architecture,
            source=model.source,
            weights_sha256=model.weights_sha256,
        )
        self.precision = precision
        self.distillation_token, self.origin = model.distillation_token, model.origin
        self.answer_space, self.texts, self.bank = model.answer_space, model.texts, model.bank
        self._torch = (model,)  # in a tuple: its weights are no parameters of this one
        self._graphs: dict[tuple[object, ...], OpenVinoGraph] = {}
        self.eval()

    @property
    def digest(self) -> str:
        """Digest of the model that is computed."""
        return self._torch[0].digest

    @property
    def tower_digest(self) -> str:
        """See :attr:`Model.tower_digest`."""
        return self._torch[0].tower_digest

    @property
    def output_classes(self) -> tuple[str, ...] | None:
        """Names of all outputs of the network."""
        return self._torch[0].output_classes

    @property
    def adapter(self) -> Adapter:
        """What knows the inside of the network: its blocks, tokens and grid."""
        return self._torch[0].adapter

    @property
    def capabilities(self) -> frozenset[str]:
        """Logits, and attention where the network offers it."""
        return frozenset(filter(self._torch[0].can, COMPUTES))

    def why_not(self, capability: str) -> str:
        """Return why this model cannot do something, or an empty string; see :meth:`Model.why_not`."""
        return self._torch[0].why_not(capability) if capability in COMPUTES else "OpenVINO does not compute it"

    @property
    def doubt(self) -> str:
        """See :attr:`Model.doubt`: of the network, which is asked once however many of these share it."""
        return self._torch[0].doubt

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the network."""
        return self._torch[0].n_outputs

    def answering(self, answers: AnswerSpace) -> Model:
        """Return the same network as one that chooses among some answers; see :meth:`Model.answering`."""
        return OpenVinoModel(self._torch[0].answering(answers), self.precision)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)``, float32, for images ``(B, 3, H, W)`` in [0, 1].

        Raises:
            ConversionError: OpenVINO cannot compute the network; the same again whenever it is asked.
        """
        (model,) = self._torch
        return self._graph((), lambda images: (model(images),))(images)[0]

    def attention(self, images: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        """Return maps as :meth:`Model.attention` does, likewise."""
        (model,) = self._torch
        wanted = tuple(sorted(set(blocks)))
        graph = self._graph(wanted, lambda images: tuple(model.attention(images, wanted).values()))
        return dict(zip(wanted, graph(images), strict=True))

    def prefix_attention(self, images: Tensor, block: int) -> Tensor:
        """Return rows as :meth:`Model.prefix_attention` does, likewise."""
        (model,) = self._torch
        graph = self._graph(("prefix", block), lambda images: (model.prefix_attention(images, block),))
        return graph(images)[0]

    def n_heads(self, block: int) -> int:
        """Return how many attention maps a block has."""
        return self._torch[0].n_heads(block)

    def _graph(self, wanted: tuple[object, ...], function: Callable[[Tensor], tuple[Tensor, ...]]) -> OpenVinoGraph:
        if wanted not in self._graphs:
            self._graphs[wanted] = OpenVinoGraph(self._torch[0], function, self.precision)
        return self._graphs[wanted]


def with_backend(model: Model, backend: str, precision: str = "fp32") -> Model:
    """Return the model as a backend computes it: with fewer capabilities, and the same digest.

    Args:
        model: in evaluation mode; for ``openvino`` on the CPU.
        backend: ``torch`` returns the model itself.
        precision: ``fp32`` or ``bf16``.

    Raises:
        InputError: the backend cannot be used here.
    """
    if backend == "torch":
        return model
    check_backend(backend, precision, model.device.type)
    return OpenVinoModel(model, precision)


@functools.cache
def _leave_alone_in_children() -> None:
    """Let no process that is forked off from this one, to decode images, collect a network that it inherited.

    OpenVINO's destructors wait for threads that such a process does not have: it would hang for ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=gc.freeze)


class OpenVinoGraph:
    """A function of images that a network computes.

    It is traced when it is first called, and the answers are then compared with the network's own: control flow that a
    trace does not record would show.

    Args:
        model: the network.
        function: from images ``(B, 3, H, W)`` in [0, 1] to tensors.
        precision: ``fp32`` or ``bf16``.
    """

    def __init__(self, model: Model, function: Callable[[Tensor], tuple[Tensor, ...]], precision: str) -> None:
        self.model = model
        self.function = function
        self.precision = precision
        self._request: Any = None
        self._failure = ""

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the function's values, in float32, for any number of images."""
        if self._failure:
            raise ConversionError(self._failure)
        if self._request is None:
            try:
                self._request = self._convert()
                self._compare()
            except Exception as error:  # tracers and converters raise all sorts of things
                self._request = None
                self._failure = f"OpenVINO cannot compute {self.model.name}: {error_line(error)}; use the backend torch"
                raise ConversionError(self._failure) from error
        return self._answer(images)

    def _answer(self, images: Tensor) -> list[Tensor]:
        found = self._request.infer([images.contiguous().numpy()], share_inputs=True)
        return [torch.from_numpy(found[place]) for place in range(len(found))]

    def _convert(self) -> Any:
        import openvino  # pyright: ignore[reportMissingImports]
        from openvino.frontend import FrontEndManager  # pyright: ignore[reportMissingImports]
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # pyright: ignore[reportMissingImports]

        _leave_alone_in_children()
        # not openvino.convert_model, which tells its makers of every call
        frontend = FrontEndManager().load_by_framework("pytorch")
        with warnings.catch_warnings(), torch.no_grad(), torch.autocast("cpu", enabled=False):
            warnings.simplefilter("ignore")  # traced comparisons: what they may break is found out by comparing
            trace = TorchScriptPythonDecoder(
                _Traced(self.model, self.function),
                example_input=self._example(2),
                trace_kwargs={"check_trace": False},  # the comparison below checks more
            )
            graph = frontend.convert(frontend.load(trace))
        graph.reshape([-1, 3, *self.model.image_size])
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
        }
        compiled = openvino.Core().compile_model(graph, "CPU", settings)
        wanted = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}[self.precision]
        if compiled.get_property("INFERENCE_PRECISION_HINT") != wanted:
            raise ConversionError(f"this processor has no instructions for {self.precision}")
        return compiled.create_infer_request()

    def _compare(self) -> None:
        images = self._example(1)  # another number than was traced
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            own, answers = self.function(images), self._answer(images)
        for mine, answer in zip(own, answers, strict=True):
            if answer.shape != mine.shape:
                raise ConversionError(f"{tuple(answer.shape)} comes out instead of {tuple(mine.shape)}")
            apart = float((answer - mine).abs().max() / mine.abs().max().clamp(min=1e-12))
            if not apart <= _ROUNDING[self.precision]:  # also for NaN
                raise ConversionError(
                    f"it is off by {100 * apart:.1f} % of the largest value, more than rounding explains"
                )

    def _example(self, n: int) -> Tensor:
        return torch.rand(n, 3, *self.model.image_size, generator=torch.Generator().manual_seed(n))


class _Traced(nn.Module):
    def __init__(self, model: Model, function: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        # Its weights become constants of the trace. Not the model: the tracer reads each property of what it holds.
        self.backbone = model.backbone
        self.function = function

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.function(images)
