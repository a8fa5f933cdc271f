"""The training loop: steps, validates, and leaves a state behind each epoch from which it continues exactly."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from timm.optim import create_optimizer_v2, list_optimizers  # pyright: ignore[reportPrivateImportUsage]
from timm.scheduler.scheduler_factory import create_scheduler_v2
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from ipvit.errors import InputError, did_you_mean
from ipvit.files import write_atomic
from ipvit.models.checkpoint import save_checkpoint
from ipvit.models.model import Model
from ipvit.perturb import seeding
from ipvit.training.images import TrainingImages, augment, training_batches, validation_batches
from ipvit.training.objective import Objective
from ipvit.training.recipe import Recipe, dump_recipe

STATE_FORMAT = 1


@contextmanager
def seeded(seed: int, *words: object) -> Iterator[None]:
    """Seed torch's generators from (seed, words) and put them back as they were afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(int(seeding.keys([""], "torch", seed, *words)[0] >> 1))
        yield


class Loop:
    """One training in one folder.

    Args:
        recipe: epochs, optimiser, schedule, augmentation, seed.
        model: what is trained and saved; its backbone's weights are fresh.
        objective: what is minimised.
        train: images the weights are fitted to.
        val: images that accuracy is measured on after each epoch; the best epoch is chosen by it.
        out: the folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Model,
        objective: Objective,
        train: TrainingImages,
        val: TrainingImages,
        out: Path,
        *,
        device: str = "auto",
    ) -> None:
        self.recipe, self.objective, self.train, self.val, self.out = recipe, objective, train, val, out
        self.accelerator = _accelerator(recipe.precision, device)
        rank, self._world = self.accelerator.process_index, self.accelerator.num_processes
        self._share = (rank, self._world)
        self.steps = len(train) // (recipe.batch_size * self._world)
        if self.steps == 0:
            raise InputError(
                f"{recipe.data.train} has {len(train)} images, fewer than one batch of {recipe.batch_size}"
            )
        model.to(self.accelerator.device)
        self.ema = recipe.ema and ModelEmaV3(model, decay=recipe.ema.decay, use_warmup=recipe.ema.warmup)
        if recipe.optimizer not in (known := [str(name) for name in list_optimizers()]):
            hint = did_you_mean(recipe.optimizer, known)
            raise InputError(f"timm has no optimizer {recipe.optimizer!r}.{hint}")
        optimizer = create_optimizer_v2(model, opt=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay)
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched=recipe.scheduler,
            num_epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,
            warmup_lr=recipe.lr / 100,
            min_lr=recipe.min_lr,
            step_on_epochs=False,
            updates_per_epoch=self.steps,
        )
        assert scheduler is not None  # only for a name timm does not know, and the recipe allows none of those
        self.scheduler = scheduler
        self.model = model
        self.wrapped, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.history: list[dict[str, Any]] = []

    def run(self, *, progress: bool = True) -> Path:
        """Train the epochs that are missing and return the best checkpoint's path."""
        self._restore()
        shown = progress and self.accelerator.is_main_process
        with _progress(shown) as bar:
            for epoch in range(len(self.history), self.recipe.epochs):
                task = bar.add_task(f"epoch {epoch + 1}/{self.recipe.epochs}", total=self.steps, loss="", speed="")
                row = self._train_epoch(epoch, bar, task)
                row["val_top1"] = self._accuracy()
                self.history.append(row)
                self._save()
                bar.update(task, loss=f"loss {row['loss']:.3f}  val top-1 {row['val_top1']:.1f} %")
        return self.out / "best.safetensors"

    # --- one epoch ---------------------------------------------------------------------------------------------------

    def _train_epoch(self, epoch: int, bar: Progress, task: TaskID) -> dict[str, Any]:
        recipe, total = self.recipe, torch.zeros((), device=self.accelerator.device)
        chosen = training_batches(len(self.train), recipe.batch_size, recipe.seed, epoch, *self._share)
        start = time.perf_counter()
        self.wrapped.train()
        with seeded(recipe.seed, "epoch", epoch, self._share[0]):
            for step, (images, labels, indices) in enumerate(self.train.batches(chosen)):
                images = augment(images, indices, recipe.augment, recipe.seed, epoch)
                total += self._step(images, labels, epoch * self.steps + step)
                bar.update(task, advance=1)
                if step % 20 == 19:  # reading the loss waits for the device
                    speed = (step + 1) * len(labels) * self._world / (time.perf_counter() - start)
                    bar.update(task, loss=f"loss {total.item() / (step + 1):.3f}", speed=f"{speed:.0f} images/s")
        loss, seconds = total.item() / self.steps, time.perf_counter() - start
        if not math.isfinite(loss):
            raise InputError(
                f"the loss became {loss} in epoch {epoch + 1}; lower lr ({recipe.lr:g}) or use precision: no"
            )
        return {
            "epoch": epoch + 1,
            "loss": loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "images_per_second": round(self.steps * recipe.batch_size * self._world / seconds, 1),
        }

    def _step(self, images: Tensor, labels: Tensor, step: int) -> Tensor:
        device = self.accelerator.device
        key = int(seeding.keys([str(step)], "step", self.recipe.seed, self._share[0])[0])
        self.scheduler.step_update(step)
        with self.accelerator.autocast():
            loss = self.objective.loss(self.wrapped, images.to(device).float() / 255, labels.to(device), key)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        if self.recipe.clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model, step=step)
        return loss.detach()

    @torch.no_grad()
    def _accuracy(self) -> float:
        """Return top-1 on the validation images, in per cent, of what is saved: the average where there is one."""
        model = self._saved_model.eval()
        device = self.accelerator.device
        right = torch.zeros((), device=device)
        for images, labels, _ in self.val.batches(validation_batches(len(self.val), 250, *self._share)):
            right += (model(images.to(device).float() / 255).argmax(1) == labels.to(device)).sum()
        return 100 * cast(Tensor, self.accelerator.reduce(right, "sum")).item() / len(self.val)

    # --- on disk -----------------------------------------------------------------------------------------------------

    @property
    def _saved_model(self) -> Model:
        return self.model if self.ema is None else self.ema.module

    def _save(self) -> None:
        """Write the epoch's files; the state comes last, so a crash before it only repeats the epoch."""
        if not self.accelerator.is_main_process:
            return
        row = self.history[-1]
        save_checkpoint(self.out / "last.safetensors", self._saved_model.backbone, self._metadata(row))
        if row["val_top1"] > max((earlier["val_top1"] for earlier in self.history[:-1]), default=-1):
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
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
            # Each epoch seeds its own generator, so the place in it is (seed, number of epochs): nothing else to keep.
            "seed": self.recipe.seed,
        }

    def _fingerprints(self) -> dict[str, str]:
        return {"train": self.train.data.fingerprint, "val": self.val.data.fingerprint}

    def _restore(self) -> None:
        """Continue from the folder's state if it holds one of this recipe, else begin the folder."""
        text, written = dump_recipe(self.recipe), self.out / "recipe.yaml"
        path = self.out / "state.pt"
        if written.exists() and written.read_text(encoding="utf-8") != text:
            raise InputError(f"{self.out} holds a training with another recipe (recipe.yaml); choose another folder")
        if not path.exists():
            if self.accelerator.is_main_process:
                write_atomic(written, text.encode())
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(f"{path}: not a readable training state; delete it to start over") from error
        if state["format"] != STATE_FORMAT:
            raise InputError(f"{path}: state format {state['format']!r}; this version continues {STATE_FORMAT}")
        if state["data"] != self._fingerprints():
            raise InputError(f"{path}: the data changed since this training began; choose another folder")
        self.history = state["history"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.accelerator.is_main_process:
            self._write_log()

    def _metadata(self, row: dict[str, Any]) -> dict[str, Any]:
        recipe, preprocessing = self.recipe, self.model.preprocessing
        return {
            "architecture": {"name": recipe.model.name, "kwargs": recipe.model.kwargs},
            "classes": list(self.model.classes or ()),
            "preprocessing": dataclasses.asdict(preprocessing.view)
            | {"mean": list(preprocessing.mean), "std": list(preprocessing.std)},
            "recipe": recipe.model_dump(mode="json"),
            "measured": {
                "data": recipe.data.val,
                "n": len(self.val),
                "top1": round(row["val_top1"], 3),
                "epoch": row["epoch"],
                "note": "best.safetensors is the epoch with the highest top-1 on these same images",
            },
        }


def _accelerator(precision: str, device: str) -> Accelerator:
    known = ("auto", "cpu", "cuda", "mps")
    if device not in known:
        raise InputError(f"unknown device {device!r}: expected {', '.join(known)}")
    # Accelerate keeps the first device and precision of a process for ever, but a second training may want others.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision)
    if device not in ("auto", accelerator.device.type):
        raise InputError(f"device {device!r} is not available here; found {accelerator.device.type!r}")
    return accelerator


def _progress(shown: bool) -> Progress:
    columns = ("{task.description}", BarColumn(), TimeRemainingColumn(), "{task.fields[speed]}", "{task.fields[loss]}")
    texts = [TextColumn(column) if isinstance(column, str) else column for column in columns]
    return Progress(*texts, console=Console(stderr=True), disable=not shown)
