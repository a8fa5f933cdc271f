"""``ipvit.run``: a study from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ipvit.data import load_dataset
from ipvit.data.dataset import Dataset
from ipvit.engine.distributed import Share, launched
from ipvit.engine.run import execute, shard_folder
from ipvit.engine.store import FLUSH_SECONDS
from ipvit.engine.study import DataEntry, ExperimentEntry, ModelEntry, Study, study_text
from ipvit.engine.sweep import Settings
from ipvit.errors import InputError, shown
from ipvit.experiments.base import Experiment
from ipvit.files import LONGEST, path_component
from ipvit.models.loading import load_model
from ipvit.models.model import Model
from ipvit.results import Run


def run(
    experiments: Experiment | Sequence[Experiment],
    *,
    models: Model | str | Sequence[Model | str],
    data: Dataset | str | Path,
    out: str | Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "fp32",
    backend: str = "torch",
    compile: bool = False,  # noqa: A002 - the name of the option everywhere
    strict: bool = False,
    shard: str | None = None,
    fresh: bool = False,
    progress: bool = True,
    flush_seconds: float = FLUSH_SECONDS,
) -> Run:
    """Run experiments on models over one data set, or continue a run.

    In a script that ``torchrun`` or ``accelerate launch`` starts several times, the processes share the images out.
    What is already in the run folder is not measured again: call it again after an interruption, with more runs, more
    levels or more models.

    Args:
        experiments: one or several, for example ``ipvit.Occlusion(levels=(0, 0.5))``.
        models: names, or models from :func:`ipvit.load_model` and :func:`ipvit.wrap`.
        data: a name, or a data set from :func:`ipvit.load_dataset`.
        out: the run folder; ``runs/EXPERIMENT`` by default.
        seed: everything random follows from it.
        limit: use that many images, the same ones every time.
        batch_size: images at a time (32 on a CPU, 256 on a GPU); halved by itself where memory runs out.
        workers: decoding processes.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        backend: what computes logits and attention: ``torch``, or ``openvino`` on a CPU.
        compile: run the networks through ``torch.compile``.
        strict: make an unreadable image an error.
        shard: measure only this share of the images, for example ``2/8``, into a folder of its own below ``out``.
        fresh: put an earlier run folder aside and start over.
        progress: show a progress bar.
        flush_seconds: results are written at least this often.

    Returns:
        The results: ``.tables``, ``.figures``, ``.records()``, ``.report()``.

    Raises:
        InputError: something given cannot be used; the message is one line.
    """
    chosen = [experiments] if isinstance(experiments, Experiment) else list(experiments)
    listed = [models] if isinstance(models, Model | str) else list(models)
    if not chosen or not listed:
        raise InputError("at least one experiment and one model are needed")
    for name, value, least in (("limit", limit, 1), ("batch_size", batch_size, 1), ("workers", workers, 0)):
        if value is not None and value < least:
            raise InputError(f"{name} must be at least {least}, not {value}")
    if not isinstance(seed, int) or not -(2**63) <= seed < 2**63:  # what a column of the records holds
        raise InputError(f"seed must be a whole number from {-(2**63)} to {2**63 - 1}, not {shown(seed)}")
    folder = (
        Path(out)
        if out is not None
        else Path("runs") / path_component("-".join(experiment.name for experiment in chosen), most=LONGEST)
    )
    share = Share.parse(shard) if shard else Share()
    settings = Settings(seed, limit, batch_size, workers, device, precision, backend, compile, strict, share)
    with launched() as team:
        images = team.in_turn(lambda: load_dataset(data))
        networks = team.in_turn(lambda: [load_model(m) if isinstance(m, str) else m for m in listed])
        study = Study.model_construct(
            models=[ModelEntry(name=model.name) for model in networks],
            data=DataEntry(name=images.name),
            experiments=[ExperimentEntry(name=experiment.name) for experiment in chosen],
            seed=seed,
            limit=limit,
            precision=precision,
            backend=backend,  # pyright: ignore[reportArgumentType]
        )
        folder, known = shard_folder(folder, share)
        manifest = execute(
            chosen, networks, images, folder, settings,
            study_yaml=study_text(study, chosen), fresh=fresh, progress=progress, flush_seconds=flush_seconds,
            team=team, known=known,
        )  # fmt: skip
    return Run(folder, chosen, manifest)


def run_study(
    study: Study, out: str | Path, *, shard: str | None = None, fresh: bool = False, progress: bool = True
) -> Run:
    """Run a study read by :func:`ipvit.engine.study.read_study`; see :func:`run`."""
    experiments = study.make_experiments()
    share = Share.parse(shard) if shard else Share()
    with launched() as team:
        data, models = team.in_turn(lambda: load_study(study))
        folder, known = shard_folder(Path(out), share)
        manifest = execute(
            experiments, models, data, folder, settings_of(study, share),
            study_yaml=study_text(study, experiments), fresh=fresh, progress=progress, team=team, known=known,
        )  # fmt: skip
    return Run(folder, experiments, manifest)


def load_study(study: Study) -> tuple[Dataset, list[Model]]:
    """Open the data of a study and load its models."""
    entry = study.data
    data = load_dataset(entry.name, root=entry.root, split=entry.split, decoder=entry.decoder, classes=entry.classes)  # pyright: ignore[reportArgumentType]
    return data, [load_model(m.name, pretrained=m.pretrained, label=m.label) for m in study.models]


def settings_of(study: Study, share: Share) -> Settings:
    """Return how a study is run."""
    return Settings(
        study.seed, study.limit, study.batch_size, study.workers, study.device, study.precision, study.backend,
        study.compile, study.strict, share,
    )  # fmt: skip
