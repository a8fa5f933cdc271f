"""Tiny random zero-shot models as open_clip and transformers keep them, built offline with their own tokenizers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ipvit

PROMPTS = ["a photo of a {}", "a bad photo of many {}", "the {} in a video game"]
ALL = ["open_clip CLIP", "open_clip SigLIP", "transformers CLIP", "transformers SigLIP", "transformers SigLIP 2"]
WORDS = ("tabby cat", "great white shark", "Saint Bernard", "school bus", "granny smith")
SIZE = 32
VISION: dict[str, Any] = {"image_size": SIZE, "layers": 3, "width": 64, "patch_size": 8, "head_width": 16}
CLIP_TEXT: dict[str, Any] = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
ENDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 1}
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}


def pictures(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def loaded(name: str, **given: Any) -> Any:
    return ipvit.load_model(name, **given)


def place(name: str) -> str:
    return name.partition(":")[2]


def open_clip_folder(folder: Path, *, vision: dict[str, Any] | None = None, **more: Any) -> Path:
    """Write a CLIP as open_clip keeps one in a folder; its tokenizer is the real one."""
    open_clip = pytest.importorskip("open_clip")
    folder.mkdir(parents=True, exist_ok=True)
    config = {"embed_dim": 24, "vision_cfg": vision or VISION, "text_cfg": CLIP_TEXT} | more
    stated = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}
    return _open_clip_model(open_clip, folder, config, stated | {"resize_mode": "shortest"})


def open_clip_siglip_folder(folder: Path) -> Path:
    """Write a SigLIP as open_clip has it: timm's tower with attention pooling, a tokenizer of Hugging Face."""
    open_clip = pytest.importorskip("open_clip")
    folder.mkdir(parents=True, exist_ok=True)
    gemma_tokenizer(folder)  # a folder of open_clip brings its own
    text = {
        "context_length": 64,
        "vocab_size": 400,
        "hf_tokenizer_name": "timm/ViT-B-16-SigLIP2",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 32,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    }
    vision = {
        "image_size": SIZE,
        "timm_model_name": "vit_small_patch16_siglip_224_tiny",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    }
    _register_tiny_siglip()
    config = {"embed_dim": 48, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
    stated = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    return _open_clip_model(open_clip, folder, config, stated)


def _register_tiny_siglip() -> None:
    from timm.models import is_model
    from timm.models._registry import register_model
    from timm.models.vision_transformer import VisionTransformer

    name = "vit_small_patch16_siglip_224_tiny"
    if is_model(name):
        return

    def tiny(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
        kwargs = {
            key: value for key, value in kwargs.items() if not key.startswith("pretrained") and key != "cache_dir"
        }
        return VisionTransformer(
            img_size=SIZE, patch_size=8, embed_dim=48, depth=3, num_heads=3, class_token=False, **kwargs
        )

    tiny.__name__ = name
    tiny.__module__ = "timm.models.vision_transformer"
    register_model(tiny)


def _open_clip_model(open_clip: Any, folder: Path, config: dict[str, Any], stated: dict[str, Any]) -> Path:
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": stated}))
    torch.manual_seed(5)
    model = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


def sentencepiece_tokenizer(folder: Path) -> Any:
    """Write a tokenizer of SigLIP whose vocabulary is learned from a few sentences."""
    transformers = pytest.importorskip("transformers")
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    folder.mkdir(parents=True, exist_ok=True)
    sentences = [f"a photo of a {words.lower()}" for words in WORDS] + [
        "the quick brown fox jumps over the lazy dog",
        "a bad photo of many things in a video game",
        "sphinx of black quartz judge my vow 0 1 2 3 4 5 6 7 8 9",
    ]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 20),
        model_prefix=str(folder / "spiece"),
        vocab_size=120,
        hard_vocab_limit=False,
        pad_id=-1,
        bos_id=-1,
        eos_id=1,
        unk_id=2,
        add_dummy_prefix=False,
        minloglevel=2,
    )
    tokenizer = transformers.SiglipTokenizer(str(folder / "spiece.model"), model_max_length=64)
    tokenizer.save_pretrained(folder)
    return tokenizer


def gemma_tokenizer(folder: Path) -> Any:
    """Write a tokenizer as SigLIP 2 has it: Gemma's kind, that tells letters of either case apart, with an end."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "\u2581")
    made.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    made.decoder = decoders.Replace("\u2581", " ")
    sentences = [f"A photo of a {words}. a photo of a {words.lower()}" for words in WORDS]
    made.train_from_iterator(sentences, trainers.BpeTrainer(vocab_size=300, special_tokens=special))
    made.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        padding_side="right",
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def processor(folder: Path, kind: str) -> None:
    """Write the configuration of an image processor: CLIP's crops, SigLIP's squashes."""
    common = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    if kind == "clip":
        stated = {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": SIZE},
            "crop_size": {"height": SIZE, "width": SIZE},
            "do_center_crop": True,
            "resample": 3,
            "image_mean": [0.48, 0.46, 0.41],
            "image_std": [0.27, 0.26, 0.28],
        }
    else:
        stated = {
            "image_processor_type": "SiglipImageProcessor",
            "size": {"height": SIZE, "width": SIZE},
            "resample": 3,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        }
    (folder / "preprocessor_config.json").write_text(json.dumps(common | stated))


def clip_tokenizer(folder: Path) -> Any:
    """Write CLIP's real tokenizer, from the vocabulary that open_clip brings."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("open_clip")
    from open_clip.tokenizer import bytes_to_unicode, default_bpe

    merges = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    names = letters + [f"{one}</w>" for one in letters] + ["".join(merge.split()) for merge in merges]
    names += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    tokenizer.save_pretrained(folder)
    return tokenizer


def clip_folder(folder: Path) -> Path:
    """Write a CLIP as transformers keeps one, with its real tokenizer."""
    transformers = pytest.importorskip("transformers")
    clip_tokenizer(folder)
    processor(folder, "clip")
    torch.manual_seed(6)
    config = transformers.CLIPConfig(
        text_config=SIZES | {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407},
        vision_config=SIZES | {"image_size": SIZE, "patch_size": 8},
        projection_dim=24,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def siglip_folder(folder: Path, tokenizer: Callable[[Path], Any] | None = None) -> Path:
    """Write a SigLIP, or with Gemma's tokenizer a SigLIP 2 of a fixed resolution, as transformers keeps one."""
    transformers = pytest.importorskip("transformers")
    (tokenizer or sentencepiece_tokenizer)(folder)
    processor(folder, "siglip")
    torch.manual_seed(7)
    config = transformers.SiglipConfig(
        text_config=SIZES | {"vocab_size": 400, "max_position_embeddings": 64} | ENDS,
        vision_config=SIZES | {"image_size": SIZE, "patch_size": 8},
    )
    model = transformers.SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(2.3)
        model.logit_bias.fill_(-3.5)
    model.save_pretrained(folder)
    return folder
