"""``Manifest``: what was run, on what, with which versions, and what went wrong; ``manifest.json`` holds it.

The keys of the file are the fields, or their alias. A key that a file lacks has the default given here; one that is not
known here is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ipvit.core.fields import Count, ForeignText, Int64

UNTRAINED = "random initialisation"
"""How the source of a model ends that has no weights of its own."""

RANDOM_WEIGHTS = " (random weights)"
"""What follows the name of a model with random weights wherever a number of its stands."""

DOUBTS = {
    "random answers": "answers the same image otherwise each time, as with dropout that is never switched off",
    "batch-dependent answers": "answers an image otherwise beside other images, as with batch statistics at test time",
    "constant answers": "gives all images the same answer",
}
"""What may be doubtful about all numbers of a model, which follows its name in brackets, and what is said of it."""

Status = Literal["running", "interrupted", "failed", "done"]


UNSTATED = "an earlier version wrote this folder, which does not state"
"""How messages begin that miss what manifests did not always say."""


class _Part(BaseModel, frozen=True):
    """A part of a manifest; its values are of the stated kinds, never converted."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True)


class UsedPreprocessing(_Part, frozen=True):
    """How pictures become a model's input."""

    size: tuple[Count, Count]
    """Height and width of the input, in pixels."""
    crop_pct: float
    """Share of the resized picture's side that is cropped."""
    interpolation: str
    """How pictures are resized."""
    crop_mode: str = "center"
    """How the crop is taken, in timm's words."""
    mean: tuple[float, ...] = ()
    """Of the channels in [0, 1]; subtracted inside the model."""
    std: tuple[float, ...] = ()
    """Of the channels in [0, 1]; divided by inside the model."""


class UsedTexts(_Part, frozen=True):
    """What the outputs of a zero-shot model are told by."""

    in_words: str
    """How it answers."""
    prompts: tuple[str, ...]
    """Sentences, with ``{}`` where the words for a class stand."""
    outputs: tuple[str, ...]
    """What the outputs are called, in their order."""
    words: tuple[str, ...]
    """The words for each."""
    prepared: str
    """How the tokenizer prepared the texts."""
    alike: tuple[str, ...] = ()
    """Words that several outputs have, which no model can tell apart."""


class UsedModel(_Part, frozen=True):
    """A model that was measured."""

    name: str
    """In tables and figures."""
    loaded_as: str | None = None
    """The name that it was loaded by, with its scheme, options and weights; empty for a network made in Python, None
    where an earlier version wrote this."""
    digest: str
    """Of the weights and the preprocessing; with it the records name the model."""
    source: str
    """Where the weights are from; ends in :data:`UNTRAINED` where they are random."""
    weights_sha256: str | None = None
    """Digest of the file of weights, if there is one."""
    parameters: Count
    """Number of parameters."""
    preprocessing: UsedPreprocessing
    """How pictures become its input."""
    doubt: str = ""
    """What makes all of its numbers doubtful, see :data:`DOUBTS`; empty where nothing does."""
    texts: UsedTexts | None = None
    """Of a zero-shot model; None for any other."""

    @property
    def untrained(self) -> bool:
        """Whether the weights are random."""
        return self.source.endswith(UNTRAINED)

    def marked(self) -> UsedModel:
        """Return the same with a name that says so where the weights are random, or the answers: they say nothing."""
        marks = [RANDOM_WEIGHTS] if self.untrained else []
        marks += [f" ({self.doubt})"] if self.doubt in DOUBTS else []
        added = "".join(mark for mark in marks if mark.strip(" ()") not in self.name)
        return self.model_copy(update={"name": f"{self.name}{added}"}) if added else self

    @property
    def doubt_in_words(self) -> str:
        """A sentence about what makes its numbers doubtful; empty where nothing does."""
        said = DOUBTS.get(self.doubt)
        return f"{self.name} {said}: its numbers say nothing of how it sees." if said else ""


class UsedData(_Part, frozen=True):
    """The data set that was measured on."""

    name: str
    """As a study names it."""
    fingerprint: str
    """Digest of what determines the results: the images and their labels."""
    images: Count
    """Number of images in the whole data set."""
    classes: Count | None = None
    """Number of classes; None where it has none."""
    published: str | None = None
    """The published set that the images are of, see :func:`ipvit.data.recognition.published_set`; empty for other
    images, None where an earlier version wrote this."""
    published_images: Count = 0
    """How many images that set has."""
    labelling: str | None = None
    """Digest of the names of the classes; None where an earlier version wrote this, or several runs are seen together.
    """


class SkippedImage(_Part, frozen=True):
    """An image that could not be read."""

    image: str
    """Its id in the data set."""
    reason: ForeignText
    """What is wrong with its file."""


class Failure(_Part, frozen=True):
    """Something that went wrong while the rest went on."""

    experiment: str
    """Name of the experiment."""
    model: str
    """Name of the model."""
    condition: ForeignText = ""
    """Which of the experiment's conditions; empty where nothing could be measured."""
    error: ForeignText
    """Kind and message of the error, on one line."""
    details: ForeignText = ""
    """The traceback."""


class ExperimentData(_Part, frozen=True):
    """What an experiment was measured on; some use other images than the study's, such as episodes made of them."""

    name: str = ""
    """Name of the data."""
    fingerprint: str
    """As in :class:`UsedData`."""
    precision: str = ""
    """As in the records: with the backend where it is not torch; empty where it is the run's."""
    published: str | None = None
    """As in :class:`UsedData`."""
    published_images: Count = 0
    """As in :class:`UsedData`."""
    answers: str = "all"
    """``all``, or ``data`` where models chose among the classes of the data: any of them, see ``answered``."""
    answered: Mapping[str, str] = {}
    """By a model's digest, as in the records: ``all`` too where the classes of the data are all of its outputs."""
    n_classes: Count = 0
    """How many classes these data have; 0 where labels did not count, or an earlier version wrote this."""
    among: Mapping[str, tuple[Count, Count]] = {}
    """By a model's digest: how many answers it chose among, and how many outputs it has."""
    labels: Mapping[str, str] = {}
    """By a model's digest, as in the records: the digest of which answer each class of the data is."""
    sets: Mapping[str, Mapping[str, str]] = {}
    """By a model's digest, where an experiment measures several data sets: by the name of each set, as in the records
    (``set_digest``), the digest of its images and of what they may be answered with."""

    def answers_of(self, weights: str) -> str:
        """Return among what a model chose, given by its digest, as in the records."""
        return self.answered.get(weights, self.answers)


class AskedImages(_Part, frozen=True):
    """Which images a study asked for.

    A limited study uses the images of the smallest keys, see :func:`ipvit.data.subset.select`.
    """

    which: Literal["all", "smallest keys", "listed"] = "all"
    """All of the data, those of the smallest keys, or those whose keys are listed beside the records."""

    up_to: str = Field(default="", pattern=r"^([0-9a-f]{16})?$")
    """The largest of the smallest keys, 16 hex digits; else empty."""
    parts: Annotated[int, Field(ge=0, le=9)] = 0
    """How many leading parts of an image's id, as ``fog/3/`` in ImageNet-C, do not count for its key."""


class Asked(_Part, frozen=True):
    """What the last study asked for of one experiment: tables show just that."""

    models: Mapping[str, Count]
    """By a model's digest: the place of its conditions in ``conditions``."""
    conditions: tuple[tuple[str, ...], ...]
    """Keys of conditions, as in the records."""
    images: AskedImages = AskedImages()
    """Which images, or other items."""
    n_images: Count
    """How many these are."""


class Hardware(_Part, frozen=True):
    """The machine."""

    machine: str
    """Kind of processor."""
    system: str = ""
    """Operating system."""
    cores: Count | None
    """Number of processor cores; None where the system does not say."""


class RunSummary(_Part, frozen=True):
    """What a reader is told of a run, or of several runs seen together."""

    status: Status
    """How the last call ended, or that it has not ended; ``failed`` where there are failures."""
    finished: str
    """When the last call ended, or was when this was written: date and time, ISO 8601, UTC."""
    seconds: Annotated[float, Field(ge=0, le=1e12)]
    """Length of the last call."""
    experiments: tuple[str, ...]
    """Names of what was measured, in this call or in an earlier one on the same data."""
    models: tuple[UsedModel, ...]
    """What was measured, in this call or in an earlier one on the same data."""
    data: UsedData
    """What was measured on, unless :class:`ExperimentData` says otherwise."""
    selected: Count = 0
    """Number of images that the study uses: fewer than the data set has where a limit or a shard leaves some out."""
    images_used: Count
    """Number of selected images that could be read."""
    limited: bool
    """Whether the study uses only some of the images."""
    skipped: tuple[SkippedImage, ...]
    """Selected images that could not be read."""
    failures: tuple[Failure, ...]
    """What went wrong in the last call."""
    notes: tuple[str, ...] = ()
    """What a reader should know of how the run went, in sentences."""
    left_out: tuple[str, ...] = ()
    """Which experiments were not measured on which models as these lack a capability, in sentences."""
    seed: Int64 | str
    """What everything random follows from; text where several runs have several."""
    precision: str
    """As in :class:`ipvit.core.run_config.RunConfig`."""
    device: str
    """Where the networks ran, in torch's words."""
    versions: Mapping[str, str | None]
    """Of Python and packages; None where one is not installed."""
    hardware: Hardware
    """The machine of the last call."""

    @property
    def zero_shot(self) -> tuple[str, ...]:
        """How the zero-shot models answer, in sentences for captions; those that answer alike together."""
        models: dict[str, list[str]] = {}
        for model in self.models:
            if model.texts is not None:
                models.setdefault(model.texts.in_words, []).append(model.name)
        return tuple(f"{', '.join(names)}: {told}" for told, names in models.items())

    @property
    def finished_well(self) -> bool:
        """Whether the last call came to its end, also where something failed on the way."""
        return self.status in ("done", "failed")


class Manifest(RunSummary, frozen=True):
    """What was run into one run folder."""

    format: Literal[1] = 1
    """Version of these keys; a file with another one is not read."""
    seed: Int64
    """What everything random follows from."""
    limit: Count | None
    """How many images at most were asked for; None for all."""
    batch_size: Count | None = None
    """Images at a time."""
    backend: str = "torch"
    """What computed logits and attention."""
    shard: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}/[1-9][0-9]{0,5}$")] | None = None
    """Which share of the images was measured, for example ``2/8``; None where there are no shards."""
    answer_space: Literal["all", "data"] | None = None
    """Among which answers the study lets models choose, as the data's protocol says where the user did not; None where
    an earlier version wrote this."""
    measured_in_this_call: Count = 0
    """Number of results (image x condition x model) that the last call measured; the others were on disk."""
    measured_before: str = ""
    """What the last call found on disk of what it was asked for, in words; empty where that was nothing."""
    asked: Mapping[str, Asked] = {}
    """What the last study asked for, by the name of the experiment; empty where an earlier version wrote this."""
    subjects: Mapping[str, ExperimentData] = {}
    """By the name of the experiment; see :meth:`subject`."""
    fingerprints: Mapping[str, str] = {}
    """Of data that the folder has records of, under other schemes than today's: the fingerprint under today's that the
    files had when this was written."""
    damaged: tuple[str, ...] = ()
    """Part files, below the run folder, that were damaged, put aside and measured again."""
    processes: Count = 1
    """Number of processes that measured together."""
    reused_runs: tuple[str, ...] = Field(default=(), alias="rests_on")
    """Other run folders that hold results of this study, which were not measured again."""
    merged: tuple[str, ...] = ()
    """The shards that were joined into this folder."""

    def marked(self) -> Manifest:
        """Return the same with names of models that say where weights are random; see :meth:`UsedModel.marked`."""
        return self.model_copy(update={"models": tuple(model.marked() for model in self.models)})

    def subject(self, experiment: str) -> ExperimentData:
        """Return what an experiment was measured on: the data of the run where nothing else is stated."""
        data = self.data
        usual = ExperimentData(
            name=data.name,
            fingerprint=data.fingerprint,
            published=data.published,
            published_images=data.published_images,
        )
        found = self.subjects.get(experiment, usual)
        return found if found.precision else found.model_copy(update={"precision": self.precision})
