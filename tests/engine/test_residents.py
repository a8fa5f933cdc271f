"""Networks that do not fit on the device together wait in the host's memory, and records are the same."""

from __future__ import annotations

import pytest
import torch

import ipvit
from helpers.plain_loops import photos, quiet_vit, same_records, tiny_resnet, tiny_vit, wrapped
from ipvit.engine.loop import residents
from ipvit.engine.loop.residents import Residents
from ipvit.models.adapters import unwrap
from ipvit.models.model import Model

DEVICE, HOST = torch.device("cpu"), torch.device("cpu", 0)


class SmallDevice:
    """Says which networks are there, and that it is full where one more is sent; all are really in one memory."""

    def __init__(self, room: int) -> None:
        self.room, self.there, self.called_elsewhere = room, [], []

    def send(self, model: Model, device: torch.device) -> Model:
        network = unwrap(model.backbone)
        if device == HOST:
            self.there = [one for one in self.there if one is not network]
        elif network not in self.there:
            if len(self.there) == self.room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            self.there.append(network)
        return model

    def watch(self, model: Model) -> None:
        model.backbone.register_forward_hook(lambda network, *_: self._see(network))

    def _see(self, network: torch.nn.Module) -> None:
        if self.there and network not in self.there:  # before the run they are looked at where they are
            self.called_elsewhere.append(network)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> SmallDevice:
    small = SmallDevice(room=1)
    monkeypatch.setattr(residents, "HOST", HOST)
    monkeypatch.setattr(Model, "device", property(lambda _: HOST))
    monkeypatch.setattr(Model, "to", lambda model, where=HOST, **_: small.send(model, where))
    return small


def networks() -> list[Model]:
    return [quiet_vit(), wrapped(tiny_vit(seed=9), name="other")]


def run(models, experiments, out, batch_size=4) -> ipvit.Run:
    options = {"workers": 0, "progress": False, "batch_size": batch_size, "out": out}
    return ipvit.run(experiments, models=models, data=photos(), **options)


EXPERIMENTS = [
    ipvit.Accuracy(),
    ipvit.Occlusion(levels=(0, 0.5), grid="4x4", runs=1),
    ipvit.Attack(attacks=("fgsm",), epsilons=(8,), show_to_others=True),
]


def test_networks_that_do_not_fit_together_take_turns_and_measure_the_same(tmp_path, device):
    models = networks()
    for model in models:
        device.watch(model)
    in_turns = run(models, EXPERIMENTS, tmp_path / "turns")
    (note,) = [note for note in in_turns.manifest.notes if "do not fit into the memory" in note]
    assert "waited in the host's and came back" in note
    assert not device.called_elsewhere, "each is brought before it is called, also in another's transfer"
    device.room = 2
    assert in_turns.tables["attack-transfer-pixels"].height == 4
    together = run(networks(), EXPERIMENTS, tmp_path / "together")
    assert not [note for note in together.manifest.notes if "do not fit" in note]
    for name in ("accuracy", "occlusion", "attack"):
        same_records(in_turns.records(name), together.records(name))


def test_the_one_that_was_used_longest_ago_goes_first(device):
    device.room = 2
    first, second, third = quiet_vit(), tiny_resnet(), quiet_vit()
    turns = Residents(DEVICE)
    for model in (first, second, first, third):
        turns.bring(model)
    assert device.there == [first.backbone, third.backbone] and turns.moves == 0
    turns.bring(second)
    assert device.there == [third.backbone, second.backbone] and turns.moves == 1


def test_room_for_a_batch_is_made_before_the_batch_is_halved(tmp_path, device):
    device.room = 2
    models = networks()
    sizes: list[int] = []

    def full(_network, inputs):
        if len(device.there) > 1 and len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(inputs[0]))

    plain = run(networks(), [ipvit.Accuracy()], tmp_path / "plain")
    models[0].backbone.register_forward_pre_hook(full)
    cramped = run(models, [ipvit.Accuracy()], tmp_path / "cramped")
    assert max(sizes) == 4 and not [note for note in cramped.manifest.notes if "at a time did not fit" in note]
    same_records(cramped.records("accuracy"), plain.records("accuracy"))


def test_one_that_does_not_fit_alone_is_told_of(tmp_path, device):
    device.room = 0
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        Residents(DEVICE).bring(quiet_vit())


def test_networks_stay_where_they_are_on_a_processor():
    model = quiet_vit()
    turns = Residents(residents.HOST)
    turns.bring(model)
    assert not turns.make_room(model) and not turns.notes()
