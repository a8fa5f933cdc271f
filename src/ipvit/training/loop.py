"""The training loop: steps, validates, and leaves a state behind each epoch from which it continues exactly."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import torch
from accelerate import Accelerator
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from ipvit.core.files import write_atomic
from ipvit.core.memory import is_out_of_memory
from ipvit.core.terminal import Terminal
from ipvit.data.dataset import known_fingerprints
from ipvit.data.workers import explained
from ipvit.errors import FOREIGN_ERRORS, InputError, error_line
from ipvit.models.io.checkpoint import save_checkpoint
from ipvit.models.model import Model
from ipvit.models.wide_products import short_products
from ipvit.perturb import seeding
from ipvit.perturb.pixels import as_floats
from ipvit.training.images import TrainingImages, training_batches, validation_batches
from ipvit.training.objective import Objective
from ipvit.training.optimization import clip_gradients, fit_for_device, make_optimizer, set_weight_decay
from ipvit.training.reading import ImageBatch
from ipvit.training.recipe import Recipe, dump_recipe
from ipvit.training.state import STATE_FORMAT, going_on, other_machine, read_state, restore_optimizer


@contextmanager
def seeded(seed: int, *words: object) -> Iterator[None]:
    """Seed torch's generators from (seed, words) and put them back as they were afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(int(seeding.keys([""], "torch", seed, *words)[0] >> 1))
        yield


class Loop:
    """One training in one folder.

    Args:
        recipe: epochs, optimiser, schedule, seed.
        objective: what is minimised, and the model that is saved.
        train: images the weights are fitted to.
        val: unchanged images that are scored on after each epoch; the best epoch is chosen by it.
        out: the folder.
        accelerator: device, precision and processes; see :func:`~ipvit.training.optimization.make_accelerator`.
    """

    def __init__(
        self,
        recipe: Recipe,
        objective: Objective,
        train: TrainingImages,
        val: TrainingImages,
        out: Path,
        accelerator: Accelerator,
    ) -> None:
        self.recipe, self.objective, self.train, self.val, self.out = recipe, objective, train, val, out
        self.accelerator, self.model = accelerator, objective.model
        self._share = (accelerator.process_index, accelerator.num_processes)
        self.images_per_update = recipe.batch_size * recipe.accumulate * accelerator.num_processes
        self.steps = len(train) // self.images_per_update
        if self.steps == 0:
            raise InputError(
                f"{recipe.data.names[0]} has {len(train)} images, fewer than the {self.images_per_update} of one update"
            )
        objective.module.to(accelerator.device)
        fit_for_device(objective.module, accelerator)
        self.ema = recipe.ema and ModelEmaV3(self.model, decay=recipe.ema.decay, use_warmup=recipe.ema.warmup)
        optimizer, self.scheduler = make_optimizer(
            recipe, objective.module, self.steps, self.images_per_update, fused=accelerator.device.type == "cuda"
        )
        self.wrapped, self.optimizer = accelerator.prepare(objective.module, optimizer)
        if recipe.compile:
            self.wrapped = cast(torch.nn.Module, torch.compile(self.wrapped))
        objective.setup(accelerator, recipe.epochs, self.steps)
        self.history: list[dict[str, Any]] = []
        self.guard: Callable[[], None] = lambda: None  # called before an epoch is written

    def run(self, *, progress: bool = True) -> Path:
        """Train the epochs that are missing and return the best checkpoint's path."""
        try:
            self._restore()
        except (pickle.UnpicklingError, *FOREIGN_ERRORS) as error:
            if isinstance(error, InputError) or is_out_of_memory(error):
                raise
            lacking = isinstance(error, KeyError)
            what = f"it has no entry {error}" if lacking else error_line(error, named=True)
            raise InputError(
                f"{self.out / 'state.pt'}: not a readable training state ({what}); delete it to start over"
            ) from error
        self.objective.begin()
        if self.recipe.tracker is not None:
            self.accelerator.init_trackers("ipvit", config=json.loads(self.recipe.model_dump_json()))
        shown = progress and self.accelerator.is_main_process
        with _progress(shown) as bar, explained(self.train.data.name):
            whole = bar.add_task("training", total=self.recipe.epochs, completed=len(self.history), loss="", speed="")
            for epoch in range(len(self.history), self.recipe.epochs):
                task = bar.add_task(f"epoch {epoch + 1}/{self.recipe.epochs}", total=self.steps, loss="", speed="")
                row = self._train_epoch(epoch, bar, task)
                row |= self._scores()
                self.history.append(row)
                self._save()
                self.accelerator.log({key: value for key, value in row.items() if key != "epoch"}, step=epoch + 1)
                bar.update(task, visible=False)
                score = f"loss {row['loss']:.3f}  {self.objective.score_name} {row[self._chooser]:.1f} %"
                bar.update(whole, advance=1, loss=score)
        self.train.close()
        self.accelerator.end_training()
        return self.out / "best.safetensors"

    def say(self, text: str) -> None:
        """Tell the user something, once, on standard error."""
        if self.accelerator.is_main_process:
            Terminal(stderr=True, soft_wrap=True, highlight=False).print(text)

    def time_updates(self, n: int) -> list[float]:
        """Take the first updates of an epoch and return the seconds of each; nothing is written."""
        self.objective.begin()
        chosen = self._epoch(0)[: n * self.recipe.accumulate]
        batches, seconds = self.train.batches(chosen), []
        self.wrapped.train()
        for step in range(n):
            start = time.perf_counter()
            self._update(batches, 0, step).item()  # waits for the device
            seconds.append(time.perf_counter() - start)
        return seconds

    # --- one epoch ---------------------------------------------------------------------------------------------------

    def _train_epoch(self, epoch: int, bar: Progress, task: TaskID) -> dict[str, Any]:
        recipe, total = self.recipe, torch.zeros((), device=self.accelerator.device)
        good = torch.zeros_like(total)  # steps before the first whose loss was not finite
        chosen = self._epoch(epoch)
        start = time.perf_counter()
        self.wrapped.train()
        with seeded(recipe.seed, "epoch", epoch, self._share[0]):
            batches = self.train.batches(chosen, epoch)
            for step in range(self.steps):
                total += self._update(batches, epoch, epoch * self.steps + step)
                good += total.isfinite()  # a sum that is not finite stays so
                bar.update(task, advance=1)
                if step % 20 == 19:  # reading the loss waits for the device
                    self._check_loss(good, epoch, step)
                    speed = (step + 1) * self.images_per_update / (time.perf_counter() - start)
                    bar.update(task, loss=f"loss {total.item() / (step + 1):.3f}", speed=f"{speed:.0f} images/s")
        self._check_loss(good, epoch, self.steps - 1)
        self._check_weights(epoch)
        loss = cast(Tensor, self.accelerator.reduce(total, "mean")).item() / self.steps
        seconds = time.perf_counter() - start
        return {
            "epoch": epoch + 1,
            "loss": loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "images_per_second": round(self.steps * self.images_per_update / seconds, 1),
        }

    def _check_loss(self, good: Tensor, epoch: int, step: int) -> None:
        """Stop where the loss was not finite in any process: it would never be again, and nothing of it is saved."""
        steps = cast(Tensor, self.accelerator.gather(good.reshape(1))).min().item()
        if steps <= step:
            self._stop("the loss is not finite", epoch, f"step {int(steps) + 1} of {self.steps}")

    def _check_weights(self, epoch: int) -> None:
        """Stop where the last steps spoilt the weights though their losses were finite."""
        module = self.objective.module
        spoilt = [name for name, weight in module.named_parameters() if not bool(weight.isfinite().all())]
        spoilt += [name for name, buffer in module.named_buffers() if bool(buffer.isnan().any())]  # masks may be inf
        if spoilt:
            self._stop(f"{spoilt[0]} is not finite", epoch, "its last step")

    def _stop(self, what: str, epoch: int, where: str) -> NoReturn:
        kept = f"{str(self.out)!r} keeps epoch {epoch}" if epoch else "nothing was saved"
        raise InputError(
            f"{what} since epoch {epoch + 1}, {where}; {kept}: lower lr ({self.recipe.lr:g}) or use precision: no"
        )

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        """Return the sightings of each of this process's batches, ``accumulate`` of them an update."""
        recipe = self.recipe
        updates = training_batches(
            len(self.train),
            recipe.batch_size * recipe.accumulate,
            recipe.seed,
            epoch,
            *self._share,
            repeats=recipe.augment.repeats,
        )
        return [part for update in updates for part in np.split(update, recipe.accumulate)]

    def _update(self, batches: Iterator[ImageBatch], epoch: int, step: int) -> Tensor:
        """Take one step of the optimiser on the next ``accumulate`` batches and return their mean loss."""
        recipe = self.recipe
        self.scheduler.step_update(step)
        if recipe.weight_decay_end is not None:
            set_weight_decay(self.optimizer, recipe.weight_decay, recipe.weight_decay_end, step, self._updates)
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.accelerator.device)
        for part in range(recipe.accumulate):
            last = part == recipe.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                batch = next(batches)
                with self._short_products():
                    loss = self._loss(batch, epoch, step * recipe.accumulate + part) / recipe.accumulate
                    self.accelerator.backward(loss)
            total += loss.detach()
        self.objective.before_update(epoch)
        if recipe.clip_grad is not None and recipe.clip_mode == "norm":
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), recipe.clip_grad)
        elif recipe.clip_grad is not None:
            self.accelerator.unscale_gradients()
            clip_gradients(self.wrapped.parameters(), recipe.clip_grad, recipe.clip_mode)
        with self._short_products():
            self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model, step=step)
        self.objective.after_update(step)
        return total

    def _loss(self, batch: ImageBatch, epoch: int, number: int) -> Tensor:
        device = self.accelerator.device
        key = int(seeding.keys([str(number)], "step", self.recipe.seed, self._share[0])[0])
        views = [as_floats(view, device) for view in batch.views]
        views = self.objective.change(views, batch.keys)
        indices, labels = torch.from_numpy(batch.indices), batch.labels.to(device, non_blocking=True)
        with self.accelerator.autocast():
            return self.objective.loss(self.wrapped, views, labels, indices, key, epoch)

    def _short_products(self) -> AbstractContextManager[Any]:
        """Products of the formats of 16 bits that occur; Muon orthogonalises in bfloat16 whatever the precision is."""
        formats = {"bf16": {torch.bfloat16}, "fp16": {torch.float16}}.get(self.recipe.precision, set[torch.dtype]())
        muon = {torch.bfloat16} if "muon" in self.recipe.optimizer else set[torch.dtype]()
        return short_products(self.accelerator.device, formats | muon)

    @property
    def _updates(self) -> int:
        return self.recipe.epochs * self.steps

    def _scores(self) -> dict[str, float]:
        """Score what is saved: the average where there is one."""
        model = self._saved_model.eval()

        def val() -> Iterator[ImageBatch]:
            return self.val.batches(validation_batches(len(self.val), 250, *self._share))

        with self._short_products():
            scores = self.objective.scores(model, val, self.accelerator)
        return {f"val_{name}": value for name, value in scores.items()}

    @property
    def _chooser(self) -> str:
        """Name of the score that chooses the best epoch: the first one."""
        return next(name for name in self.history[-1] if name.startswith("val_"))

    # --- on disk -----------------------------------------------------------------------------------------------------

    @property
    def _saved_model(self) -> Model:
        return self.model if self.ema is None else self.ema.module

    def _save(self) -> None:
        """Write the epoch's files; the state comes last, so a crash before it only repeats the epoch."""
        if not self.accelerator.is_main_process:
            return
        self.guard()
        row = self.history[-1]
        save_checkpoint(self.out / "last.safetensors", self._saved_model.backbone, self._metadata(row))
        name = self._chooser
        if row[name] > max((earlier[name] for earlier in self.history[:-1]), default=-1):
            save_checkpoint(self.out / "best.safetensors", self._saved_model.backbone, self._metadata(row))
        content = io.BytesIO()
        torch.save({"format": STATE_FORMAT, "data": self._fingerprints(), **self._parts_state()}, content)
        write_atomic(self.out / "state.pt", content.getvalue())
        self._write_log()

    def _write_log(self) -> None:
        write_atomic(self.out / "log.jsonl", "".join(json.dumps(row) + "\n" for row in self.history).encode())

    def _parts_state(self) -> dict[str, Any]:
        return {
            "history": self.history,
            "module": self.objective.module.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "processes": self.accelerator.num_processes,
            "images_per_update": self.images_per_update,
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
            # Each epoch seeds its own generator, so the place in it is (seed, number of epochs): nothing else to keep.
            "seed": self.recipe.seed,
        }

    def _fingerprints(self) -> dict[str, str]:
        return {"train": self.train.data.fingerprint, "val": self.val.data.fingerprint}

    def _restore(self) -> None:
        """Continue from the folder's state if it holds one of this recipe, else begin the folder."""
        written, path = self.out / "recipe.yaml", self.out / "state.pt"
        if written.exists():
            for note in going_on(written, self.recipe):
                self.say(note)
        if not path.exists():
            if self.accelerator.is_main_process:
                write_atomic(written, dump_recipe(self.recipe).encode())
            return
        sets = {"train": self.train.data, "val": self.val.data}
        state = read_state(path, self.recipe, {part: known_fingerprints(data) for part, data in sets.items()})
        if note := other_machine(state, self.accelerator.num_processes, self.images_per_update):
            self.say(note)
        self.history = state["history"]
        self.objective.module.load_state_dict(state["module"])
        self.objective.load_state_dict(state["objective"])
        restore_optimizer(self.optimizer, state["optimizer"])  # the schedule is a function of recipe and updates
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.accelerator.is_main_process:
            write_atomic(written, dump_recipe(self.recipe).encode())
            self._write_log()

    def _metadata(self, row: dict[str, Any]) -> dict[str, Any]:
        recipe, preprocessing = self.recipe, self.model.preprocessing
        scores = {name.removeprefix("val_"): round(row[name], 3) for name in row if name.startswith("val_")}
        token = {"distillation_token": self.model.distillation_token} if len(scores) > 1 else {}
        return {
            "architecture": {"name": recipe.model.name, "kwargs": recipe.model.kwargs},
            "classes": list(self.model.classes or ()),
            "preprocessing": dataclasses.asdict(preprocessing.view)
            | {"mean": list(preprocessing.mean), "std": list(preprocessing.std)},
            **token,
            "recipe": recipe.model_dump(mode="json"),
            "measured": {
                "data": recipe.data.names[1],
                "n": len(self.val),
                **scores,
                "epoch": row["epoch"],
                "note": "best.safetensors is the epoch with the highest score on these same images",
            },
        }


def _progress(shown: bool) -> Progress:
    columns = ("{task.description}", BarColumn(), TimeRemainingColumn(), "{task.fields[speed]}", "{task.fields[loss]}")
    texts = [TextColumn(column) if isinstance(column, str) else column for column in columns]
    return Progress(*texts, console=Terminal(stderr=True), disable=not shown)
