"""``ipvit.run``: a study from Python."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from ipvit.core.files import LONGEST, path_component
from ipvit.core.manifest import Manifest
from ipvit.core.run_config import Answers, Backend, Precision, RunConfig, Tracker
from ipvit.core.terminal import Terminal
from ipvit.core.text.validation_messages import validated
from ipvit.core.trackers import check_tracker
from ipvit.data.dataset import Dataset
from ipvit.data.known_files import files_read_anew
from ipvit.data.loading import load_dataset
from ipvit.engine.arguments import folder as as_folder
from ipvit.engine.arguments import listed_experiments, listed_models
from ipvit.engine.distributed import ProcessGroup, launched
from ipvit.engine.folders.default_folder import default_folder
from ipvit.engine.folders.run_folder import shard_folder
from ipvit.engine.run import execute
from ipvit.engine.study import DataEntry, Study, study_text
from ipvit.engine.study_of_objects import text_of_objects
from ipvit.errors import InputError
from ipvit.experiments.base import BindContext, Experiment
from ipvit.models.loading import GivenNames, GivenPrompts, check_texts_used
from ipvit.models.model import Model
from ipvit.networks import models_named
from ipvit.report.tracking import log_tables
from ipvit.results import Run


def run(
    experiments: Experiment | Sequence[Experiment],
    *,
    models: Model | str | Sequence[Model | str],
    data: Dataset | str | Path,
    prompts: GivenPrompts | None = None,
    class_names: GivenNames | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    device: str = "auto",
    answers: Answers | None = None,
    precision: Precision = "fp32",
    backend: Backend = "torch",
    compile: bool = False,  # noqa: A002 - the name of the option everywhere
    join_conditions: bool = False,
    strict: bool = False,
    tracker: Tracker | None = None,
    shard: str | None = None,
    fresh: bool = False,
    verify: bool = False,
    no_cache: bool = False,
    everything: bool = False,
    progress: bool = True,
    flush_seconds: float = 10.0,
) -> Run:
    """Run experiments on models over one data set, or continue a run.

    In a script that ``torchrun`` or ``accelerate launch`` starts several times, the processes share the images out.
    What is already in the run folder is not measured again: call it again after an interruption, with more runs, more
    levels or more models.

    Args:
        experiments: one or several, for example ``ipvit.Occlusion(levels=(0, 0.5))``.
        models: names, or models from :func:`ipvit.load_model` and :func:`ipvit.wrap`.
        data: a name, or a data set from :func:`ipvit.load_dataset`.
        prompts: of the zero-shot models among the names, see :func:`ipvit.load_model`.
        class_names: likewise; by default the classes of the data.
        out: the run folder; by default ``runs/EXPERIMENT``, or a folder beside it where that belongs to other data or
            another answer space, seed, precision or limit.
        seed: everything random follows from it.
        limit: use that many images, the same ones every time.
        batch_size: images at a time (32 on a CPU, 256 on a GPU); halved by itself where memory runs out.
        workers: decoding processes.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        answers: ``all``: networks choose among all of their outputs; ``data``: among the classes of the data; by
            default as the data's published protocol says, else ``all``.
        precision: ``fp32``, ``tf32`` (GPUs of NVIDIA), ``bf16`` or ``fp16``.
        backend: what computes logits and attention: ``torch``, or ``openvino`` on a CPU.
        compile: run the networks through ``torch.compile``.
        join_conditions: let one pass take several conditions of a small batch, up to the batch size, in occlusion,
            shuffle, position, and corruptions that a GPU makes; last digits may differ.
        strict: make an unreadable image an error.
        tracker: log the tables to ``tensorboard`` (into the run folder) or ``wandb`` as well.
        shard: measure only this share of the images, for example ``2/8``, into a folder of its own below ``out``.
        fresh: put an earlier run folder aside and start over.
        verify: read every byte of the data's files; what was measured of other bytes, or without this, is measured
            again.
        no_cache: look at all files of the data again, and use nothing that was kept of earlier starts.
        everything: show all that the run folder holds on these data, not only what is asked for here.
        progress: show a progress bar.
        flush_seconds: results are written at least this often.

    Returns:
        The results: ``.tables``, ``.figures``, ``.records()``, ``.report()``.

    Raises:
        InputError: something given cannot be used; the message is one line.
    """
    chosen, listed = listed_experiments(experiments), listed_models(models)
    config = validated(
        RunConfig,
        {
            "seed": seed,
            "limit": limit,
            "batch_size": batch_size,
            "workers": workers,
            "device": device,
            "answers": answers,
            "precision": precision,
            "backend": backend,
            "compile": compile,
            "join_conditions": join_conditions,
            "strict": strict,
            "tracker": tracker,
            "shard": shard,
            "fresh": fresh,
            "verify": verify,
            "no_cache": no_cache,
            "everything": everything,
            "progress": progress,
            "flush_seconds": flush_seconds,
        },
    )
    names = "-".join(experiment.name for experiment in chosen)
    base = Path("runs") / path_component(names, most=LONGEST) if out is None else as_folder(out)
    check_tracker(config.tracker)
    with launched() as group, files_read_anew(config.no_cache):
        images = _opened_once(group, lambda: load_dataset(data)) if isinstance(data, str | Path) else load_dataset(data)
        networks = group.main_process_first(lambda: _networks(listed, images, prompts, class_names, config.device))
        folder, reused = _folder(base, images, config, group, default=out is None)
        text = text_of_objects(networks, images, chosen, config)
        manifest = execute(
            chosen,
            networks,
            images,
            folder,
            config,
            context=bind_context(),
            study_yaml=text,
            group=group,
            reused_runs=reused,
        )
    results = _results(folder, chosen, manifest, config, text, keep=group.is_main_process)
    if group.is_main_process:
        results.write_tables()
    return results


def run_study(study: Study, out: str | Path, *, default: bool = False) -> Run:
    """Run a study read by :func:`ipvit.engine.study.read_study`, see :func:`run`; its tables are not written.

    Args:
        study: with all options.
        out: the run folder.
        default: nobody has chosen this folder: where it belongs to other data, for example, another one is taken.
    """
    check_tracker(study.tracker)
    selected = study.make_experiments()
    experiments = [entry.experiment for entry in selected]
    entries = zip(study.experiments, experiments, strict=True)
    text = study_text(study.models, study.data, entries, study, texts=study.text_keys())
    with launched() as group, files_read_anew(study.no_cache):
        data = _opened_once(group, study.data.open)
        models = group.main_process_first(lambda: load_models(study, data))
        folder, reused = _folder(out, data, study, group, default=default)
        manifest = execute(
            selected,
            models,
            data,
            folder,
            study,
            context=bind_context(study.data),
            study_yaml=text,
            group=group,
            reused_runs=reused,
        )
    return _results(folder, experiments, manifest, study, text, keep=group.is_main_process)


def _opened_once(group: ProcessGroup, open_data: Callable[[], Dataset]) -> Dataset:
    """Open data in the first process; the others get its list of the images, and need not go through the files."""

    def check(data: Dataset) -> None:
        root = getattr(data, "root", None)
        if isinstance(root, Path) and not root.exists():
            raise InputError(f"{data.name}: {str(root)!r} is not there on every machine of this run")

    return group.done_once(open_data, check)


def _folder(
    out: str | Path, data: Dataset, config: RunConfig, group: ProcessGroup, *, default: bool
) -> tuple[Path, list[Path]]:
    """Return the run folder of this call, of all processes the same, and those whose results it need not measure."""
    whole, line = default_folder(Path(out), data, config) if default else (Path(out), "")
    (whole, *_) = group.collect(whole)  # what the first process found: it may write there before the others look
    if line and config.progress and group.is_main_process:
        Terminal(stderr=True).print(f"ipvit: {line}", highlight=False, soft_wrap=True)
    return shard_folder(whole, config.effective_shard)


def _results(
    folder: Path, experiments: Sequence[Experiment], manifest: Manifest, config: RunConfig, study: str, *, keep: bool
) -> Run:
    results = Run(folder, experiments, manifest, everything=config.everything)
    if keep:
        results.keep_last_runs()
        if config.tracker is not None:
            main = {name: (analysis, results.tables[name]) for name, analysis in results.analyses.items()}
            log_tables(config.tracker, folder, yaml.safe_load(study), main)
    return results


def load_study(study: Study) -> tuple[Dataset, list[Model]]:
    """Open the data of a study and load its models, see :func:`load_models`."""
    data = study.data.open()
    return data, load_models(study, data)


def load_models(study: Study, data: Dataset) -> list[Model]:
    """Load the models of a study, zero-shot models once for each set of prompts.

    Raises:
        InputError: something cannot be used, or prompts or class names are given and no model reads any.
    """
    context = bind_context(study.data)
    models: list[Model] = []
    for entry in study.models:
        found = models_named(
            entry.name,
            pretrained=entry.pretrained,
            label=entry.label,
            prompts=entry.prompts or study.prompts or (),
            class_names=entry.class_names or study.class_names or data,
            open_data=context.open_data,
            device=study.device,
            workers=study.workers,
        )
        check_texts_used(found, entry.prompts, entry.class_names)
        models += found
    check_texts_used(models, study.prompts, study.class_names)
    return models


def _networks(
    given: Sequence[Model | str],
    data: Dataset,
    prompts: GivenPrompts | None,
    class_names: GivenNames | None,
    device: str,
) -> list[Model]:
    sets = () if prompts is None else (prompts,)
    loaded = [
        models_named(one, prompts=sets, class_names=data if class_names is None else class_names, device=device)
        if isinstance(one, str)
        else [one]
        for one in given
    ]
    models = [model for found in loaded for model in found]
    check_texts_used(models, prompts, class_names)
    return models


def bind_context(entry: DataEntry | None = None) -> BindContext:
    """Return what experiments may use to open further data: as a study opens its own."""
    if entry is None:
        return BindContext(load_dataset)
    options = {"root": entry.root, "decoder": entry.decoder, "classes": entry.classes}
    return BindContext(functools.partial(load_dataset, **options))
