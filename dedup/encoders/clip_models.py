"""The model that a configuration names, found without loading weights: open_clip's by name or file, and TorchScript files."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import open_clip
from cachetools import LRUCache, cached
from PIL import Image

from dedup.config import EncoderConfig
from dedup.config.encoders import encoder_kind
from dedup.errors import ConfigError
from dedup.storage.images.decode import RULES

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}

_SPARE = 2  # while it is decoded, an image may be reduced to this many times the model's sides
_GAP = 3.0  # then Pillow may reduce it by whole pixels, to this many times
_MAX_ASPECT = 100  # beyond this aspect ratio an image is cropped before it is resized, or it would fill the memory

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """How a model expects its images."""

    # height, width: in pixels
    height: int
    width: int
    # mean, std: per channel, of values from 0 to 1
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str  # bicubic or bilinear
    # shortest (the shorter side fits, the centre is kept), squash (both sides fit), longest (the longer side fits, the rest is filled)
    resize_mode: str
    fill: int  # grey level of the filling
    is_exact: bool  # equal to open_clip's own transform to the last bit, up to an aspect ratio of 100; images are decoded in full

    @property
    def min_side(self) -> int | None:
        """Pixels to which a decoder may reduce an image's sides; None = full size."""
        return None if self.is_exact else _SPARE * max(self.height, self.width)

    def __str__(self) -> str:
        kind = "exact" if self.is_exact else "one resampling"
        values = ", ".join(f"{value:g}" for value in (*self.mean, *self.std))
        filled = f" filled with {self.fill}" if self.resize_mode == "longest" else ""
        return f"{self.resize_mode} {self.width}x{self.height}{filled} {self.interpolation}, {kind}, mean and std {values}"

    def __call__(self, pixels: npt.NDArray[np.uint8], box: Box) -> npt.NDArray[np.uint8]:
        """Resize and crop one image.

        `pixels`: shape (image height, image width, 3); RGB.
        `box`: left, top, right, bottom of the picture inside the pixels.
        Returns shape (height, width, 3).
        """
        image = Image.fromarray(pixels)
        if self.resize_mode == "longest":
            return self._fill(image, box)
        if self.is_exact and max(image.size) <= _MAX_ASPECT * min(image.size):
            return self._exact(image)
        # cropped in the image's own coordinates, so that only the kept part is resampled, once
        return np.asarray(
            self._resize(image, (self.width, self.height), box if self.resize_mode == "squash" else self._crop(box), gap=_GAP)
        )

    def _resized_size(self, width: float, height: float) -> tuple[int, int]:
        """Width and height of the whole picture once its shorter side fits, rounded as torchvision and open_clip do."""
        if self.width == self.height:
            # a reduced image's sides are fractions: rounding errors must not turn a whole number into the one below
            longer = max(self.width, int(self.width * max(width, height) / min(width, height) + 1e-6))
            return (self.width, longer) if width <= height else (longer, self.width)
        ratio = min(height / self.height, width / self.width)  # open_clip's ResizeKeepRatio
        return round(width / ratio), round(height / ratio)

    def _crop(self, box: Box) -> Box:
        """The part of a picture that is kept, whole pixels once resized, in the image's own coordinates."""
        left, top, right, bottom = box
        width, height = self._resized_size(right - left, bottom - top)
        x, y = (right - left) / width, (bottom - top) / height
        first_x, first_y = round((width - self.width) / 2.0), round((height - self.height) / 2.0)
        start_x, start_y = left + max(0, first_x) * x, top + max(0, first_y) * y
        return start_x, start_y, min(right, start_x + self.width * x), min(bottom, start_y + self.height * y)

    def _exact(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """As torchvision's Resize and CenterCrop: whole pixels, rounded the same."""
        if self.resize_mode == "squash":
            return np.asarray(self._resize(image, (self.width, self.height)))
        size = self._resized_size(*image.size)
        if size != image.size:
            image = self._resize(image, size)
        left, top = round((size[0] - self.width) / 2.0), round((size[1] - self.height) / 2.0)
        return np.asarray(image.crop((left, top, left + self.width, top + self.height)))

    def _fill(self, image: Image.Image, box: Box) -> npt.NDArray[np.uint8]:
        """The whole picture inside the model's frame, the rest filled, as open_clip's CenterCropOrPad does."""
        left, top, right, bottom = box
        ratio = max((bottom - top) / self.height, (right - left) / self.width)
        size = (max(1, round((right - left) / ratio)), max(1, round((bottom - top) / ratio)))
        small = self._resize(image, size, None if self.is_exact else box, gap=None if self.is_exact else _GAP)
        filled = Image.new("RGB", (self.width, self.height), (self.fill,) * 3)
        filled.paste(small, (math.floor((self.width - size[0]) / 2), math.floor((self.height - size[1]) / 2)))
        return np.asarray(filled)

    def _resize(self, image: Image.Image, size: tuple[int, int], box: Box | None = None, *, gap: float | None = None) -> Image.Image:
        return image.resize(size, _FILTERS[self.interpolation], box, gap)


_CLIP_MEAN, _CLIP_STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD

_NORMALIZATIONS: Final = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": (tuple(_CLIP_MEAN), tuple(_CLIP_STD)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
_FROM_TAGS: Final = ("mean", "std", "interpolation", "resize_mode")
_SHOWN: Final = 8  # tags or names that a message lists


@dataclass(frozen=True)
class ModelSpec:
    """A model that has been identified but not loaded."""

    name: str  # open_clip's name for it; empty for TorchScript
    pretrained: str  # a tag, or the path of a file
    is_file: bool
    preprocessing: Preprocessing
    description: dict[str, str]  # what the vectors depend on besides preprocessing, precision and decoder
    precision: str

    def fingerprint(self) -> dict[str, str]:
        """Everything that changes the vectors."""
        size = "full size" if self.preprocessing.is_exact else f"scaled to >= {self.preprocessing.min_side} px"
        decoder = f"simplejpeg {version('simplejpeg')}, Pillow {version('pillow').split('.')[0]}, rules {RULES}, {size}"
        precision = "fp16 on a GPU, fp32 on a CPU" if self.precision == "auto" else self.precision
        return self.description | {"preprocessing": str(self.preprocessing), "decoder": decoder, "precision": precision}


def find_model(config: EncoderConfig) -> ModelSpec:
    """The model that a configuration names.

    Raises ConfigError if there is no such model, tag or file, with suggestions.
    """
    if encoder_kind(config.name).is_scripted:
        return _find_torchscript(config)
    name, architecture, preprocess = _find_architecture(config.model)
    text_model = architecture["text_cfg"].get("hf_model_name")
    if text_model and importlib.util.find_spec("transformers") is None:
        raise ConfigError(
            f"encoder.model={config.model} reads text with {text_model}, which needs a package; run: pip install transformers"
        )
    pretrained = config.pretrained
    is_file = os.path.exists(pretrained) and not open_clip.is_pretrained_cfg(name, pretrained)  # open_clip also tries tags first
    if is_file:
        weights = f"sha256 {_sha256_of(pretrained)}"
        preprocess = _common_preprocessing(config.model, name, preprocess) | preprocess
    else:
        tag = _find_tag(config.model, name, pretrained, uses_quick_gelu=bool(architecture.get("quick_gelu")))
        pretrained = pretrained.lower().replace("-", "_")  # as open_clip reads it
        weights = f"tag {pretrained}"
        preprocess |= {key: tag[key] for key in _FROM_TAGS if key in tag}
    preprocess = {"size": architecture["vision_cfg"].get("image_size", 224), **preprocess}
    digest = hashlib.sha256(json.dumps(architecture, sort_keys=True).encode()).hexdigest()[:16]
    description = {"model": f"open_clip {os.path.basename(config.model)}", "architecture": digest, "weights": weights}
    return ModelSpec(name, pretrained, is_file, _preprocessing(preprocess, config.exact_preprocessing), description, config.precision)


def _find_torchscript(config: EncoderConfig) -> ModelSpec:
    if not os.path.isfile(config.pretrained):
        raise ConfigError(f"encoder.pretrained={config.pretrained} is not a file; expected a TorchScript model, as SSCD is published")
    mean, std = _NORMALIZATIONS[config.normalization]
    # SSCD is trained and searched with both sides resized to one length, which keeps what a crop would lose
    preprocess = {"size": config.image_size, "mean": mean, "std": std, "interpolation": "bilinear", "resize_mode": "squash"}
    description = {"model": "TorchScript", "weights": f"sha256 {_sha256_of(config.pretrained)}"}
    return ModelSpec("", config.pretrained, True, _preprocessing(preprocess, config.exact_preprocessing), description, config.precision)


def _find_architecture(model: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """open_clip's name of a model, its architecture, and the preprocessing that its file gives."""
    if os.path.isfile(model):
        return _read_architecture(model)
    if model.endswith(".json") or os.sep in model:
        raise ConfigError(f"encoder.model={model} is not a file; expected an open_clip JSON configuration, or the name of a model")
    names = open_clip.list_models()
    if model not in names:
        raise ConfigError(f"encoder.model={model} is not a model of open_clip {version('open_clip_torch')}; {_suggestion(model, names)}")
    return model, open_clip.get_model_config(model), {}


def _stamp(path: str) -> tuple[str, int, int]:
    status = os.stat(path)
    return path, status.st_size, status.st_mtime_ns


@cached(LRUCache(4), key=_stamp)
def _read_architecture(path: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A configuration file's model, registered with open_clip under a unique name."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"encoder.model={path} can't be read as JSON: {error}; expected an open_clip configuration") from error
    architecture = content.get("model_cfg", content) if isinstance(content, dict) else {}
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in architecture]
    if missing:
        raise ConfigError(f"encoder.model={path} has no '{missing[0]}'; expected embed_dim, vision_cfg and text_cfg, as open_clip has them")
    digest = hashlib.sha256(json.dumps(architecture, sort_keys=True).encode()).hexdigest()[:16]
    name = f"{os.path.basename(path).removesuffix('.json')}-{digest}"
    if name not in open_clip.list_models():
        with tempfile.TemporaryDirectory(prefix="dedup-clip-") as folder:
            registered = os.path.join(folder, f"{name}.json")
            with open(registered, "w", encoding="utf-8") as file:
                json.dump(architecture, file)
            open_clip.add_model_config(registered)
    preprocess = content.get("preprocess_cfg") or {}
    return name, architecture, {key: value for key, value in preprocess.items() if value is not None}


def _common_preprocessing(model: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The preprocessing that all published weights of a model share, for a weights file, which names none."""
    tags = [open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    kinds = {json.dumps({key: tag[key] for key in _FROM_TAGS if key in tag}, sort_keys=True) for tag in tags}
    if len(kinds) > 1 and not given:
        raise ConfigError(
            f"encoder.pretrained is a file, and the published weights of {model} are preprocessed in {len(kinds)} ways; "
            "give encoder.model a JSON configuration with model_cfg and the preprocess_cfg of these weights"
        )
    return dict(json.loads(kinds.pop())) if len(kinds) == 1 else {}


def _find_tag(model: str, name: str, tag: str, *, uses_quick_gelu: bool) -> Mapping[str, Any]:
    """open_clip's configuration of a pretrained tag."""
    tag_config: Mapping[str, Any] | None = open_clip.get_pretrained_cfg(name, tag)
    if tag_config:
        if bool(tag_config.get("quick_gelu")) != uses_quick_gelu:
            sibling = name.removesuffix("-quickgelu") if uses_quick_gelu else f"{name}-quickgelu"
            remedy = f"encoder.model={sibling}" if sibling in open_clip.list_models() else "a JSON configuration that says so"
            kind = "GELU" if uses_quick_gelu else "QuickGELU"
            raise ConfigError(
                f"encoder.pretrained={tag} was trained with {kind}, which {model} does not use: its vectors would be wrong; give {remedy}"
            )
        return tag_config
    tags = open_clip.list_pretrained_tags_by_model(name)
    if os.sep in tag or "." in tag:
        raise ConfigError(
            f"encoder.pretrained={tag} is not a file; expected a checkpoint of {model}{', or a tag: ' + _first_few(tags) if tags else ''}"
        )
    raise ConfigError(f"encoder.pretrained={tag} is not a tag of {model}; {_suggestion(tag, tags)}")


def _preprocessing(values: Mapping[str, Any], is_exact: bool) -> Preprocessing:
    size = values["size"]
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    mean, std = tuple(values.get("mean", _CLIP_MEAN)), tuple(values.get("std", _CLIP_STD))
    fill = int(values.get("fill_color", 0))
    return Preprocessing(
        height, width, mean, std, values.get("interpolation", "bicubic"), values.get("resize_mode", "shortest"), fill, is_exact
    )


def _suggestion(name: str, names: Sequence[str]) -> str:
    if not names:
        return "it has none; expected the path of a checkpoint"
    # case and separators are the most common mistakes
    plain = {candidate.lower().replace("_", "-").replace("/", "-"): candidate for candidate in names}
    near = [plain[key] for key in difflib.get_close_matches(name.lower().replace("_", "-").replace("/", "-"), plain, 3, 0.5)]
    return f"did you mean {' or '.join(near)}?" if near else f"expected one of {_first_few(names)}"


def _first_few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


@cached(LRUCache(8), key=_stamp)
def _sha256_of(path: str) -> str:
    if os.path.isdir(path):
        raise ConfigError(f"encoder.pretrained={path} is a folder; expected a checkpoint file")
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
