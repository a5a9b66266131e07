"""open_clip models and TorchScript files on a CPU, without published weights."""

import dataclasses
import json
import os
import pickle
import shutil
import warnings

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from shard_data import scene
from tiny_clip import write_architecture, write_model, write_script

from dedup.config import EncoderConfig
from dedup.encoders import encoder_fingerprint, load_encoder, n_gpus
from dedup.encoders.clip import ClipEncoder, load_clip
from dedup.encoders.clip_models import find_model
from dedup.errors import ConfigError, StageError
from dedup.numerics.image.descriptor import Crop


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("clip"))


def config_of(files, /, **changed):
    architecture, safe, _ = files
    return EncoderConfig(**({"name": "clip", "model": str(architecture), "pretrained": str(safe)} | changed))


def fresh(config):
    return ClipEncoder(config, find_model(config), "cpu")


def pictures(n, size=(90, 70)):
    return [np.asarray(scene(seed, size)) for seed in range(n)]


def prepared(encoder, images):
    return np.stack([encoder.prepare(Crop(pixels, (0.0, 0.0, pixels.shape[1], pixels.shape[0]))) for pixels in images])


def test_vectors_are_open_clips_own(model):
    config = config_of(model, exact_preprocessing=True)
    encoder, images = load_encoder(config, "auto"), pictures(9)
    assert (encoder.dim, encoder.device, encoder.min_side) == (32, "cpu", None)
    theirs = open_clip.create_model(find_model(config).name, pretrained=config.pretrained).eval()
    transform = image_transform_v2(PreprocessCfg(size=64), is_train=False)
    with torch.no_grad():
        expected = theirs.encode_image(torch.stack([transform(Image.fromarray(image)) for image in images]), normalize=True).numpy()
    found = encoder.encode(prepared(encoder, images))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    assert encoder.encode(prepared(encoder, images)[:0]).shape == (0, 32)


def test_checkpoints_of_both_kinds_are_the_same_model(model):
    batch = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    first, second = (fresh(config_of(model, pretrained=str(path))).encode(batch) for path in model[1:])
    assert np.array_equal(first, second)


def test_a_configuration_with_preprocessing_is_read(model, tmp_path):
    architecture = open_clip.get_model_config(find_model(config_of(model)).name)
    path = tmp_path / "open_clip_config.json"
    path.write_text(
        json.dumps({"model_cfg": architecture, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}})
    )
    found = find_model(config_of(model, model=str(path)))
    assert found.preprocessing.resize_mode == "squash"
    assert found.preprocessing.mean == (0.5, 0.5, 0.5)
    batch = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert fresh(config_of(model, model=str(path))).encode(batch).shape == (2, 32)


def test_a_tags_preprocessing_is_its_own():
    openai = find_model(EncoderConfig(name="clip", model="ViT-B-32-quickgelu", pretrained="openai"))
    siglip = find_model(EncoderConfig(name="clip", model="ViT-B-16-SigLIP", pretrained="webli"))
    assert (openai.preprocessing.resize_mode, openai.preprocessing.width) == ("shortest", 224)
    assert siglip.preprocessing.resize_mode == "squash"
    assert siglip.preprocessing.mean == (0.5, 0.5, 0.5)
    assert openai.fingerprint()["weights"] == "tag openai"


def test_a_file_of_a_published_model_is_preprocessed_as_its_tags_are(model):
    """A checkpoint says nothing of it; what all tags of its model have in common does."""
    siglip = find_model(config_of(model, model="ViT-B-16-SigLIP"))
    assert (siglip.preprocessing.resize_mode, siglip.preprocessing.mean) == ("squash", (0.5, 0.5, 0.5))
    plain = find_model(config_of(model, model="ViT-B-32"))
    assert plain.preprocessing.resize_mode == "shortest"


def test_a_tag_goes_before_a_file_of_its_name_and_is_written_one_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openai").mkdir()
    found = [
        find_model(EncoderConfig(name="clip", model=name, pretrained=tag)).fingerprint()
        for name, tag in (("ViT-B-32-quickgelu", "openai"), ("ViT-B-32", "laion2b-s34b-b79k"), ("ViT-B-32", "laion2b_s34b_b79k"))
    ]
    assert found[0]["weights"] == "tag openai"
    assert found[1] == found[2]


def test_half_precision_stays_near(model):
    batch = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    whole, half = (fresh(config_of(model, precision=precision)).encode(batch) for precision in ("fp32", "bf16"))
    assert half.dtype == np.float32
    similarity = (whole * half).sum(axis=1)
    assert (similarity > 0.999).all()
    assert not np.array_equal(whole, half)


def test_a_compiled_model_gives_the_same_and_is_padded_to_one_size(model, monkeypatch):
    sizes = []

    def compiled(forward, *, dynamic):
        assert dynamic is False

        def run(images):
            sizes.append(len(images))
            return forward(images)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    batch = np.random.default_rng(0).integers(0, 256, (11, 64, 64, 3), dtype=np.uint8)
    encoder = fresh(config_of(model, compile=True))
    found = np.concatenate([encoder.encode(batch[start : start + 4]) for start in (0, 4, 8)])
    assert sizes == [4, 4, 4]
    np.testing.assert_allclose(found, fresh(config_of(model)).encode(batch), atol=2e-6)


def test_captions_are_in_the_images_space(model):
    encoder = load_encoder(config_of(model), "auto")
    texts = encoder.encode_captions(["a dog", "a cat in the sun", "a dog", "word " * 500])
    assert texts.shape == (4, 32)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(texts[0], texts[2], atol=1e-6)
    assert texts[0] @ texts[1] < 0.9999


def loaded(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.load(str(path))


def test_torchscript_files_go_the_same_way(tmp_path):
    path = write_script(tmp_path)
    config = EncoderConfig(name="torchscript", pretrained=str(path), image_size=64, exact_preprocessing=True)
    encoder, images = load_encoder(config, "auto"), pictures(5)
    assert encoder.dim == 24
    transform = image_transform_v2(
        PreprocessCfg(size=64, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear", resize_mode="squash"),
        is_train=False,
    )
    with torch.no_grad():
        rows = loaded(path)(torch.stack([transform(Image.fromarray(image)) for image in images]))
        expected = torch.nn.functional.normalize(rows, dim=1).numpy()
    np.testing.assert_allclose(encoder.encode(prepared(encoder, images)), expected, atol=2e-6)
    assert encoder.encode_captions(["a dog"]) is None


def failing_above(encoder, limit):
    """The model's memory ends at so many images."""
    embed, sizes = encoder.embed, []

    def run(batch):
        sizes.append(len(batch))
        if len(batch) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return embed(batch)

    encoder.embed = run
    return sizes


def test_out_of_memory_halves_the_batch_and_loses_nothing(model):
    batch = np.random.default_rng(0).integers(0, 256, (23, 64, 64, 3), dtype=np.uint8)
    expected, encoder = fresh(config_of(model)).encode(batch), fresh(config_of(model))
    sizes = failing_above(encoder, 3)
    np.testing.assert_allclose(encoder.encode(batch), expected, atol=2e-6)
    assert sizes == [23, 11, 5] + [2] * 11 + [1]
    notes = encoder.notes()
    assert len(notes) == 3
    assert "ran out of memory at 5 images; batches of 2 since then" in notes[-1]
    assert encoder.notes() == []
    np.testing.assert_allclose(encoder.encode(batch[:7]), expected[:7], atol=2e-6)
    assert sizes[-4:] == [2, 2, 2, 1]


def test_rows_without_direction_are_no_vectors():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [float("inf"), 1.0], [float("nan"), 1.0], [1e-20, 0.0]])
    found = ClipEncoder._unit(rows)
    np.testing.assert_allclose(found[0], [0.6, 0.8])
    assert np.isfinite(found).all(axis=1).tolist() == [True, False, False, False, True]
    assert ClipEncoder._unit(torch.tensor([[60000.0, 60000.0]], dtype=torch.float16))[0].tolist() == pytest.approx([0.7071068] * 2)


def test_captions_are_cut_too_when_memory_ends(model):
    encoder = fresh(config_of(model))
    captions = [f"number {number}" for number in range(9)]
    expected, forward = encoder.encode_captions(captions), encoder.embed_text

    def run(tokens):
        if len(tokens) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(tokens)

    encoder.embed_text = run
    np.testing.assert_allclose(encoder.encode_captions(captions), expected, atol=2e-6)
    assert len(encoder.notes()) == 1


def test_no_memory_for_one_image_is_said(model):
    encoder = fresh(config_of(model))
    failing_above(encoder, 0)
    with pytest.raises(StageError, match="no memory for one image"):
        encoder.encode(np.zeros((5, 64, 64, 3), np.uint8))


def test_the_fingerprint_says_what_changes_vectors_and_not_where_files_lie(model, tmp_path):
    first = encoder_fingerprint(config_of(model))
    moved = tmp_path / "elsewhere.safetensors"
    shutil.copy(model[1], moved)
    assert encoder_fingerprint(config_of(model, pretrained=str(moved), compile=True)) == first
    other = write_model(tmp_path, seed=1)
    for changed, key in (
        ({"pretrained": str(other[1])}, "weights"),
        ({"precision": "bf16"}, "precision"),
        ({"exact_preprocessing": True}, "preprocessing"),
        ({"model": str(write_architecture(tmp_path, "tiny", layers=3))}, "architecture"),
    ):
        found = encoder_fingerprint(config_of(model, **changed))
        assert found[key] != first[key]
    script = EncoderConfig(name="torchscript", pretrained=str(write_script(tmp_path)))
    assert encoder_fingerprint(script) != encoder_fingerprint(dataclasses.replace(script, normalization="half"))


class TwoOutputs(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def find_and_load(config):
    encoder_fingerprint(config)
    return load_clip(config, "auto")


class Code:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"model": "vit-b32", "pretrained": "openai"}, "is not a model of open_clip .*did you mean ViT-B-32 "),
        ({"model": "ViT-B-32", "pretrained": "laion2b_s34b"}, "is not a tag of ViT-B-32; did you mean laion2b_s34b_b79k"),
        ({"model": "ViT-B-32", "pretrained": "zzzzz"}, "is not a tag of ViT-B-32; expected one of openai, laion400m_e31"),
        ({"pretrained": "gone.safetensors"}, "encoder.pretrained=gone.safetensors is not a file"),
        ({"model": "gone.json"}, "encoder.model=gone.json is not a file"),
        ({"model": "ViT-B-32"}, "does not fit the model ViT-B-32: .*encoder.model"),
        (
            {"model": "ViT-B-32", "pretrained": "openai"},
            "openai was trained with QuickGELU, which ViT-B-32 does not use: .* encoder.model=ViT-B-32-quickgelu",
        ),
        ({"model": "ViT-B-32-quickgelu", "pretrained": "laion2b_s34b_b79k"}, "is not a tag of ViT-B-32-quickgelu"),
        ({"model": "ViT-H-14-378"}, "the published weights of ViT-H-14-378 are preprocessed in|does not fit"),
        ({"name": "torchscript", "pretrained": "pair.pt"}, "makes .* of shape|pair.pt is not a TorchScript file"),
        ({"model": "broken.json"}, "broken.json can't be read as JSON"),
        ({"model": "half.json"}, "half.json has no 'vision_cfg'"),
        ({"model": "wide.json"}, "does not fit the model wide.json"),
        ({"pretrained": "code.pt"}, "does not fit the model tiny.json: UnpicklingError"),
        ({"pretrained": "."}, "is a folder"),
        ({"name": "torchscript"}, "is not a TorchScript file"),
        ({"name": "torchscript", "pretrained": "gone.pt"}, "gone.pt is not a file; expected a TorchScript model"),
    ],
)
def test_what_can_not_be_loaded_is_said_in_one_line(model, tmp_path, monkeypatch, changed, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "half.json").write_text('{"embed_dim": 8}')
    write_architecture(tmp_path, "wide", width=128)
    (tmp_path / "code.pt").write_bytes(pickle.dumps({"state_dict": Code()}, protocol=2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(TwoOutputs()).save(str(tmp_path / "pair.pt"))
    config = config_of(model, **changed)
    with pytest.raises(ConfigError, match=expected) as caught:
        find_and_load(config)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_no_cuda_is_said(model):
    with pytest.raises(ConfigError, match="engine.device=cuda, but torch .* sees no CUDA device"):
        load_encoder(config_of(model), "cuda")
    assert n_gpus(config_of(model), "auto") == 0


def test_the_tasks_gpu_is_the_one_used(model, monkeypatch):
    from dedup.encoders import clip
    from dedup.machine import given_gpus

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with given_gpus(["3"]):
        assert clip._device_of_task("auto") == "cuda:3"
        assert clip._device_of_task("cpu") == "cpu"
    assert clip._device_of_task("cuda") == "cuda:0"
