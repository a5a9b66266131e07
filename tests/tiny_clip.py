"""A CLIP model of two layers with seeded random weights, as files that a user would have."""

import json
import warnings

import open_clip
import torch
from safetensors.torch import save_file

from dedup.config.load import load_config

# a short context and small towers; the vocabulary is the tokenizer's
ARCHITECTURE = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def write_architecture(folder, name="tiny", **vision):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(ARCHITECTURE | {"vision_cfg": ARCHITECTURE["vision_cfg"] | vision}))
    return path


def write_model(folder, name="tiny", seed=0, **vision):
    """The configuration, and the same weights as safetensors and as torch writes them."""
    config = write_architecture(folder, name, **vision)
    open_clip.add_model_config(config)
    torch.manual_seed(seed)
    weights = open_clip.create_model(name, pretrained=None).state_dict()
    safe, plain = folder / f"{name}.safetensors", folder / f"{name}.pt"
    save_file({key: value.contiguous() for key, value in weights.items()}, safe)
    torch.save({"state_dict": weights}, plain)
    return config, safe, plain


def config_for(model, shards, run_dir, *settings):
    """A run whose vectors are those of a model of `write_model`."""
    architecture, safe, _ = model
    own = ["encoder.name=clip", f"encoder.model={architecture}", f"encoder.pretrained={safe}", "embed.also=[]", "engine.workers=1"]
    return load_config(None, [*own, f"input.shards={shards}", f"output.run_dir={run_dir}", *settings])


class _Pooled(torch.nn.Module):
    """A convolution, pooled: what SSCD is, in small."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 48, 8, stride=8)
        self.last = torch.nn.Linear(48, 24)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.convolution(images)).mean(dim=(2, 3)))


def write_script(folder, seed=0):
    torch.manual_seed(seed)
    path = folder / "tiny.torchscript.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(_Pooled().eval()).save(str(path))
    return path
