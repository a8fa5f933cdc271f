"""Zero-shot models of open_clip and transformers: their answers are the libraries' own, and traps are sprung here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ipvit
import ipvit.testing
from helpers.zero_shot import (
    SIZE,
    WORDS,
    clip_folder,
    gemma_tokenizer,
    open_clip_folder,
    open_clip_siglip_folder,
    siglip_folder,
)
from ipvit.errors import InputError
from ipvit.models.loading import load_models
from ipvit.models.sources.huggingface_zero_shot import canonical
from ipvit.models.sources.timm import zero_shot_of
from ipvit.models.zero_shot.texts import OPENAI80, names_of, names_of_data, prompts_of

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

PROMPTS = ["a photo of a {}", "a bad photo of many {}", "the {} in a video game"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ipvit" / "texts"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    return {
        "open_clip CLIP": f"open_clip:{open_clip_folder(root / 'a')}",
        "open_clip SigLIP": f"open_clip:{open_clip_siglip_folder(root / 'b')}",
        "transformers CLIP": f"transformers:{clip_folder(root / 'c')}",
        "transformers SigLIP": f"transformers:{siglip_folder(root / 'd')}",
        "transformers SigLIP 2": f"transformers:{siglip_folder(root / 'e', gemma_tokenizer)}",
    }


ALL = ["open_clip CLIP", "open_clip SigLIP", "transformers CLIP", "transformers SigLIP", "transformers SigLIP 2"]


def pictures(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def loaded(name: str, **given: Any) -> Any:
    return ipvit.load_model(name, **given)


def place(name: str) -> str:
    return name.partition(":")[2]


# open_clip ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["open_clip CLIP", "open_clip SigLIP"])
def test_logits_are_those_of_open_clips_own_zero_shot_classifier(folders: dict[str, str], kind: str) -> None:
    model = loaded(folders[kind], prompts=PROMPTS, class_names=list(WORDS))
    own = open_clip.create_model(f"local-dir:{place(folders[kind])}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{place(folders[kind])}")
    classifier = open_clip.build_zero_shot_classifier(own, tokenizer, WORDS, PROMPTS)
    images = pictures()
    with torch.no_grad():
        features = own.encode_image(model.normalize(images), normalize=True)
        logits = own.logit_scale.exp() * features @ classifier
        logits = logits if own.logit_bias is None else logits + own.logit_bias
        torch.testing.assert_close(model(images), logits, rtol=1e-4, atol=1e-5)
    assert model.classes == WORDS


def test_the_preprocessing_is_that_of_the_models_own_configuration(folders: dict[str, str]) -> None:
    clip, siglip = (loaded(folders[kind]).preprocessing for kind in ALL[:2])
    assert (clip.mean, clip.view.crop_mode, clip.view.crop_pct) == ((0.48, 0.46, 0.41), "center", 1.0)
    assert (siglip.mean, siglip.view.crop_mode) == ((0.5, 0.5, 0.5), "squash")


def test_published_weights_bring_their_own_preprocessing_and_gelu() -> None:
    from ipvit.models.sources.open_clip import _quick_gelu, _stated

    stated = _stated("ViT-B-16-SigLIP2", None, strict=True)
    assert stated is not None
    assert (stated["mean"], stated["resize_mode"]) == ((0.5, 0.5, 0.5), "squash")
    assert _quick_gelu("ViT-B-32", "openai")  # the architecture alone says no
    assert not _quick_gelu("ViT-B-32", "laion2b_s34b_b79k")
    with pytest.raises(InputError, match="give open_clip:ViT-B-32/laion2b_s34b_b79k"):
        _quick_gelu("ViT-B-32-quickgelu", "laion2b_s34b_b79k")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("open_clip:ViT-B-32", r"which weights of open_clip:ViT-B-32\?.*laion2b_s34b_b79k"),
        ("open_clip:ViT-B-32/laion2b", r"knows no weights 'laion2b' of ViT-B-32"),
        ("open_clip:ViT-B-33/openai", r"knows no architecture 'ViT-B-33'.*Did you mean.*ViT-B-32/openai"),
        ("open_clip:ViT-B-32/openai?trust=1", "takes no 'trust'"),
        ("open_clip:ViT-B-32/openai", "cannot (fetch|download)|could not be"),
    ],
)
def test_names_that_cannot_be_loaded_say_what_would_be_right(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        loaded(name)


# transformers ---------------------------------------------------------------------------------------------------------


def own_logits(name: str, texts: list[str], images: torch.Tensor, **more: Any) -> torch.Tensor:
    """The model's own ``logits_per_image``, its texts padded to the length that it was trained with."""
    own = transformers.AutoModel.from_pretrained(place(name)).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place(name))
    length = own.config.text_config.max_position_embeddings
    tokens = tokenizer(texts, **({"padding": "max_length", "max_length": length} | more), return_tensors="pt")
    with torch.no_grad():
        return own(input_ids=tokens["input_ids"], pixel_values=images).logits_per_image


@pytest.mark.parametrize("kind", ALL[2:])
def test_logits_are_the_models_own_logits_per_image(folders: dict[str, str], kind: str) -> None:
    names = [words.lower() for words in WORDS]
    model = loaded(folders[kind], class_names=names)
    images = pictures()
    own = own_logits(folders[kind], [f"a photo of a {words}" for words in names], model.normalize(images))
    torch.testing.assert_close(model(images), own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["transformers SigLIP", "transformers SigLIP 2"])
def test_siglip_reads_lower_case_without_punctuation(folders: dict[str, str], kind: str) -> None:
    """Gemma's tokenizer tells letters of either case apart, and CLIP's prompts end in full stops."""
    plain = loaded(folders[kind], prompts="a photo of a {}", class_names=["saint bernard", "school bus"])
    loud = loaded(folders[kind], prompts="A photo of a {}.", class_names=["Saint_Bernard", "School-bus!"])
    same = loaded(folders[kind], prompts="A photo of a {}.", class_names=["Saint_Bernard", "School bus!"])
    torch.testing.assert_close(same(pictures()), plain(pictures()))
    assert not torch.allclose(loud(pictures())[:, 1], plain(pictures())[:, 1])  # big_vision makes one word of it
    assert canonical("A photo of a School-bus!") == "a photo of a schoolbus"


def test_canonical_texts_are_those_of_the_published_code() -> None:
    from open_clip.tokenizer import canonicalize_text  # a port of big_vision's

    for text in ("A photo of a {Saint_Bernard}.", "  Jack-o'-lantern,  \t(many)!", "café ÉTÉ", "plain"):
        assert canonical(text) == canonicalize_text(text)


@pytest.mark.parametrize("kind", ["transformers SigLIP", "transformers SigLIP 2"])
def test_siglip_is_padded_to_its_full_length_and_sees_no_mask(folders: dict[str, str], kind: str) -> None:
    """What leaves the padding out, or masks it, answers something else: the text tower was trained to read it."""
    names = ["school bus", "tabby cat"]
    model = loaded(folders[kind], class_names=names)
    texts, images = [f"a photo of a {words}" for words in names], model.normalize(pictures())
    assert not torch.allclose(model(pictures()), own_logits(folders[kind], texts, images, padding="longest"))
    own = transformers.AutoModel.from_pretrained(place(folders[kind])).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place(folders[kind]))
    tokens = tokenizer(texts, padding="max_length", max_length=64, return_tensors="pt")
    mask = (tokens["input_ids"] != tokenizer.pad_token_id).long()
    with torch.no_grad():
        masked = own(input_ids=tokens["input_ids"], attention_mask=mask, pixel_values=images).logits_per_image
    assert not torch.allclose(model(pictures()), masked)


def test_the_length_is_the_text_towers_where_the_tokenizer_states_none(folders: dict[str, str]) -> None:
    """SigLIP 2's tokenizer states no length, so ``padding="max_length"`` alone pads nothing."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(place(folders["transformers SigLIP 2"]))
    assert tokenizer.model_max_length > 1e20
    assert "padded to 64 tokens" in loaded(folders[ALL[4]], class_names=["a", "b"]).texts.prepared


def test_siglips_logits_have_its_scale_and_its_bias(folders: dict[str, str]) -> None:
    """Their sigmoids are small, for every class: that is the bias, and no fault."""
    model = loaded(folders["transformers SigLIP"], class_names=list(WORDS))
    own = transformers.AutoModel.from_pretrained(place(folders["transformers SigLIP"]))
    with torch.no_grad():
        scale, bias = float(own.logit_scale.exp()), float(own.logit_bias)
    cosines = (model(pictures()) - bias) / scale
    assert cosines.abs().max() <= 1
    assert cosines.std() > 1e-4
    assert model(pictures()).sigmoid().max() < 0.99


def test_siglip_2_of_variable_resolution_is_refused_by_name(tmp_path: Path) -> None:
    config = transformers.Siglip2Config(architectures=["Siglip2Model"])
    config.save_pretrained(tmp_path / "naflex")
    with pytest.raises(InputError, match=r"variable resolution \(NaFlex\).*siglip2-base-patch16-224"):
        loaded(f"transformers:{tmp_path / 'naflex'}")


def test_a_classifier_made_of_a_clip_is_no_zero_shot_model(folders: dict[str, str], tmp_path: Path) -> None:
    config = transformers.CLIPConfig.from_pretrained(place(folders["transformers CLIP"]), num_labels=3)
    transformers.CLIPForImageClassification(config).save_pretrained(tmp_path / "classifier")
    preprocessor = Path(place(folders["transformers CLIP"])) / "preprocessor_config.json"
    (tmp_path / "classifier" / "preprocessor_config.json").write_text(preprocessor.read_text())
    model = loaded(f"transformers:{tmp_path / 'classifier'}")
    assert (model.n_outputs, model.texts) == (3, None)
    with pytest.raises(InputError, match="prompts are for zero-shot models"):
        loaded(f"transformers:{tmp_path / 'classifier'}", prompts=OPENAI80)


# texts ----------------------------------------------------------------------------------------------------------------


def test_a_class_is_told_by_the_mean_of_unit_vectors_and_not_by_the_mean_of_answers(folders: dict[str, str]) -> None:
    """How several prompts are put together is worth points of accuracy: each text counts alike, then the mean."""
    model = loaded(folders["transformers CLIP"], prompts=PROMPTS, class_names=["tabby cat", "school bus"])
    own = transformers.AutoModel.from_pretrained(place(folders["transformers CLIP"])).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place(folders["transformers CLIP"]))
    image = model.normalize(pictures(1))
    with torch.no_grad():
        directions = []
        for words in ("tabby cat", "school bus"):
            units = []
            for prompt in PROMPTS:
                tokens = tokenizer(prompt.replace("{}", words), return_tensors="pt")
                states = own.text_model(**tokens).pooler_output
                vector = own.text_projection(states)[0]
                units.append(vector / vector.norm())
            mean = torch.stack(units).mean(0)
            directions.append(mean / mean.norm())
        seen = own.visual_projection(own.vision_model(pixel_values=image).pooler_output)[0]
        expected = own.logit_scale.exp() * torch.stack(directions) @ (seen / seen.norm())
    torch.testing.assert_close(model(pictures(1))[0], expected, rtol=1e-4, atol=1e-5)
    single = [loaded(folders[ALL[2]], prompts=one, class_names=["tabby cat", "school bus"]) for one in PROMPTS]
    assert not torch.allclose(torch.stack([one(pictures(1))[0] for one in single]).mean(0), expected, rtol=1e-5)


def test_one_prompt_says_that_published_numbers_are_those_of_eighty(folders: dict[str, str]) -> None:
    one = loaded(folders["open_clip CLIP"], class_names=list(WORDS))
    all_of_them = loaded(folders["open_clip CLIP"], prompts=OPENAI80, class_names=list(WORDS))
    assert "published zero-shot accuracies are mostly those of openai80" in one.texts.in_words
    assert all_of_them.texts.in_words == "zero-shot, 5 class names of a list, the 80 prompts openai80"
    assert len(all_of_them.texts.prompts.templates) == 80
    assert one.digest != all_of_them.digest


@pytest.mark.parametrize("kind", ALL)
def test_a_text_that_is_longer_than_the_context_is_refused_and_not_cut(folders: dict[str, str], kind: str) -> None:
    long = "very " * 90 + "good dog"
    with pytest.raises(InputError, match=r"takes texts of (77|64) tokens.*its end would be cut off"):
        loaded(folders[kind], class_names=["cat", long])


def test_a_text_that_just_fits_is_taken(folders: dict[str, str]) -> None:
    fits = "dog " * 71 + "dog"  # "a photo of a" has four tokens, start and end are two
    with pytest.raises(InputError, match="has 78"):
        loaded(folders["open_clip CLIP"], class_names=["cat", f"{fits}"])
    assert loaded(folders["open_clip CLIP"], class_names=["cat", "dog " * 70 + "dog"]).n_outputs == 2


def test_prompts_and_names_are_part_of_the_digest_and_the_tower_is_not(folders: dict[str, str]) -> None:
    given = [(None, ["cat", "dog"]), ("the {}", ["cat", "dog"]), (None, ["cat", "fox"]), (None, ["dog", "cat"])]
    models = [loaded(folders[ALL[0]], prompts=prompts, class_names=names) for prompts, names in given]
    assert len({model.digest for model in models}) == 4
    assert {model.tower_digest for model in models} == {loaded(folders[ALL[0]]).digest}
    again = loaded(folders[ALL[0]], class_names=["cat", "dog"])
    assert again.digest == models[0].digest


def test_texts_are_encoded_once_and_a_damaged_file_again(folders: dict[str, str], cache: Path) -> None:
    first = loaded(folders[ALL[0]], class_names=["cat", "dog"])
    (kept,) = cache.iterdir()
    from ipvit.models.zero_shot import network as zero_shot

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zero_shot, "_encoded", lambda *_: pytest.fail("encoded again"))
        again = loaded(folders[ALL[0]], class_names=["cat", "dog"])
    assert torch.equal(again(pictures()), first(pictures()))
    content = bytearray(kept.read_bytes())
    content[-3] ^= 255
    kept.write_bytes(content)
    mended = loaded(folders[ALL[0]], class_names=["cat", "dog"])
    assert torch.equal(mended(pictures()), first(pictures()))


def test_several_sets_of_prompts_share_one_tower(folders: dict[str, str]) -> None:
    models: Any = load_models(folders[ALL[0]], label="clip", prompts=["the {}", PROMPTS], class_names=["cat", "dog"])
    one, two = models
    assert (one.name, two.name) == ("clip [the {}]", "clip [3 prompts]")
    assert one.backbone.trunk is two.backbone.trunk


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ("a photo", r"there is no such file, and a prompt holds \{\}"),
        ("a {} and a {}", r"holds \{\} once"),
        ("a photo of a {c}", r"holds \{\} once"),
        ([], "there is no prompt"),
        (["a {}", "a {}"], "there twice"),
    ],
)
def test_prompts_that_are_none_are_refused(prompts: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        prompts_of(prompts)


def test_prompts_and_names_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a photo of a {}.\n\nart of the {}\n")
    (tmp_path / "names.txt").write_text("n02123045\ttabby cat\nn02084071\tdog\n")
    found = prompts_of(str(tmp_path / "prompts.txt"))
    assert found.templates == ("a photo of a {}.", "art of the {}")
    assert found.told == "2 prompts of prompts.txt"
    names = names_of(str(tmp_path / "names.txt"))
    assert (names.outputs, names.words) == (("n02123045", "n02084071"), ("tabby cat", "dog"))
    (tmp_path / "wrong.txt").write_text("a\tb\tc\n")
    with pytest.raises(InputError, match=r"wrong\.txt', class 1: a line is WORDS, or OUTPUT<TAB>WORDS"):
        names_of(str(tmp_path / "wrong.txt"))
    with pytest.raises(InputError, match="'dog' is there twice"):
        names_of(["dog", "dog"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n02123045\ttabby cat\nn02084071\t\n", "class 2: a line is WORDS, or OUTPUT<TAB>WORDS"),
        ("n02123045\nn02084071\n", "n02123045 is a WordNet id, which says nothing to a text encoder"),
    ],
)
def test_a_file_of_ids_without_words_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(InputError, match=said):
        names_of(str(tmp_path / "names.txt"))


@pytest.mark.parametrize(
    ("kind", "names"),
    [("open_clip CLIP", ["Crane", "owl", "crane"]), ("transformers SigLIP", ["St. Bernard", "owl", "st bernard"])],
)
def test_class_names_that_are_one_to_the_tokenizer_are_refused(
    folders: dict[str, str], kind: str, names: list[str]
) -> None:
    with pytest.raises(InputError, match=f"{names[0]!r} and {names[2]!r} are one to the tokenizer"):
        loaded(folders[kind], class_names=names)


def test_imagenets_names_are_for_its_synsets_and_two_pairs_of_them_are_alike() -> None:
    names = names_of("imagenet")
    assert len(names.outputs) == 1000
    assert dict(zip(names.outputs, names.words, strict=True))["n02123045"] == "tabby cat"
    texts = ipvit.models.zero_shot.texts.Texts(prompts_of(OPENAI80), names)
    assert texts.alike == ["missile", "sunglasses"]
    assert "missile, sunglasses are the words of several outputs" in texts.in_words


def data_of(classes: list[str], aliases: list[str] | None = None) -> Any:
    images = np.zeros((len(classes), 3, 4, 4), dtype=np.uint8)
    made = ipvit.MemoryDataset(images, np.arange(len(classes)), classes, name="set")
    made.aliases = None if aliases is None else tuple(aliases)
    return made


def named(data: Any) -> Any:
    return names_of_data(data)


def test_the_classes_of_the_data_are_class_names_unless_they_are_ids() -> None:
    names = named(data_of(["great_white_shark", "tabby cat"]))
    assert names.words == ("great white shark", "tabby cat")
    assert names.outputs == ("great_white_shark", "tabby cat")
    assert named(data_of(["cat", "dog"], ["n02123045", "n02084071"])).outputs == ("n02123045", "n02084071")
    assert named(data_of(["d1", "d2"], ["cat", "dog"])).outputs == ("cat", "dog")
    for ids in (["0", "1"], ["n02084071", "n09999999"]):
        with pytest.raises(InputError, match=r"is an id, which says nothing.*--class-names FILE"):
            named(data_of(ids))
    assert len(named(data_of(["n02123045", "n01440764"])).outputs) == 1000


# towers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_the_tower_keeps_what_adapters_promise(folders: dict[str, str], kind: str) -> None:
    model = loaded(folders[kind], class_names=list(WORDS))
    ipvit.testing.check_adapter(model)
    assert {"logits", "gradients", "tokens", "attention", "feature_drop", "token_removal"} <= model.capabilities
    images = model.normalize(pictures())
    logits, maps = model.adapter.with_attention(1, lambda: model.backbone(images))  # in one pass
    torch.testing.assert_close(maps, model.adapter.attention(images, [1])[1])
    torch.testing.assert_close(logits, model.backbone(images), rtol=1e-4, atol=1e-5)


def by_hand(name: str, pixels: torch.Tensor, block: int) -> torch.Tensor:
    """The attention map of a block of a Hugging Face tower, from its own weights."""
    own = transformers.AutoModel.from_pretrained(place(name), attn_implementation="eager").eval()
    with torch.no_grad():
        return own.vision_model(pixel_values=pixels, output_attentions=True).attentions[block]


@pytest.mark.parametrize("kind", ["transformers CLIP", "transformers SigLIP"])
def test_attention_is_what_transformers_itself_returns(folders: dict[str, str], kind: str) -> None:
    model = loaded(folders[kind])
    for block in (0, 2):
        own = by_hand(folders[kind], model.normalize(pictures()), block)
        torch.testing.assert_close(model.attention(pictures(), [block])[block], own, rtol=1e-4, atol=1e-6)


def test_attention_of_open_clips_tower_is_that_of_its_weights(folders: dict[str, str]) -> None:
    model = loaded(folders["open_clip CLIP"])
    tower = model.backbone.trunk
    with torch.no_grad():
        tokens = tower._embeds(model.normalize(pictures()))
        block = tower.transformer.resblocks[0]
        weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
        queries, keys, _ = torch.nn.functional.linear(block.ln_1(tokens), weight, bias).chunk(3, dim=-1)
        split = [part.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for part in (queries, keys)]
        expected = (split[0] @ split[1].transpose(-2, -1) / split[0].shape[-1] ** 0.5).softmax(-1)
    torch.testing.assert_close(model.attention(pictures(), [0])[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_the_gradient_that_attacks_follow_is_that_of_finite_differences(folders: dict[str, str], kind: str) -> None:
    model = loaded(folders[kind], class_names=list(WORDS))
    model.backbone.double()
    model.backbone.weight, model.backbone.bias = model.backbone.weight.float(), model.backbone.bias.float()

    def loss(images: torch.Tensor) -> torch.Tensor:  # in double: differences of float32 are noise
        network = model.backbone
        embedding = network.projection(network.trunk((images - model._mean.double()) / model._std.double()))
        logits = torch.nn.functional.normalize(embedding, dim=1) @ network.weight.double().T + network.bias
        return torch.nn.functional.cross_entropy(logits, torch.tensor([1]))

    image = pictures(1).double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(image), image)
    steps = [
        torch.randn(image.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in range(3)
    ]
    with torch.no_grad():
        slopes = [float(loss(image + 1e-5 * step) - loss(image - 1e-5 * step)) / 2e-5 for step in steps]
    model.backbone.float()
    ours = pictures(1).requires_grad_()
    (attacked,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(ours), torch.tensor([1])), ours)
    for step, slope in zip(steps, slopes, strict=True):
        assert float((gradient * step).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-8)
        assert float((attacked.double() * step).sum()) == pytest.approx(slope, rel=1e-2, abs=1e-4)


def test_without_class_names_it_is_an_image_tower_that_says_what_is_lacking(folders: dict[str, str]) -> None:
    tower = loaded(folders["open_clip CLIP"])
    assert tower.n_outputs == 0
    assert "tokens" in tower.capabilities
    assert "logits" not in tower.capabilities
    with pytest.raises(InputError, match="no class_names to stand in them"):
        loaded(folders["open_clip CLIP"], prompts=OPENAI80)


def test_timms_name_of_a_tower_says_whose_tower_it_is(tmp_path: Path) -> None:
    assert "CLIP model, without its text tower: for zero-shot answers write open_clip:ViT-B-16/openai" in zero_shot_of(
        "vit_base_patch16_clip_224.openai"
    )
    assert "open_clip:ViT-B-16-SigLIP2/webli" in zero_shot_of("vit_base_patch16_siglip_224.v2_webli")
    for name in ("vit_base_patch16_clip_224.openai_ft_in1k", "resnet50", "hf-hub:owner/name", "no_such_network"):
        assert zero_shot_of(name) == ""


@pytest.mark.slow
def test_timms_tower_is_no_classifier_of_512_classes() -> None:
    model = loaded("vit_base_patch32_clip_224.openai", pretrained=False)
    assert model.n_outputs == 0
    assert "open_clip:ViT-B-32/openai" in model.tower_of


def test_a_head_that_was_fitted_on_one_set_of_prompts_is_for_the_tower(folders: dict[str, str], tmp_path: Path) -> None:
    from ipvit.models.io.probe_head import ProbeHead, save_probe
    from ipvit.models.readout import FeatureSpec

    name = folders["open_clip CLIP"]
    fitted = loaded(name, prompts="the {}", class_names=["cat", "dog"])
    spec = FeatureSpec(2, "class")
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    view = fitted.preprocessing.view
    head = ProbeHead(weight, torch.zeros(3), (spec,), True, ("a", "b", "c"), view, name, True, fitted.tower_digest)
    save_probe(tmp_path / "head.safetensors", head)
    model = loaded(f"{name}@probe:{tmp_path / 'head.safetensors'}")
    tokens = fitted.tokens(pictures(), [2])[2].vector("class")
    torch.testing.assert_close(model(pictures()), tokens @ weight.T, rtol=1e-4, atol=1e-5)


def test_a_folder_says_what_it_is_in_the_configuration_that_the_digest_knows(
    folders: dict[str, str], tmp_path: Path
) -> None:
    """The activation is in no weight: a tower with the quick GELU is another one."""
    source = Path(place(folders["open_clip CLIP"]))
    other = tmp_path / "quick"
    other.mkdir()
    config = json.loads((source / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = True
    (other / "open_clip_config.json").write_text(json.dumps(config))
    (other / "open_clip_pytorch_model.bin").write_bytes((source / "open_clip_pytorch_model.bin").read_bytes())
    models = [loaded(name) for name in (folders["open_clip CLIP"], f"open_clip:{other}")]
    assert models[0].digest != models[1].digest
    assert not torch.allclose(models[0].backbone(pictures()), models[1].backbone(pictures()))


@pytest.mark.parametrize("kind", ["open_clip CLIP", "transformers CLIP"])
def test_texts_that_were_encoded_by_another_activation_are_encoded_anew(
    folders: dict[str, str], tmp_path: Path, kind: str
) -> None:
    """Same weights, same texts: what is kept of one text tower is no answer of the other."""
    source = Path(place(folders[kind]))
    other = tmp_path / "quick"
    shutil.copytree(source, other)
    if kind == "open_clip CLIP":
        config = json.loads((other / "open_clip_config.json").read_text())
        config["model_cfg"]["quick_gelu"] = True
        (other / "open_clip_config.json").write_text(json.dumps(config))
    else:
        config = json.loads((other / "config.json").read_text())
        assert config["text_config"]["hidden_act"] == "quick_gelu"
        config["text_config"]["hidden_act"] = "gelu"
        (other / "config.json").write_text(json.dumps(config))
    name = f"{kind.split()[0]}:{other}"
    first = loaded(folders[kind], class_names=["cat", "dog"])
    after_it = loaded(name, class_names=["cat", "dog"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
        alone = loaded(name, class_names=["cat", "dog"])
    torch.testing.assert_close(after_it.backbone.weight, alone.backbone.weight)
    assert not torch.allclose(first.backbone.weight, alone.backbone.weight, atol=1e-6)
    assert first.digest != after_it.digest
