"""While a batch is measured the next one travels. There is no GPU here: streams note what they are told."""

import contextlib
from typing import Any

import numpy as np
import pytest
import torch

import ipvit
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.core.preprocessing import View
from ipvit.data.loader import DecodedBatch
from ipvit.engine import measuring
from ipvit.engine.loop.ahead import Ahead

VIEW = View((4, 4))
told: list[Any] = []


class Stream:
    """Stands for a stream of a GPU."""

    def __init__(self, name: Any) -> None:
        self.name = name

    def record_event(self) -> str:
        told.append(f"recorded on {self.name}")
        return f"event {len(told)}"

    def wait_event(self, event: str) -> None:
        told.append(f"{self.name} waits for {event}")


class Elsewhere:
    """A processor that says that it is a GPU."""

    type = "cuda"


GPU: Any = Elsewhere()


@pytest.fixture(autouse=True)
def streams(monkeypatch: pytest.MonkeyPatch) -> None:
    told.clear()
    plain = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *a, **k: self.clone() if a and a[0] is GPU else plain(self, *a, **k)
    )
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: told.append(f"kept for {stream.name}"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: Stream("the side"))
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream("the present"))


def decoded(number: int) -> DecodedBatch:
    pixels = torch.full((2, 3, 4, 4), number, dtype=torch.uint8)
    told.append(f"decoded {number}")
    return DecodedBatch(np.arange(2), np.zeros(2, np.int64), {VIEW: pixels}, {}, [])


def test_the_next_batch_is_sent_once_and_awaited_by_the_device_alone():
    batches = Ahead((decoded(number) for number in range(2)), GPU)
    _, first = next(batches)
    assert told == ["decoded 0", "recorded on the side", "the present waits for event 2", "kept for the present"]
    told.clear()
    batches.fetch()
    batches.fetch()
    assert told == ["decoded 1", "recorded on the side"]
    _, second = next(batches)
    batches.fetch()  # there is none
    assert list(batches) == []
    assert [float(images[VIEW].max() * 255) for images in (first, second)] == [0, 1]


def test_an_error_of_the_reader_is_raised_where_its_batch_is_taken():
    def broken() -> Any:
        yield decoded(0)
        raise OSError("gone")

    batches = Ahead(broken(), GPU)
    next(batches)
    batches.fetch()
    with pytest.raises(OSError, match="gone"):
        next(batches)


def test_on_a_processor_a_batch_is_read_when_it_is_its_turn():
    batches = Ahead((decoded(number) for number in range(2)), torch.device("cpu"))
    next(batches)
    batches.fetch()
    assert told == ["decoded 0"]
    assert len(list(batches)) == 1


def test_a_run_reads_on_after_its_last_condition_is_queued_and_before_it_waits_for_results(tmp_path, monkeypatch):
    class Noting(Ahead):
        def fetch(self) -> None:
            told.append("fetch")

    def noted(name: str) -> Any:
        function = getattr(measuring, name)
        return lambda *a: told.append(name) or function(*a)

    monkeypatch.setattr("ipvit.engine.sweep.Ahead", Noting)
    for name in ("_queue", "_as_arrays"):
        monkeypatch.setattr(measuring, name, noted(name))
    models = [tiny_model(seed=0, name="a"), tiny_model(seed=1, name="b")]
    ipvit.run(small_occlusion(), models=models, data=photos(), out=tmp_path, workers=0, batch_size=20, progress=False)
    one = ["_queue", "_as_arrays", "_queue", "fetch", "_as_arrays"]
    assert told == one * 2
