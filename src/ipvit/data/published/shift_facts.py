"""What natural shifts of ImageNet are called, where they are to be had, and how many images they have."""

from __future__ import annotations

from collections.abc import Mapping

V2_VARIANTS: Mapping[str, str] = {
    "matched-frequency": "imagenetv2-matched-frequency-format-val",
    "threshold-0.7": "imagenetv2-threshold0.7-format-val",
    "top-images": "imagenetv2-top-images-format-val",
}
"""The three variants of ImageNet-V2 (Recht et al. 2019) and the folder that the archive of each unpacks into."""

SOURCES: Mapping[str, str] = {
    "imagenet-v2": "github.com/modestyachts/ImageNetV2",
    "imagenet-a": "github.com/hendrycks/natural-adv-examples",
    "imagenet-r": "github.com/hendrycks/imagenet-r",
    "imagenet-sketch": "github.com/HaohanWang/ImageNet-Sketch",
    "objectnet": "objectnet.dev",
}

SIZES: Mapping[str, int] = {
    "imagenet-v2": 10_000,
    "imagenet-a": 7_500,
    "imagenet-r": 30_000,
    "imagenet-sketch": 50_889,
    "objectnet": 18_574,
    "imagenet-a-clean": 10_000,
    "imagenet-r-clean": 10_000,
}
"""Images of each set; of ObjectNet those of the 113 classes that ImageNet has too."""

KINDS: Mapping[str, str] = {
    "imagenet-v2:PATH/VARIANT": "ImageNet-V2: matched-frequency (by default), threshold-0.7 or top-images",
    "imagenet-a:PATH": "ImageNet-A, 200 classes; networks choose among these",
    "imagenet-r:PATH": "ImageNet-R, 200 classes; networks choose among these",
    "imagenet-sketch:PATH": "ImageNet-Sketch",
    "objectnet:PATH": "ObjectNet without its red border: the 113 classes that ImageNet has, by its own mappings/",
    "imagenet-real:PATH": "ImageNet's validation images with ReaL's labels, several or none an image",
    "imagenet-a:hfds/OWNER/NAME": "the same in a table of the Hugging Face hub; so for all of these but ObjectNet",
    "imagenet-a-clean:PATH": "ImageNet's validation images of ImageNet-A's classes; likewise imagenet-r-clean",
}
"""The names and what they are, for lists."""

REAL_SUFFIX = " (ReaL labels)"
"""What the name of data with ReaL's labels ends with."""
