"""What each encoder can do, in one table, so that no code depends on an encoder's name.

It is part of the configuration because keys take choices and defaults from it and must not import the encoders.
"""

from __future__ import annotations

import dataclasses

from dedup.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class EncoderKind:
    """An encoder, as `encoder.name` names it."""

    name: str
    default_min_similarity: float  # for `search.min_similarity=0`
    typical_dim: int  # length of a vector, as far as can be told without loading weights
    has_images: bool = True  # it encodes images; precomputed vectors may not even say where their images are
    can_turn: bool = False  # its vectors can be turned instead of encoding turned images
    makes_views: bool = False  # it derives vectors of an image's parts and turns from what it computed
    uses_gpu: bool = False  # it computes with torch, on a GPU if there is one
    weights: str = ""  # what `encoder.pretrained` must name; empty = it has no weights
    is_scripted: bool = False  # the weights are a TorchScript program, which torch.compile does not take
    embeds_captions: bool = False

    @property
    def needs_weights(self) -> bool:
        """Whether `encoder.pretrained` must be set."""
        return bool(self.weights)

    @property
    def is_descriptor(self) -> bool:
        """Whether images are encoded by formulas alone: cheap enough to run beside another encoder."""
        return self.has_images and not self.needs_weights


# The thresholds can be low because candidates are judged by their pixels afterwards; not so for embeddings without pixels. A CLIP
# similarity of 0.9 means the same subject. Carlini et al. (2023) publish no number for CLIP; re-implementations use 0.9 with ViT-B/32.
# 0.75 is SSCD's own (Pizzi et al. 2022: 90% precision on DISC).
KINDS = (
    EncoderKind("dct", 0.7, 384, can_turn=True, makes_views=True),
    EncoderKind("clip", 0.9, 1_024, uses_gpu=True, weights="a pretrained tag of the model or a checkpoint", embeds_captions=True),
    EncoderKind("torchscript", 0.75, 512, uses_gpu=True, weights="the path of a TorchScript file", is_scripted=True),
    EncoderKind("precomputed", 0.95, 1_024, has_images=False),
)
DESCRIPTOR = next(kind.name for kind in KINDS if kind.is_descriptor)
AUTO = ["auto"]  # of `embed.also`; see `dedup.config.load.resolved`
ENCODER_NAMES = tuple(kind.name for kind in KINDS)
_BY_NAME = {kind.name: kind for kind in KINDS}


def encoder_kind(name: str) -> EncoderKind:
    """The encoder of that name.

    Raises ConfigError if there is none.

    >>> encoder_kind("clip").needs_weights, encoder_kind("dct").can_turn
    (True, True)
    """
    if name not in _BY_NAME:
        raise ConfigError(f"encoder.name={name} is unknown; expected one of {', '.join(ENCODER_NAMES)}")
    return _BY_NAME[name]
