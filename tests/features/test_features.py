"""The feature store: equal to a plain forward, computed once, whole after a kill."""

import random
import signal

import numpy as np
import pytest
import torch

import ipvit
from helpers.forks import python
from helpers.paths import TESTS
from helpers.plain_loops import photos, tiny_resnet, tiny_vit, wrapped
from helpers.tiny import write_images
from ipvit.core.preprocessing import View
from ipvit.errors import InputError
from ipvit.features.store import Features, FeatureSpec, FeatureStore, _Column, last_blocks, own_token


@pytest.fixture
def vit() -> ipvit.Model:
    return wrapped(tiny_vit())


def counted(model: ipvit.Model) -> list[int]:
    """Let a list grow by the size of every batch that the network sees."""
    assert model.can("tokens")  # which is tried once, before anything is counted
    seen: list[int] = []
    model.backbone.patch_embed.register_forward_hook(lambda _m, _a, out: seen.append(len(out)))
    return seen


def plain_tokens(model: ipvit.Model, data, image: int, block: int) -> torch.Tensor:
    """One image through the network by hand, stopped after a block."""
    net = model.backbone
    mean = torch.tensor(model.preprocessing.mean).view(1, 3, 1, 1)
    std = torch.tensor(model.preprocessing.std).view(1, 3, 1, 1)
    x = net.patch_embed((data.read(image)[None].float() / 255 - mean) / std)
    x = torch.cat([net.cls_token, x], dim=1) + net.pos_embed
    for layer in net.blocks[: block + 1]:
        x = layer(x)
    return net.norm(x)[0].detach()


def test_features_are_those_of_a_plain_forward(tmp_path, vit):
    data = photos(7)
    specs = [FeatureSpec(block, token) for block in range(3) for token in ("class", "mean_patch")]
    found = FeatureStore(tmp_path).extract(vit, data, specs, batch_size=3)
    for image in range(7):
        for block in range(3):
            tokens = plain_tokens(vit, data, image, block)
            assert torch.allclose(
                torch.from_numpy(found.matrix([FeatureSpec(block, "class")])[image]), tokens[0], atol=1e-5
            )
            patches = torch.from_numpy(found.matrix([FeatureSpec(block, "mean_patch")])[image])
            assert torch.allclose(patches, tokens[1:].mean(0), atol=1e-5)
    assert found.labels.tolist() == data.labels.tolist() and found.ids == tuple(data.ids)


def test_stages_of_a_cnn_are_means_over_places_and_the_last_one_enters_its_classifier(tmp_path):
    model, data = tiny_resnet(), photos(4, 64)
    assert own_token(model) == "pooled"
    found = FeatureStore(tmp_path).extract(model, data, last_blocks(model, 99))
    net = model.backbone
    images = torch.stack([data.read(i) for i in range(4)]).float() / 255
    x = net.maxpool(net.act1(net.bn1(net.conv1(model.normalize(images)))))
    for number, layer in enumerate((net.layer1, net.layer2, net.layer3, net.layer4)):
        x = layer(x)
        assert np.allclose(found.matrix([FeatureSpec(number, "pooled")]), x.mean(dim=(2, 3)).detach(), atol=1e-5)
    logits = net.fc(torch.from_numpy(found.matrix([FeatureSpec(4, "pooled")])))
    assert torch.allclose(logits, model(images), atol=1e-4)


def test_columns_stand_in_the_order_of_the_reads(tmp_path, vit):
    found = FeatureStore(tmp_path).extract(vit, photos(5), [FeatureSpec(0, "class"), FeatureSpec(-1, "mean_patch")])
    both = found.matrix([FeatureSpec(2, "mean_patch"), FeatureSpec(0, "class")], rows=np.array([3, 1]))
    assert both.shape == (2, 48) and both.dtype == np.float32
    assert np.array_equal(both[:, 24:], found.matrix([FeatureSpec(0, "class")])[[3, 1]])


def test_nothing_is_computed_twice_and_what_is_new_adds_only_itself(tmp_path, vit):
    data, store, seen = photos(8), FeatureStore(tmp_path), counted(vit)
    first = store.extract(vit, data, [FeatureSpec(2, "class")], positions=np.arange(0, 8, 2))
    assert sum(seen) == 4
    before = first.matrix([FeatureSpec(2, "class")]).copy()
    whole = store.extract(vit, data, [FeatureSpec(2, "class")])
    assert sum(seen) == 8, "the other half"
    assert np.array_equal(whole.matrix([FeatureSpec(2, "class")])[::2], before)
    store.extract(vit, data, [FeatureSpec(2, "class")], batch_size=1)
    assert sum(seen) == 8, "nothing"
    store.extract(vit, data, [FeatureSpec(2, "class"), FeatureSpec(1, "class")])
    assert sum(seen) == 16, "another block"
    assert np.array_equal(whole.matrix([FeatureSpec(2, "class")])[::2], before)


def test_another_view_normalisation_precision_type_data_or_weights_are_other_features(tmp_path, vit):
    data, store = photos(3), FeatureStore(tmp_path)
    specs = [FeatureSpec(1, "class")]
    store.extract(vit, data, specs)
    squashed = View((32, 32), 1.0, "bilinear", "squash")
    store.extract(vit, data, specs, view=squashed)
    store.extract(vit, data, specs, norm=False)
    store.extract(vit, data, specs, precision="bf16")
    store.extract(vit, photos(3, seed=1), specs)
    store.extract(wrapped(tiny_vit(seed=1)), data, specs)
    FeatureStore(tmp_path, dtype="fp16").extract(vit, data, specs)
    assert len(list(tmp_path.iterdir())) == 7


def test_half_precision_on_disk_rounds_and_never_overflows(tmp_path, vit):
    data = photos(4)
    exact = FeatureStore(tmp_path).extract(vit, data, [FeatureSpec(2, "class")]).matrix([FeatureSpec(2, "class")])
    half = (
        FeatureStore(tmp_path, dtype="fp16")
        .extract(vit, data, [FeatureSpec(2, "class")])
        .matrix([FeatureSpec(2, "class")])
    )
    assert not np.array_equal(exact, half) and np.allclose(exact, half, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        vit.backbone.norm.weight.mul_(1e7)
    vit.forget_digest()
    large = (
        FeatureStore(tmp_path, dtype="fp16")
        .extract(vit, data, [FeatureSpec(2, "class")])
        .matrix([FeatureSpec(2, "class")])
    )
    assert np.isfinite(large).all() and large.max() == 65504


def test_unreadable_images_are_left_out_and_named(tmp_path, vit):
    root = write_images(tmp_path / "images", per_class=2)
    (root / "c1" / "000.jpg").write_bytes(b"no image")
    found = FeatureStore(tmp_path / "store").extract(vit, ipvit.load_dataset(root), [FeatureSpec(0, "class")])
    assert list(found.unreadable) == ["c1/000.jpg"] and len(found) == 7 and "c1/000.jpg" not in found.ids
    assert found.labels.tolist() == [0, 0, 1, 2, 2, 3, 3]


def test_a_file_that_was_cut_short_is_computed_again(tmp_path, vit):
    data, store = photos(4), FeatureStore(tmp_path)
    before = store.extract(vit, data, [FeatureSpec(0, "class")]).matrix([FeatureSpec(0, "class")]).copy()
    (path,) = tmp_path.glob("*/block-00-class.npy")
    path.write_bytes(path.read_bytes()[:100])
    assert np.array_equal(store.extract(vit, data, [FeatureSpec(0, "class")]).matrix([FeatureSpec(0, "class")]), before)


READ = FeatureSpec(2, "class")


@pytest.mark.parametrize("kind", ["block-02-class.npy", "block-02-class.sums", "labels.npy", "labels.sums"])
def test_a_flipped_byte_is_noticed_and_its_image_computed_again(tmp_path, vit, kind):
    data, store = photos(6), FeatureStore(tmp_path)
    whole = store.extract(vit, data, [READ])
    before, labels = whole.matrix([READ]).copy(), whole.labels
    assert whole.notes == ()
    seen = counted(vit)
    (path,) = tmp_path.glob(f"*/{kind}")
    content = path.read_bytes()
    last = len(content) // 6 if kind.endswith("sums") else (len(content) - 128) // 6
    path.write_bytes(content[:-last] + bytes([content[-last] ^ 1]) + content[len(content) - last + 1 :])
    others = store.extract(vit, data, [READ], positions=np.arange(5))
    assert others.notes == () and sum(seen) == 0, "it is the last image's"
    found = store.extract(vit, data, [READ])
    assert found.notes == ("1 rows of the stored features of net were damaged; they were computed again",)
    assert np.array_equal(found.matrix([READ]), before) and np.array_equal(found.labels, labels)
    assert sum(seen) == (0 if kind.startswith("labels") else 1)
    assert store.extract(vit, data, [READ]).notes == ()


def test_whatever_stands_in_the_files_of_a_store_no_other_number_comes_out_of_it(tmp_path, vit):
    data, store, dice = photos(4), FeatureStore(tmp_path), random.Random(0)
    before = store.extract(vit, data, [READ]).matrix([READ]).copy()
    for _ in range(60):
        path = dice.choice([*tmp_path.glob("*/*.npy"), *tmp_path.glob("*/*.sums")])
        content = bytearray(path.read_bytes())
        for _ in range(dice.randint(1, 4)):
            place = dice.randrange(min(len(content), 128) if dice.random() < 0.5 else len(content))
            content[place : place + dice.choice((1, 1, 1, 0, 2))] = bytes([dice.randrange(256)])
        path.write_bytes(content)
        found = store.extract(vit, data, [READ])
        assert np.array_equal(found.matrix([READ]), before) and np.array_equal(found.labels, data.labels)


def test_a_store_without_checksums_is_computed_anew_without_a_word(tmp_path, vit):
    data, store = photos(4), FeatureStore(tmp_path)
    before = store.extract(vit, data, [READ]).matrix([READ]).copy()
    for path in tmp_path.glob("*/*.sums"):
        path.unlink()
    seen = counted(vit)
    found = store.extract(vit, data, [READ])
    assert found.notes == () and sum(seen) == 4 and np.array_equal(found.matrix([READ]), before)


def test_two_processes_that_make_the_same_array_at_once_lose_nothing(tmp_path, monkeypatch):
    """One has looked and found no file; before it makes one, the other makes its own and writes a row."""
    first, second = (_Column(tmp_path / "x", 3, np.dtype("<f4")) for _ in range(2))
    make = np.lib.format.open_memmap

    def late(*arguments, **options):
        monkeypatch.setattr(np.lib.format, "open_memmap", make)
        first.write(np.array([0]), np.ones((1, 2)))
        return make(*arguments, **options)

    monkeypatch.setattr(np.lib.format, "open_memmap", late)
    second.write(np.array([2]), np.full((1, 2), 2.0))
    first.commit()
    second.commit()
    found = _Column(tmp_path / "x", 3, np.dtype("<f4"))
    wanted = np.array([[1, 1], [0, 0], [2, 2]])
    assert found.check(np.arange(3)) == 0 and found.done.tolist() == [True, False, True]
    assert np.array_equal(found.values()[found.done], wanted[found.done])
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_block_that_is_not_there_is_named(tmp_path, vit):
    with pytest.raises(InputError, match="has blocks 0 to 2"):
        FeatureStore(tmp_path).extract(vit, photos(2), [FeatureSpec(3, "class")])
    with pytest.raises(InputError, match="no token 'register0'"):
        FeatureStore(tmp_path).extract(vit, photos(2), [FeatureSpec(0, "register0")])
    with pytest.raises(InputError, match="stored as"):
        FeatureStore(tmp_path, dtype="fp8")  # pyright: ignore[reportArgumentType]


KILLED = """\
import os, signal, sys
sys.path.insert(0, {tests!r})
from helpers.plain_loops import photos, tiny_vit, wrapped
from ipvit.features.store import FeatureStore, FeatureSpec
model, done = wrapped(tiny_vit()), []
def advance(n):
    done.append(n)
    if len(done) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
specs = [FeatureSpec(2, "class")]
FeatureStore({out!r}, flush_seconds=0).extract(model, photos(12), specs, batch_size=2, advance=advance)
"""


@pytest.mark.slow
def test_a_killed_extraction_goes_on_and_ends_with_the_same_numbers(tmp_path, vit):
    script = KILLED.format(tests=str(TESTS), out=str(tmp_path / "killed"))
    ended = python(["-c", script])
    assert ended.returncode == -signal.SIGKILL
    data, seen = photos(12), counted(vit)
    resumed = FeatureStore(tmp_path / "killed").extract(vit, data, [FeatureSpec(2, "class")], batch_size=2)
    assert 0 < sum(seen) <= 4, "four of the six batches were on disk, the fifth may have been"
    whole = FeatureStore(tmp_path / "whole").extract(vit, data, [FeatureSpec(2, "class")], batch_size=2)
    assert isinstance(whole, Features)
    assert np.array_equal(resumed.matrix([FeatureSpec(2, "class")]), whole.matrix([FeatureSpec(2, "class")]))
