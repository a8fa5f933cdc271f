"""What is not a finite number is told of and never averaged silently, in every experiment and in training."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor

import ipvit
from helpers.command_line import complaint
from helpers.plain_loops import CLASSES, wrapped
from helpers.training import tiny_recipe
from helpers.whole_study import SETTINGS
from ipvit.cli import main
from ipvit.data.dataset import MemoryDataset
from ipvit.errors import InputError
from ipvit.experiments.registry import BUILT_IN, make_experiment
from ipvit.training import objective, start
from ipvit.training.loop import Loop
from ipvit.training.recipe import dump_recipe

SICK = (2, 7)
"""The images that the networks here answer with what is no number; the only ones with bright dots."""


def photos(n: int = 12, sick: tuple[int, ...] = SICK, seed: int = 0) -> MemoryDataset:
    """Dark images, a few of them with bright dots, with a mask each."""
    rng = torch.Generator().manual_seed(seed)
    dark = torch.nn.functional.interpolate(torch.rand(n, 3, 4, 4, generator=rng), (32, 32), mode="bilinear") * 90
    pixels = dark + torch.rand(n, 3, 32, 32, generator=rng) * 10
    for i in sick:
        pixels[i, :, ::4, ::4] = 250
    masks = torch.zeros(n, 32, 32, dtype=torch.uint8)
    masks[:, 8:24, 8:24] = 1
    labels = np.arange(n) % 4
    return MemoryDataset(
        pixels.to(torch.uint8),
        labels,
        CLASSES,
        ids=[f"{seed}/{i:02d}" for i in range(n)],
        masks=masks,
        fields={"shape": labels, "texture": (labels + 1) % 4},
    )


def dotted(images: Tensor) -> Tensor:
    """Whether more than one pixel in a hundred is white; neither attacks nor noise make an image so."""
    return (images.detach().amin(dim=1) > 0.9).float().mean(dim=(1, 2)) > 0.01


def network(where: str = "tokens") -> ipvit.Model:
    """A transformer whose tokens become NaN, or whose logits become infinite, on the images with bright dots.

    It has a class and a distillation token.
    """
    torch.manual_seed(0)
    net = VisionTransformerDistilled(
        img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=4
    ).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    seen: list[Tensor] = []

    def look(_module, inputs, tokens: Tensor) -> Tensor:
        seen[:] = [dotted(inputs[0])]
        return tokens.masked_fill(seen[0][:, None, None], math.nan) if where == "tokens" else tokens

    def spoil(_module, _inputs, logits: Tensor) -> Tensor:
        return logits.masked_fill(seen[0][:, None], math.inf) if where == "logits" else logits

    net.patch_embed.register_forward_hook(look)
    net.head.register_forward_hook(spoil)
    return wrapped(net, mean=(0, 0, 0), std=(1, 1, 1))


MORE = {
    "occlusion": {"salience": None, "salience_head": None, "grid": "4x4", "fill": "black"},
    "correlation": {"grid": "4x4"},
    "shape-bias": {"stimuli": None},
    "attack": {"patch_images": 6},
    "corruptions": {"corruptions": ("shot_noise", "brightness"), "severities": (1,)},
}
"""What the settings of the whole study do not fit here."""

OF_TOKENS = ("correlation", "stability", "attention", "token-similarity", "segment", "fewshot")
"""Experiments that do not look at logits."""


def measured(name: str, out: Path, sick: tuple[int, ...] = SICK, where: str = "tokens") -> ipvit.Run:
    settings = SETTINGS[name] | MORE.get(name, {})
    if name == "occlusion":
        settings = {key: value for key, value in settings.items() if "salience" not in key} | {"modes": ("random",)}
    if name == "probe":
        settings["train"] = photos(24, (3, 10) if sick else (), seed=5)
    if name == "shift":
        settings = {"sets": (photos(8, sick=(1,) if sick else (), seed=6),)}
    return ipvit.run(
        make_experiment(name, settings),
        models=network(where),
        data=photos(sick=sick),
        out=out,
        workers=0,
        batch_size=5,
        progress=False,
    )


def told(run: ipvit.Run, name: str) -> str:
    """Return all that a run says of its numbers, beside them."""
    skipped = [entry.reason for entry in run.manifest.skipped]
    return "\n".join([*run.notes[name], *run.manifest.notes, *skipped])


QUICK = ("accuracy", "occlusion", "shuffle", "position")
EACH = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BUILT_IN]


@pytest.mark.parametrize("where", ["tokens", "logits"])
@pytest.mark.parametrize("name", EACH)
def test_every_experiment_says_so_and_averages_the_rest(name, where, tmp_path):
    run, healthy = measured(name, tmp_path / "sick", where=where), measured(name, tmp_path / "healthy", sick=())
    assert ("not finite" in told(run, name)) == (where == "tokens" or name not in OF_TOKENS), told(run, name)
    assert "not finite" not in told(healthy, name)
    assert not run.manifest.failures and not healthy.manifest.failures
    for key, table in run.tables.items():
        # where few images have one value, nothing says how others vary: there is no interval
        for column in table.select(pl.selectors.float() - pl.selectors.ends_with("_low", "_high")).columns:
            values = table[column].drop_nulls()
            assert not values.is_infinite().any(), (key, column)
            assert values.is_nan().sum() <= healthy.tables[key][column].is_nan().sum(), (key, column)
    for sentence in [*run.summary_of(name), run.report().read_text()]:
        assert not re.search(r"\b(nan|inf)\b", re.sub(r"<script.*?</script>", "", sentence, flags=re.DOTALL))


NOT_ALONE = ("probe", "fewshot", "attack", "stability")
"""Experiments in which the other images are fitted, drawn, trained on or compared with too."""


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name not in NOT_ALONE])
def test_one_image_that_is_not_finite_changes_no_other_image(name, tmp_path):
    bad = [*(photos().ids[i] for i in SICK), "6/01"]
    image = pl.col("image").cast(pl.String).str.replace("^[0-9a-f]{12}/", "")  # which set, where there are several
    found, alone = (
        measured(name, tmp_path / word, sick).records(name).with_columns(image).filter(~pl.col("image").is_in(bad))
        for word, sick in (("sick", SICK), ("healthy", ()))
    )
    of_the_set = ("data", "model", "weights", "set_digest", "condition")  # the last holds the one before
    columns = [column for column in found.columns if column not in of_the_set]
    assert found.height and found.select(columns).sort(columns).equals(alone.select(columns).sort(columns))


def test_a_prediction_that_is_not_finite_counts_as_wrong_and_not_as_the_first_class(tmp_path):
    run = measured("accuracy", tmp_path)
    records = run.records("accuracy").filter(token="class").sort("image")
    assert [place for place, said in enumerate(records["prediction"]) if said == -1] == list(SICK)
    assert not records.filter(prediction=-1)["correct"].any()
    (row,) = run.tables["accuracy"].filter(token="class").to_dicts()
    assert row["n_images"] == 12 and row["top1"] == pytest.approx(100 * records["correct"].mean())


def test_attacks_start_from_what_is_finite_and_leave_the_rest_wrong(tmp_path):
    records = measured("attack", tmp_path).records("attack").filter(pl.col("attack").is_in(["clean", "fgsm", "pgd"]))
    bad = records.filter(pl.col("image").cast(pl.String).is_in([photos().ids[i] for i in SICK]))
    assert bad.height == 6 and set(bad["prediction"]) == {-1} and not bad["correct"].any()


def test_probes_are_fitted_without_what_is_not_finite_and_say_so(tmp_path):
    run = measured("probe", tmp_path)
    assert set(run.tables["probe-heads"]["train_images"]) == {22}
    (note,) = run.manifest.notes
    assert note.startswith("2 images of memory were left out of the fit of net's heads, for example '5/03': ")


def test_the_terminal_and_json_say_so_too(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = photos()
    for i in range(12):
        path = Path(f"images/{CLASSES[i % 4]}/{i:02d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.read(i).permute(1, 2, 0).numpy()).save(path)
    Path("nets.py").write_text("from test_not_finite import network\n")
    command = ["accuracy", "--model", "nets.py:network", "--data", "images", "--workers", "0", "--out", "run"]
    assert main(command) == 0
    words = "nets.py:network: 6 predictions were not finite numbers; they count as wrong."
    assert f"note: {words}" in " ".join(capsys.readouterr().out.split())
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == {"accuracy": [words]}


# --- training --------------------------------------------------------------------------------------------------------


def not_finite_at(step: int, monkeypatch, value: float = math.nan) -> None:
    """Make the loss no number from an update on, counted over all epochs from 0."""
    loss = Loop._loss

    def spoilt(self, batch, epoch, number):
        return loss(self, batch, epoch, number) * (value if number >= step else 1)

    monkeypatch.setattr(Loop, "_loss", spoilt)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_training_stops_where_the_loss_is_not_finite_and_keeps_the_epoch_before(
    tmp_path, small_sets, monkeypatch, value
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        not_finite_at(8 + 4, patch, value)
        with pytest.raises(InputError) as error:
            start.train(tiny_recipe(), out, device="cpu", progress=False)
    assert str(error.value) == (
        f"the loss is not finite since epoch 2, step 5 of 8; {str(out)!r} keeps epoch 1: lower lr (0.001) or use "
        "precision: no"
    )
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1]
    for name in ("best", "last"):
        assert all(weight.isfinite().all() for weight in load_file(out / f"{name}.safetensors").values())
    start.train(tiny_recipe(), out, device="cpu", progress=False)
    start.train(tiny_recipe(), tmp_path / "whole", device="cpu", progress=False)
    assert (out / "last.safetensors").read_bytes() == (tmp_path / "whole" / "last.safetensors").read_bytes()


def test_training_does_not_go_on_for_long_where_the_loss_is_not_finite(tmp_path, small_sets, monkeypatch):
    steps, update = [], Loop._update

    def counted(self, batches, epoch, step):
        steps.append(step)
        return update(self, batches, epoch, step)

    monkeypatch.setattr(Loop, "_update", counted)
    not_finite_at(3, monkeypatch)
    with pytest.raises(InputError, match=r"since epoch 1, step 4 of 32; nothing was saved: "):
        start.train(tiny_recipe(batch_size=2), tmp_path / "out", device="cpu", progress=False)
    assert len(steps) == 20 and not list(tmp_path.glob("out/*.safetensors"))


def test_weights_that_the_last_step_spoilt_are_not_saved(tmp_path, small_sets, monkeypatch):
    update = Loop._update

    def spoiling(self, batches, epoch, step):
        loss = update(self, batches, epoch, step)
        if step == 15:  # the last of the second epoch
            next(self.objective.module.parameters()).data[0] = math.nan
        return loss

    monkeypatch.setattr(Loop, "_update", spoiling)
    with pytest.raises(InputError, match=r"is not finite since epoch 2, its last step; .* keeps epoch 1: "):
        start.train(tiny_recipe(), tmp_path / "out", device="cpu", progress=False)
    assert all(weight.isfinite().all() for weight in load_file(tmp_path / "out" / "last.safetensors").values())


def test_the_command_says_it_in_one_line(tmp_path, small_sets, monkeypatch, capsys):
    (tmp_path / "r.yaml").write_text(dump_recipe(tiny_recipe()))
    not_finite_at(0, monkeypatch)
    assert main(["train", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert complaint(capsys).startswith("ipvit: the loss is not finite since epoch 1, step 1 of 8; nothing was saved")


def test_validation_counts_what_is_not_finite_as_wrong():
    class Answers:
        distillation_token = None

        def can(self, capability: str) -> bool:
            return False

        def __call__(self, images: Tensor) -> Tensor:
            return torch.tensor([[math.nan, 1.0], [1.0, 0.0], [math.inf, 0.0], [0.0, 1.0]])

    class Batch:
        views = (torch.zeros(4, 3, 2, 2, dtype=torch.uint8),)
        labels = torch.tensor([0, 0, 0, 0])

    model: Any = Answers()
    batch: Any = Batch()
    scores = objective.accuracies(model, lambda: [batch], Accelerator(cpu=True))
    assert scores == {"top1": 25.0}
