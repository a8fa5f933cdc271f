"""The probe experiment: what is fitted on what, what is chosen where, and heads as models of their own."""

import json

import numpy as np
import polars as pl
import pytest
import torch

import ipvit
from helpers.comparison import printed
from helpers.plain_loops import CLASSES, coloured, heads_in, photos, probed, salience, tiny_resnet, tiny_vit, wrapped
from helpers.plain_loops import quiet_vit as vit
from ipvit.data.dataset import MemoryDataset
from ipvit.errors import InputError
from ipvit.experiments.probe import analysis as probe_tables
from ipvit.experiments.probe import fit as probe_fit
from ipvit.experiments.probe.fit import held_out
from ipvit.models.io.probe_head import read_probe, save_probe, with_probe
from ipvit.report import comparison
from ipvit.testing import check_adapter


def test_separable_images_are_all_read_right_and_shuffled_labels_are_not(tmp_path):
    table = probed(tmp_path / "a").tables["probe"]
    fitted = table.filter(pl.col("head") == "lbfgs")
    assert fitted.height == 2 * (3 + 1) and (fitted["top1"] == 100).all()
    data = coloured(200, 1, shuffled=True)
    fields = {"penalties": (0.01, 1.0), "last": (), "tokens": ("class",)}
    table = probed(tmp_path / "b", data=data, train=coloured(shuffled=True), **fields).tables["probe"]
    assert (table["top1_low"] < 25).all() and (table["top1_high"] > 25).all()


@pytest.mark.parametrize("head", ["sgd", "adamw"])
def test_heads_by_gradient_steps_read_them_too(tmp_path, head):
    table = probed(tmp_path, heads=(head,), batch=16, epochs=10, last=("all",), tokens=("class",)).tables["probe"]
    assert (table["head"] == head).all() and (table["top1"] == 100).all()


def test_every_answer_is_that_of_the_saved_head_on_tokens_read_by_hand(tmp_path):
    model, data = vit(), photos(6)
    run = probed(tmp_path, model, data, last=("2",), heads=("lbfgs",))
    images = torch.stack([data.read(i) for i in range(6)]).float() / 255
    with torch.no_grad():
        tokens = [
            model.backbone.norm(x)
            for x in model.backbone.forward_intermediates(
                model.normalize(images),
                return_prefix_tokens=True,
                output_fmt="NLC",
                intermediates_only=True,
                norm=False,
            )
            for x in [torch.cat([x[1], x[0]], dim=1)]
        ]
    read = {
        "0-class": tokens[0][:, 0],
        "2-class+patch": torch.cat([tokens[2][:, 0], tokens[2][:, 1:].mean(1)], dim=1),
        "1-2-class": torch.cat([tokens[1][:, 0], tokens[2][:, 0]], dim=1),
        "1-2-class+patch": torch.cat(
            [tokens[1][:, 0], tokens[2][:, 0], tokens[1][:, 1:].mean(1), tokens[2][:, 1:].mean(1)], dim=1
        ),
    }
    records = run.records("probe").sort("image")
    for name, vectors in read.items():
        head = read_probe(heads_in(tmp_path)[f"{name}-lbfgs"])
        probability = (vectors @ head.weight.T + head.bias).softmax(dim=1)
        blocks, _, kind = name.rpartition("-")
        rows = records.filter(pl.col("blocks") == blocks, pl.col("tokens") == kind)
        assert rows["prediction"].to_list() == probability.argmax(dim=1).tolist()
        assert np.allclose(rows["confidence"], probability.amax(dim=1), atol=1e-4)


def test_the_networks_own_head_stands_on_every_block_and_on_the_last_one_says_what_the_network_says(tmp_path):
    model, data = vit(), photos(6)
    run = ipvit.run(ipvit.Probe(), models=model, data=data, out=tmp_path, workers=0, progress=False)
    records = run.records("probe").sort("image")
    assert set(records["head"]) == {"own"} and sorted(set(records["block"])) == [0, 1, 2]
    images = torch.stack([data.read(i) for i in range(6)]).float() / 255
    assert records.filter(pl.col("block") == 2)["prediction"].to_list() == model(images).argmax(1).tolist()
    first = model.backbone.head(model.tokens(images, [0])[0].prefix_tokens["class"])
    assert records.filter(pl.col("block") == 0)["prediction"].to_list() == first.argmax(1).tolist()


def test_the_own_head_is_asked_for_the_classes_of_the_data_in_the_networks_order(tmp_path):
    model = vit()
    model.classes = tuple(reversed(CLASSES))
    data = photos(8)
    run = probed(tmp_path, model, data, last=(), tokens=("class",))
    own = run.records("probe").filter(pl.col("head") == "own", pl.col("block") == 2).sort("image")
    logits = model(torch.stack([data.read(i) for i in range(8)]).float() / 255)
    assert own["correct"].to_list() == (logits.argmax(1) == torch.from_numpy(3 - data.labels)).tolist()


def test_stages_of_a_cnn_are_read_and_its_own_head_on_the_last_one_only(tmp_path):
    run = probed(tmp_path, tiny_resnet(), coloured(12, 1, 64), train=coloured(40, 0, 64))
    table = run.tables["probe"]
    assert set(table["tokens"]) == {"pooled"}
    assert table.filter(pl.col("head") == "own")["blocks"].to_list() == ["4"]
    assert table.filter(pl.col("head") == "lbfgs")["blocks"].to_list() == ["0", "1", "2", "3", "4", "1-4", "0-4"]
    assert (table.filter(pl.col("blocks") == "4", pl.col("head") == "lbfgs")["top1"] == 100).all()


def test_batch_norm_stays_as_it_is(tmp_path):
    model = tiny_resnet()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    for protocol in ("ours", "authors"):
        probed(tmp_path / protocol, model, coloured(12, 1, 64), train=coloured(20, 0, 64), protocol=protocol)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_the_test_images_decide_nothing(tmp_path):
    """Two runs that share training data and network alone end with the same heads, to the last bit."""
    probed(tmp_path / "a", data=coloured(24, 1))
    probed(tmp_path / "b", data=coloured(40, 2, shuffled=True))
    first, second = heads_in(tmp_path / "a"), heads_in(tmp_path / "b")
    assert first.keys() == second.keys() and len(first) == 8
    for name in first:
        assert first[name].read_bytes() == second[name].read_bytes() and first[name].name == second[name].name
    best = [next((tmp_path / run).glob("probes/*/best.safetensors")).read_bytes() for run in "ab"]
    assert best[0] == best[1]


def test_hyper_parameters_are_those_that_are_best_on_the_validation_images(tmp_path):
    """Images that say little, so that each penalty answers otherwise: the choice must be recomputable."""
    train, val = coloured(40, shuffled=True), coloured(40, 1, shuffled=True)
    penalties = (1e-2, 1.0, 100.0)
    probed(tmp_path, train=train, val=val, penalties=penalties, refit=False, last=(), tokens=("class",))
    alone = {}
    for penalty in penalties:
        probed(
            tmp_path / str(penalty), train=train, val=val, penalties=(penalty,), refit=False, last=(), tokens=("class",)
        )
        alone[penalty] = {name: read_probe(path) for name, path in heads_in(tmp_path / str(penalty)).items()}
    assert len({head.fit["validation"] for heads in alone.values() for head in heads.values()}) > 1
    for name, path in heads_in(tmp_path).items():
        fit = read_probe(path).fit
        assert fit["validation"] == max(heads[name].fit["validation"] for heads in alone.values())
        assert fit["validation"] == alone[fit["settings"]["penalty"]][name].fit["validation"]
        assert fit["validation_images"] == 40 and fit["train_images"] == 40


def test_the_refit_uses_all_images_and_without_it_the_held_out_ones_stay_out(tmp_path):
    for refit, images in ((True, 48), (False, 36)):
        probed(tmp_path / str(refit), refit=refit, validation=0.25)
        fit = read_probe(heads_in(tmp_path / str(refit))["2-class-lbfgs"]).fit
        assert (fit["train_images"], fit["validation_images"], fit["refit"]) == (images, 12, refit)


def test_held_out_images_are_a_share_of_every_class_and_follow_from_their_names():
    labels = np.array([0] * 10 + [1] * 5 + [2] + [-1] * 3)
    ids = [f"image {i}" for i in range(19)]
    chosen = held_out(ids, labels, 0.2)
    assert [int(chosen[labels == label].sum()) for label in (0, 1, 2, -1)] == [2, 1, 0, 0]
    order = np.random.default_rng(0).permutation(19)
    again = held_out([ids[i] for i in order], labels[order], 0.2)
    assert np.array_equal(again, chosen[order])
    assert held_out(ids, labels, 0.99).sum() == 9 + 4


def test_a_second_call_computes_nothing_and_another_ensemble_adds_only_itself(tmp_path, monkeypatch):
    train, data, model = coloured(), coloured(24, 1), vit()
    first = probed(tmp_path, model, data, train=train, last=("2",)).records("probe")
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*-lbfgs-*.safetensors")}
    seen = []
    # a run first tries a network on two made-up pictures
    model.backbone.patch_embed.register_forward_hook(lambda _, given, __: seen.extend([1] * (len(given[0]) > 2)))
    again = probed(tmp_path, model, data, train=train, last=("2",))
    assert not seen and again.records("probe").equals(first)
    more = probed(tmp_path, model, data, train=train, last=("2", "all"))
    assert len(seen) == 1, "the test images, for the new heads; the training features were there"
    assert more.records("probe").height == first.height + 2 * 24
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())


def test_a_run_that_died_while_fitting_goes_on_and_ends_with_the_same_records(tmp_path, monkeypatch):
    whole = probed(tmp_path / "whole").records("probe")
    written = []

    def dies(path, head):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        save_probe(path, head)

    monkeypatch.setattr(probe_fit, "save_probe", dies)
    with pytest.raises(KeyboardInterrupt):
        probed(tmp_path / "died")
    monkeypatch.undo()
    assert len(heads_in(tmp_path / "died")) == 3
    assert probed(tmp_path / "died").records("probe").equals(whole)


def test_other_training_images_are_another_result(tmp_path):
    probed(tmp_path, last=(), tokens=("class",), heads=("lbfgs",))
    run = probed(tmp_path, train=coloured(40, 5), last=(), tokens=("class",), heads=("lbfgs",))
    table = ipvit.Run(run.out, everything=True).tables["probe"]
    assert table.height == 6 and table["fit"].n_unique() == 2 and run.tables["probe"].height == 3


def test_the_authors_recipe_squashes_reads_the_last_blocks_patches_and_chooses_nothing(tmp_path):
    wide = MemoryDataset(photos(20, (32, 64))._images, np.arange(20) % 4, CLASSES, ids=[f"w{i}" for i in range(20)])
    run = probed(tmp_path, data=photos(8, (32, 64), seed=4), train=wide, protocol="authors", last=("2",))
    table = run.tables["probe"].filter(pl.col("head") != "own")
    assert set(table["head"]) == {"adamw"} and set(table["tokens"]) == {"class", "class+last_patch"}
    assert run.tables["probe-heads"]["validation"].null_count() == table.height
    head = read_probe(heads_in(tmp_path)["1-2-class+last_patch-adamw"])
    assert [str(read) for read in head.specs] == ["block-01-class", "block-02-class", "block-02-mean_patch"]
    assert (head.view.crop_mode, head.view.interpolation, head.view.size) == ("squash", "bilinear", (32, 32))
    assert head.fit["settings"] == {"learning_rate": 5e-4, "weight_decay": 0.05} and head.fit["train_images"] == 20
    assert not list(tmp_path.glob("probes/*/best.safetensors"))
    with pytest.raises(ValueError, match="leaves no choice of heads"):
        ipvit.Probe(train="x", protocol="authors", heads=("lbfgs",))


def test_what_several_blocks_gain_is_counted_on_the_same_images(tmp_path):
    run = probed(tmp_path, data=photos(40, seed=3), train=photos(40, seed=2), last=("2",), heads=("lbfgs",))
    records = run.records("probe")
    right = {
        (blocks, tokens): rows.sort("image")["correct"].to_numpy().astype(float)
        for (blocks, tokens), rows in records.group_by("blocks", "tokens")
    }
    gains = run.tables["probe-gain"]
    assert set(gains.select("blocks", "tokens").rows()) == {
        ("2", "class+patch"),
        ("1-2", "class"),
        ("1-2", "class+patch"),
    }
    for row in gains.to_dicts():
        difference = 100 * (right[row["blocks"], row["tokens"]] - right["2", "class"]).mean()
        assert row["difference"] == pytest.approx(difference)
        assert row["difference_low"] <= difference <= row["difference_high"]


def test_the_papers_numbers_stand_beside_those_of_its_own_networks(tmp_path, monkeypatch):
    model, images = wrapped(tiny_vit()), coloured(8, seed=3)
    model.origin = ("deit_small_patch16_224", True)
    monkeypatch.setattr(comparison, "published_size", lambda _: model.image_size)
    run = probed(tmp_path / "photos", model, data=images, heads=("own",))
    assert "probe-paper" not in run.tables, "other images than the paper's"
    images.ids = [f"n01440764/ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(images) + 1)]
    run = probed(tmp_path / "validation", model, data=images, heads=("own",))
    paper = run.tables["probe-paper"]
    assert paper.filter(blocks="11")["top1"].to_list() == [79.8] and set(paper["data"]) == {"ImageNet"}
    assert "(paper)" in json.dumps(run.figures["probe-blocks"].to_dict())
    birds = printed("probe", "deit_small").filter(pl.col("data") == "CUB", pl.col("source") == "P")
    assert birds.filter(pl.col("blocks") == "8-11", pl.col("tokens") == "class")["top1"].to_list() == [73.58]


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("cub:birds/train", ["CUB"]),
        ("/data/CUB_200_2011", ["CUB"]),
        ("inaturalist2019:x/minitrain", ["iNat"]),
        ("flowers102:x/train", ["Flowers"]),
        ("/data/coordinates/incubator", []),  # inat and cub inside of words
    ],
)
def test_our_data_are_the_papers_where_a_word_of_the_name_begins_as_its_name(name, theirs):
    known = pl.DataFrame({"data": ["CUB", "Flowers", "iNat", "Places365"]})
    assert known.filter(probe_tables._named(pl.col("data"), name))["data"].to_list() == theirs


def test_a_probed_backbone_without_classifier_is_a_model_for_every_experiment(tmp_path):
    backbone, data = salience(), coloured(16, 1)
    probed(tmp_path, backbone, data, train=coloured(), heads=("lbfgs",), last=("2",))
    model = with_probe(backbone, read_probe(heads_in(tmp_path)["1-2-class+patch-lbfgs"]))
    assert model.classes == tuple(CLASSES)
    experiments = [
        ipvit.Shuffle(grids=("2x2",)),
        ipvit.FeatureDrop(blocks=(0, 2), rates=(0.5,)),
        ipvit.Occlusion(modes=("random",), levels=(0.0, 0.5), grid="4x4", removal="tokens", runs=1),
        ipvit.Correlation(levels=(0.5,), grid="4x4"),
        ipvit.Attention(grid="4x4") if "grid" in ipvit.Attention.model_fields else ipvit.Attention(),
        ipvit.Position(),
    ]
    run = ipvit.run(experiments, models=model, data=data, out=tmp_path / "all", workers=0, progress=False)
    assert not run.manifest.failures
    assert run.tables["shuffle"].filter(pl.col("cells") == 1)["top1"].to_list() == [100.0]


@pytest.mark.parametrize("norm", [True, False])
def test_a_probed_network_keeps_the_contract_of_adapters(norm, tmp_path):
    probed(tmp_path, model=vit(), last=("2",), heads=("lbfgs",), penalties=(0.01,), norm=norm)
    heads = heads_in(tmp_path)
    for name in ("2-class-lbfgs", "0-class-lbfgs", "1-2-class-lbfgs", "2-class+patch-lbfgs"):
        model = with_probe(vit(), read_probe(heads[name]))
        check_adapter(model)
        alone = norm and name == "2-class-lbfgs"
        assert model.adapter.head_kinds == (("class",) if alone else ())
        if not alone:
            words = "reads block-0.*, not a 'class' alone" if norm else "without normalisation, not a 'class' alone"
            with pytest.raises(InputError, match=words):
                model.classify(torch.zeros(1, 24))


@pytest.mark.parametrize("make", [vit, tiny_resnet], ids=["vit", "cnn"])
def test_features_that_are_lost_before_a_block_are_missing_from_there_on_and_not_before(make, tmp_path):
    backbone = make()
    size = backbone.image_size[0]
    probed(tmp_path, backbone, coloured(8, 1, size), train=coloured(24, 0, size), heads=("lbfgs",))
    count = backbone.adapter.n_blocks
    kind = "class+patch" if count == 3 else "pooled"
    head = read_probe(heads_in(tmp_path)[f"0-{count - 1}-{kind}-lbfgs"])
    model, images = with_probe(backbone, head), torch.rand(2, 3, size, size)
    whole = backbone.tokens(images, range(count))
    assert torch.allclose(model(images), head(whole), atol=1e-5)
    for block in range(count):
        state = model.run_to_block(images, block)
        keep = torch.rand(2, *state.grid) > 0.5
        assert torch.allclose(model.run_from_block(model.drop(state, torch.ones_like(keep))), model(images), atol=1e-5)
        dropped = backbone.drop(backbone.run_to_block(images, block), keep)
        with backbone.adapter.resumed(dropped) as given:
            after = backbone.adapter.tokens(given, range(block, count), True)
        mixed = {**{b: whole[b] for b in range(block)}, **after}
        assert torch.allclose(model.run_from_block(model.drop(state, keep)), head(mixed), atol=1e-5)


def test_patches_that_never_enter_are_missing_from_the_means(tmp_path):
    backbone = vit()
    probed(tmp_path, backbone, heads=("lbfgs",))
    model = with_probe(backbone, read_probe(heads_in(tmp_path)["0-2-class+patch-lbfgs"]))
    images, keep = torch.rand(2, 3, 32, 32), torch.zeros(2, 16, dtype=torch.bool)
    assert torch.allclose(model.without_patches(images, ~keep), model(images), atol=1e-5)
    keep[:, :7] = True
    net = backbone.backbone
    x = net._pos_embed(net.patch_embed(backbone.normalize(images)))[:, :8]
    tokens = []
    for block in net.blocks:
        x = block(x)
        tokens.append(net.norm(x))
    vector = torch.cat([t[:, 0] for t in tokens] + [t[:, 1:].mean(1) for t in tokens], dim=1)
    head = read_probe(heads_in(tmp_path)["0-2-class+patch-lbfgs"])
    assert torch.allclose(model.without_patches(images, keep), vector @ head.weight.T + head.bias, atol=1e-4)


def test_a_head_on_other_weights_is_refused_in_one_line(tmp_path):
    probed(tmp_path)
    with pytest.raises(InputError, match=r"fitted on .* has other weights") as caught:
        with_probe(vit(seed=1), read_probe(heads_in(tmp_path)["2-class-lbfgs"]))
    assert "\n" not in str(caught.value)


def test_of_equally_good_heads_the_summary_names_the_one_in_the_file(tmp_path):
    run = probed(tmp_path, heads=("sgd", "lbfgs"), learning_rates=(0.1,), last=("2", "all"))
    heads = run.tables["probe-heads"].filter(pl.col("validation") == 100)
    (best,) = tmp_path.glob("probes/*/best.safetensors")
    assert heads.height > 1 and len(read_probe(best).specs) == 1
    (sentence,) = (text for text in run.summary_of("probe") if "best.safetensors" in text)
    read = read_probe(best).specs[0]
    assert f"reads {read.token} of block {read.block};" in sentence


def test_a_class_that_no_head_knows_is_named(tmp_path):
    data = MemoryDataset(photos(8)._images, np.arange(8) % 4, ["c0", "c1", "c2", "mouse"])
    with pytest.raises(InputError, match="'mouse'"):
        probed(tmp_path, data=data)


def test_a_network_that_breaks_while_features_are_read_fails_alone(tmp_path):
    broken = vit()
    broken.name = "broken"
    with torch.no_grad():
        broken.backbone.head.weight.add_(1)
    broken.backbone.blocks[1].register_forward_hook(lambda _, __, out: None if len(out) == 2 else 1 / 0)
    run = ipvit.run(
        ipvit.Probe(train=coloured(), last=()),
        models=[broken, vit()],
        data=coloured(8, 1),
        out=tmp_path,
        workers=0,
        progress=False,
    )
    assert [failure.model for failure in run.manifest.failures] == ["broken"]
    assert set(run.tables["probe"]["model"]) == {"vit"}


@pytest.mark.slow
def test_a_real_backbone_is_read_as_a_plain_logistic_regression_reads_it(real, tmp_path):
    """A few real images through EfficientNet-Lite0: far above chance with twenty a class."""
    model = ipvit.load_model(f"tf_efficientnet_lite0@{real / 'efficientnet_lite0.safetensors'}")
    experiment = ipvit.Probe(train=real / "cifar10-train.tar", train_limit=200, blocks=(-1,), last=(), heads=("lbfgs",))
    run = ipvit.run(experiment, models=model, data=real / "cifar10-test.tar", limit=100, out=tmp_path, progress=False)
    assert run.tables["probe"]["top1_low"][0] > 30
