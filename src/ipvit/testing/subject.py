"""An experiment together with the models and the data that it is tried on."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ipvit.api import run
from ipvit.core.run_config import RunConfig
from ipvit.data.dataset import Dataset
from ipvit.errors import InputError
from ipvit.experiments.base import Experiment
from ipvit.models.model import Model
from ipvit.results import Run
from ipvit.testing.contract import ContractError, no_error, require


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is tried.

    Attributes:
        experiment: the plug-in.
        models: the networks; some may lack what it requires.
        data: the images.
        rounding: how far a number may be off in another batch.
        folder: for run folders, gone afterwards.
    """

    experiment: Experiment
    models: tuple[Model, ...]
    data: Dataset
    rounding: float
    folder: Path

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self.experiment).__name__

    @property
    def able(self) -> list[Model]:
        """The models that offer what it requires."""
        wanted = self.experiment.requirements.capabilities
        return [model for model in self.models if all(map(model.can, wanted))]

    @property
    def config(self) -> RunConfig:
        """How it is run."""
        return RunConfig(workers=0, device=str(self.models[0].device), progress=False)

    def run(self, folder: str, **options: Any) -> Run:
        """Run it, or go on with a run.

        Args:
            folder: name of the run folder.
            options: of :func:`ipvit.run`, where they differ from the subject's.

        Raises:
            ContractError: it is refused, or something fails.
        """
        with no_error(f"{self.name}: a run"), self.accepted():
            found = self.attempt(folder, **options)
        for failure in found.manifest.failures:
            where = f" under {failure.condition}" if failure.condition else ""
            error = ContractError(f"{self.name} fails on {failure.model}{where}: {failure.error}")
            error.add_note(failure.details)
            raise error
        return found

    @contextlib.contextmanager
    def accepted(self) -> Iterator[None]:
        """Require that what runs inside is not refused.

        Raises:
            ContractError: it is.
        """
        try:
            yield
        except InputError as error:
            raise ContractError(
                f"{self.name} cannot be run on these models and data: {error} (other models or data can be given)"
            ) from error

    def attempt(self, folder: str, **options: Any) -> Run:
        """Run it as :meth:`run` does, but let errors and failures be.

        Raises:
            InputError: it is refused.
        """
        config = self.config
        settings: dict[str, Any] = {
            "models": self.models,
            "data": self.data,
            "device": config.device,
            "workers": config.workers,
            "progress": config.progress,
        }
        return run(self.experiment, out=self.folder / folder, **(settings | options))

    def require(self, kept: object, sentence: str) -> None:
        """Require a promise of it; see :func:`ipvit.testing.contract.require`.

        Raises:
            ContractError: it is not kept.
        """
        require(kept, f"{self.name}: {sentence}")
