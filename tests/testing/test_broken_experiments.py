"""An experiment that breaks a promise is caught, in a sentence that says which."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ConfigDict, field_serializer

import ipvit
from helpers.plain_loops import photos
from helpers.sound import Noise, Sound, broken, models
from ipvit.data.subset import Subset
from ipvit.testing import check_experiment
from ipvit.testing.samples import sample_vit


@dataclasses.dataclass(frozen=True)
class Trial(ipvit.Condition):
    number: int


@dataclasses.dataclass(frozen=True)
class Pair(ipvit.Condition):
    sides: tuple[int, int]


def test_a_sound_experiment_keeps_it():
    assert check_experiment(Sound, models=models(), data=photos(6, 16)) is None


# --- what it states --------------------------------------------------------------------------------------------------


class Open(Sound):
    model_config = ConfigDict(frozen=False, extra="forbid")


class Greedy(Sound):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Listed(Sound):
    amounts: list[float] = [0.0, 0.5]  # noqa: RUF012 - the mistake that is meant


class Lossy(Sound):
    @field_serializer("amounts")
    def _rounded(self, value):
        return [int(amount) for amount in value]


class Unwritten(Sound):
    what: Any = object()


class Asking(Sound):
    amounts: tuple[float, ...]


class Nameless(ipvit.Experiment):
    title = "Nameless"


class Unknown(Sound):
    requirements = property(lambda self: ipvit.Requirements(frozenset({"logit"})))


class NoAnalysis(Sound):
    def analysis(self):
        return {"amount": "level"}


class Renamed(Sound):
    def analysis(self):
        return super().analysis().model_copy(update={"name": "other"})


class Changing(Sound):
    def analysis(self):
        return super().analysis().model_copy(update={"question": str(random.random())})


STATED = [
    (Open, "Open is not frozen"),
    (Greedy, "Greedy takes parameters that it does not have"),
    (Listed, r"hash\(Listed\(...\)\).* raises TypeError: unhashable type: 'list'"),
    (Lossy(amounts=(0.0, 0.5)), "Lossy: the parameter amounts comes back from a study file as another value"),
    (Unwritten, "Unwritten: writing the parameters into a study file raises"),
    (Asking, "Asking: the parameter 'amounts' has no default"),
    (Nameless, "'Nameless' has no name"),
    (Unknown, "Unknown.requirements names logit, which no model offers"),
    (NoAnalysis, "NoAnalysis.analysis.. is no ipvit.Analysis but dict"),
    (Renamed, "is called 'other' and the experiment 'sound'; make it by Analysis.of"),
    (Changing, "Changing.analysis.. is another one each time"),
]


@pytest.mark.parametrize(("experiment", "words"), STATED, ids=[words for _, words in STATED])
def test_what_it_states(experiment, words):
    broken(experiment, words)


# --- bind and conditions ---------------------------------------------------------------------------------------------


class Forgetful(Sound):
    def bind(self, models, data, context):
        return None


class Keeping(Sound):
    def bind(self, models, data, context):
        self.__dict__["amounts"] = (0.5,)
        return self


class Drawing(Sound):
    def bind(self, models, data, context):
        torch.rand(1)
        return self


class Refusing(Sound):
    def bind(self, models, data, context):
        raise ipvit.InputError("never on a Monday")


class Empty(Sound):
    def conditions(self, model):
        return []


class Loose(Sound):
    def conditions(self, model):
        return [("amount", 0.5)]


class Nested(Sound):
    def conditions(self, model):
        return [Pair((2, 2))]


class Twice(Sound):
    def conditions(self, model):
        return [Noise(0.5), Noise(0.5)]


class Restless(Sound):
    def conditions(self, model):
        return [Trial(random.Random().randrange(2**40))]


class Counting(ipvit.Measurement):
    """Its conditions tell when it was bound."""

    def __init__(self, number):
        self.number = number

    def conditions(self, model):
        return [Trial(self.number)]

    def measure(self, model, batch):
        for condition in batch.conditions:
            yield ipvit.Records(condition, ipvit.classify(model, batch.images, batch.labels))


class Rebound(ipvit.Experiment):
    name = "rebound"
    title = "Bound anew"
    every: int = 1

    def bind(self, models, data, context):
        BOUND.append(self)
        return Counting(len(BOUND) // self.every)


BOUND: list[ipvit.Experiment] = []


class Reserved(Sound):
    def conditions(self, model):
        return [dataclasses.make_dataclass("Seeded", [("seed", int)], bases=(ipvit.Condition,), frozen=True)(1)]


BOUND_AND_ASKED = [
    (Forgetful, "Forgetful.bind returns NoneType, no Measurement"),
    (Keeping, "Keeping.bind changes the experiment"),
    (Drawing, "Drawing.bind changes the global random state of torch"),
    (Refusing, "Refusing cannot be run on these models and data: never on a Monday"),
    (Empty, r"Empty: conditions\(model\) on one is empty"),
    (Loose, r"Loose: conditions\(model\) on one holds \('amount', 0.5\), which is no frozen dataclass"),
    (Nested, "the field 'sides' of Pair is of type tuple; it becomes a column"),
    (Twice, r"holds Noise\(amount=0.5\) twice"),
    (Restless, "gives other conditions on the second call"),
    (Rebound, "Rebound: bound a second time it has other conditions on one"),
    (Reserved, "a condition's field may not be called 'seed'; records have it already"),
]


@pytest.mark.parametrize(("experiment", "words"), BOUND_AND_ASKED, ids=[words for _, words in BOUND_AND_ASKED])
def test_what_it_binds_to_and_its_conditions(experiment, words):
    broken(experiment, words)


def test_it_must_have_a_model_that_can_do_it():
    class Looking(Sound):
        requirements = property(lambda self: ipvit.Requirements(frozenset({"attention"})))

    broken(Looking, "Looking requires what no model offers")


# --- whole runs ------------------------------------------------------------------------------------------------------


class Relative(Sound):
    def columns(self, model, batch, images):
        return super().columns(model, batch, images - images.mean(dim=0))


class Thrifty(Sound):
    def measure(self, model, batch):
        yield from super().measure(model, batch) if len(batch) > 1 else ()


class Placed(Sound):
    def columns(self, model, batch, images):
        weight = torch.from_numpy(batch.positions % 2).to(images).view(-1, 1, 1, 1)
        return super().columns(model, batch, images * weight)


class Dimmed(Subset):
    def read(self, index):
        return super().read(index) // (1 + (len(self) < 6))


class Selecting(ipvit.Experiment):
    """Its images are darker where there are few of them."""

    name = "selecting"
    title = "Selecting"

    def bind(self, models, data, context):
        return SelectingMeasurement(0)


class SelectingMeasurement(Counting):
    def items(self, data, limit):
        return Dimmed(data, np.arange(limit or len(data)))


class Repeating(SelectingMeasurement):
    def items(self, data, limit):
        return Subset(data, np.array([0, 0, 1]))


class Repeated(Selecting):
    def bind(self, models, data, context):
        return Repeating(0)


class LimitedMeasurement(Counting):
    def items(self, data, limit):
        self.number = limit or 0
        return data


class Limited(Selecting):
    def bind(self, models, data, context):
        return LimitedMeasurement(0)


class Unlabelled(Sound):
    requirements = property(lambda self: ipvit.Requirements(labels=False))

    def columns(self, model, batch, images):
        return super().columns(model, batch, images) | {
            "label_logit": model(images).gather(1, batch.labels[:, None])[:, 0]
        }

    def analysis(self):
        return ipvit.Analysis.of(self, {"label_logit": ipvit.Column(average="mean")})


class Peeking(Sound):
    """Reads tokens and does not say so."""

    def columns(self, model, batch, images):
        model.tokens(images, [0])
        return super().columns(model, batch, images)


class Silent(Sound):
    def bind(self, models, data, context):
        if any("tokens" not in model.capabilities for model in models):
            raise ipvit.InputError("not this one")
        return self


class Picky(Sound):
    """Looks for a module that only some networks have."""

    def columns(self, model, batch, images):
        assert model.backbone.pool is not None
        return super().columns(model, batch, images)


RUNS = [
    (Relative, "Relative: the records depend on the batch size: "),
    (Thrifty, "Thrifty fails on one: ValueError: nothing was measured under 1 of 1 conditions"),
    (Placed, "Placed: the records depend on the order of the images: "),
    (Selecting, r"the records depend on which other images are measured \(a limit of 4\): "),
    (Repeated, "what items returns,.ids holds 'photo 0' twice"),
    (Limited, "a limit of 4 images has other conditions"),
    (Unlabelled, "on a model and data that offer what requirements state .logits. and nothing else it fails: "),
    (Picky, "on a model that offers logits and gradients only it fails: AttributeError: .* no attribute 'pool'"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "words"), RUNS, ids=[words for _, words in RUNS])
def test_the_records_of_whole_runs(experiment, words):
    broken(experiment, words)


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        (Peeking, r"\(logits, labels\) and nothing else it fails: InputError: model .* not offer 'tokens'"),
        (Silent, "Silent: refuses the model 'plain network' without its name: not this one"),
    ],
)
def test_what_is_required_of_a_model(experiment, words):
    broken(experiment, words, models=[sample_vit()], data=None)


@pytest.mark.parametrize(
    ("every", "words"),
    [
        (5, "a run has 0 of the 12 records that it should have, one for each image and condition, and 12 others"),
        (6, "a second run in the same folder measures 12 results again"),
        (9, "raising the limit from 4 to all images measures 12 results where 4 were missing"),
    ],
)
def test_conditions_that_change_in_the_long_run(every, words):
    BOUND.clear()
    broken(Rebound(every=every), words)
