"""Images of targets from a small pipeline of random weights: what is made, what is made again, and what is measured."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import dedup as command
from edge_oracle import score_by_shifts
from in_process import InProcess
from PIL import Image

import dedup
from dedup.attack.generations import first_seed, write_work
from dedup.attack.painter import Drawing, Painter
from dedup.errors import ConfigError, InputError, MissingExtra, RunDirectoryError, StageError
from dedup.schemas import GENERATED

CAPTIONS = {"000000000010abcd": "a cat", "00000000002bcdef": "two dogs", "0000000000300000": "nothing"}
COUNTS = {"000000000010abcd": 3, "00000000002bcdef": 5, "0000000000300000": 2}
FIRST = next(iter(CAPTIONS))


@pytest.fixture(scope="module", autouse=True)
def packages(require_extra):
    for name in ("torch", "diffusers", "transformers"):
        require_extra(name)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tiny_diffusion import write_model

    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    return write_targets(tmp_path_factory.mktemp("targets"), CAPTIONS)


def write_targets(folder, captions):
    rows = [{"target_id": name, "caption": text, "n_generations": COUNTS.get(name, 2)} for name, text in captions.items()]
    pq.write_table(pa.Table.from_pylist(rows), folder / "targets.parquet")
    return str(folder / "targets.parquet")


class Said:
    """A reporter that keeps its notes."""

    def __init__(self):
        self.notes = []

    def progress(self, progress):
        pass

    def note(self, text):
        self.notes.append(text)


def generate(targets, out, model, **options):
    # one at a time: then bytes are equal too, else only pixels but for rounding
    return dedup.generate_targets(targets, str(out), model=model, **{"steps": 2, "batch": 1, "engine": InProcess()} | options)


def images_of(out):
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in sorted(Path(out).glob("[!_]*/*"))}


def rows_of(out):
    parts = sorted(Path(out).glob("_generated/part-*.parquet"))
    return {row["target_id"]: row for part in parts for row in pq.read_table(part, schema=GENERATED).to_pylist()}


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def made(targets, model, tmp_path_factory):
    """What one uninterrupted call makes, with all that it can measure."""
    out = tmp_path_factory.mktemp("made") / "generations"
    return out, generate(targets, out, model, noise=True, targets_per_part=2)


def test_an_image_for_each_seed_of_the_work_list(made, targets, tmp_path):
    out, summary = made
    write_work(targets, str(tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "part-00000.jsonl").read_text().splitlines()]
    expected = {f"{line['target_id']}/{line['first_seed'] + k}.png" for line in lines for k in range(line["n_generations"])}
    assert set(images_of(out)) == expected
    assert len(set(images_of(out).values())) == len(expected) == 10
    assert (summary.n_targets, summary.n_images, summary.n_made, summary.n_blank, summary.n_cut) == (3, 10, 10, 0, 0)
    for name, row in rows_of(out).items():
        assert (row["first_seed"], row["n_generated"], row["n_present"]) == (first_seed(name), COUNTS[name], 0)
        assert row["edge_score"] is None  # of more than one step
    assert len(list(out.glob("_generated/part-*.parquet"))) == 2


def test_the_commands_follow_each_other(targets, model, made, tmp_path):
    done = command("extraction", "generate", targets, "--model", model, "--out", "g", "--steps", 2, "--noise", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_images"] == 10
    assert "generate: 10 of 10 images" in done.stderr
    assert_same_pixels(tmp_path / "g", made[0])
    scored = command("extraction", "score", targets, "g", "--out", "s", "--workers", 1, "--json", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    scores = pq.read_table(sorted((tmp_path / "s").glob("part-*.parquet"))).to_pylist()
    assert {row["target_id"]: row["n_generations"] for row in scores} == COUNTS
    told = command("extraction", "generate", targets, "--model", model, "--out", "g", "--steps", 2, "--noise", cwd=tmp_path)
    assert "images   10, 0 of them made now" in told.stdout, told.stderr


def test_a_call_that_was_stopped_makes_only_what_is_missing(targets, model, made, tmp_path):
    out = shutil.copytree(made[0], tmp_path / "out")
    gone = [out / FIRST / f"{first_seed(FIRST) + k}.png" for k in (0, 2)]
    sorted(out.glob("_generated/part-*-00000.parquet"))[0].unlink()
    for path in gone:
        path.unlink()
    (out / FIRST / "_0123456789ab-9.png").write_bytes(b"half")
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("[!_]*/[0-9]*.png")}
    summary = generate(targets, out, model, noise=True, targets_per_part=2)
    assert (summary.n_made, summary.n_images) == (2, 10)
    assert summary.notes == ["1 of 2 parts were finished before"]
    assert images_of(out) == images_of(made[0])
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    before, after = rows_of(made[0]), rows_of(out)
    assert (after[FIRST]["n_generated"], after[FIRST]["n_present"]) == (2, 1)
    for name, row in after.items():  # the scores are those of all images, whenever they were made
        assert row["noise_magnitude"] == before[name]["noise_magnitude"]


def test_work_lists_and_what_is_left_of_them(targets, model, made, tmp_path):
    out = tmp_path / "out"
    parts = write_work(targets, str(tmp_path / "work"), n_parts=2)
    generate(parts[0][0], out, model, noise=True, limit=1)
    assert set(images_of(out)) == {name for name in images_of(made[0]) if name.startswith(FIRST)}
    (out / FIRST / f"{first_seed(FIRST) + 2}.png").unlink()
    left = write_work(targets, str(tmp_path / "left"), generations=str(out))
    assert sum(n_images for _, _, n_images in left) == 8
    generate(left[0][0], out, model, noise=True)
    assert images_of(out) == images_of(made[0])
    assert len(list(out.glob("_generated/part-*.parquet"))) == 2  # of either list


def test_no_image_depends_on_the_batch(targets, model, made, tmp_path):
    for batch in (4, 8):
        generate(targets, tmp_path / str(batch), model, noise=True, batch=batch)
        assert_same_pixels(tmp_path / str(batch), made[0])
        for name, row in rows_of(tmp_path / str(batch)).items():
            assert row["noise_magnitude"] == pytest.approx(rows_of(made[0])[name]["noise_magnitude"], rel=1e-5)


def assert_same_pixels(out, other):
    """The same images, but for rounding."""
    assert set(images_of(out)) == set(images_of(other))
    for name in images_of(out):
        pixels = pixels_of(Path(out) / name).astype(int)
        assert pixels.shape == (64, 64, 3)
        assert np.abs(pixels - pixels_of(Path(other) / name)).max() <= 1


def test_what_a_safety_filter_blanks_is_written_and_counted(targets, tmp_path):
    from tiny_diffusion import write_model

    strict = write_model(tmp_path, is_strict=True)
    summary = generate(targets, tmp_path / "out", strict, steps=1)
    assert (summary.n_images, summary.n_blank) == (10, 10)
    assert {pixels_of(path).max() for path in (tmp_path / "out").glob("[!_]*/*.png")} == {0}
    assert {(row["n_blank"], row["edge_score"]) for row in rows_of(tmp_path / "out").values()} == {(3, None), (5, None), (2, None)}
    for path in (tmp_path / "out").glob("_generated/part-*"):
        path.unlink()
    again = generate(targets, tmp_path / "out", strict, steps=1)
    assert (again.n_made, again.n_blank) == (0, 10)


def test_one_step_has_an_edge_score(targets, model, tmp_path):
    from diffusers import PNDMScheduler
    from tiny_diffusion import write_model

    pndm = write_model(tmp_path, scheduler=PNDMScheduler(steps_offset=1, skip_prk_steps=True))
    for number, name in enumerate((model, pndm)):
        out = tmp_path / str(number)
        generate(targets, out, name, steps=1)
        for target, row in rows_of(out).items():
            pictures = [
                Image.fromarray(pixels_of(path)).resize((256, 256), Image.Resampling.LANCZOS) for path in out.glob(f"{target}/*.png")
            ]
            assert row["edge_score"] == pytest.approx(score_by_shifts(np.stack([np.asarray(picture) for picture in pictures])), abs=1e-7)
            assert 0 < row["edge_score"] < 1


def test_the_noise_is_that_of_a_direct_computation(model, made):
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(model)
    with torch.no_grad():
        for target, row in rows_of(made[0]).items():
            magnitudes = [noise_by_hand(pipeline, CAPTIONS[target], first_seed(target) + k, steps=2) for k in range(COUNTS[target])]
            assert row["noise_magnitude"] == pytest.approx(np.mean(magnitudes), rel=1e-4)
            for k, magnitude in enumerate(magnitudes):
                with Image.open(made[0] / target / f"{first_seed(target) + k}.png") as image:
                    assert float(image.text["noise_magnitude"]) == pytest.approx(magnitude, rel=1e-4)
    assert len({row["noise_magnitude"] for row in rows_of(made[0]).values()}) == 3


def noise_by_hand(pipeline, prompt, seed, steps, guidance=7.5):
    """The definition: two calls of the unet at each step of the scheduler."""
    import torch

    def encoded(text):
        tokens = pipeline.tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        return pipeline.text_encoder(tokens.input_ids)[0]

    latent = torch.randn((1, 4, 32, 32), generator=torch.Generator().manual_seed(seed))
    pipeline.scheduler.set_timesteps(steps)
    norms = []
    for step in pipeline.scheduler.timesteps:
        with_text, without = (pipeline.unet(latent, step, encoder_hidden_states=encoded(text)).sample for text in (prompt, ""))
        norms.append(float((with_text - without).square().sum().sqrt()))
        latent = pipeline.scheduler.step(without + guidance * (with_text - without), step, latent).prev_sample
    return np.mean(norms)


class Double:
    """A pipeline on a GPU with room for some images."""

    def __init__(self, room):
        self.room, self.sizes = room, []

    def __call__(self, prompt, num_inference_steps, guidance_scale, generator, height=None, width=None):
        import torch

        self.sizes.append(len(prompt))
        if len(prompt) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        values = [int(torch.randint(256, (), generator=one)) for one in generator]
        return type("Drawn", (), {"images": [Image.new("RGB", (8, 8), (value, 0, 0)) for value in values]})


def test_a_full_gpu_gets_smaller_batches():
    double = Double(3)
    painter = Painter(double, Drawing("m"), 8, "cuda:0")
    drawn = [int(picture.pixels[0, 0, 0]) for picture in painter.draw(["a"] * 7, range(7))]
    assert double.sizes == [7, 3, 3, 1]
    assert drawn == [int(picture.pixels[0, 0, 0]) for picture in Painter(Double(9), Drawing("m"), 9, "cpu").draw(["a"] * 7, range(7))]
    assert painter.notes == ["cuda:0 ran out of memory at 7 images; batches of 3 since then (--batch)"]
    assert not painter.is_cut("a" * 1000)  # it has no tokenizer
    with pytest.raises(StageError, match="cuda:0 has no memory for one image of m; expected room for one at a time; end what else"):
        next(Painter(Double(0), Drawing("m"), 4, "cuda:0").draw(["a"], [0]))


def test_the_user_hears_of_smaller_batches(targets, tmp_path, monkeypatch):
    monkeypatch.setattr("dedup.attack.painter.load_pipeline", lambda *_: Double(2))
    said = Said()
    summary = generate(targets, tmp_path, "m", batch=8, reporter=said)
    assert said.notes[0] == "extraction: cpu ran out of memory at 8 images; batches of 4 since then (--batch)"
    assert len(summary.notes) == 2
    assert summary.n_blank == 10


def test_long_prompts_are_counted_in_silence(model, tmp_path, capfd, caplog):
    targets = write_targets(tmp_path, {"00000000000000aa": "a " * 200, "00000000000000ab": "a cat", "00000000000000ac": "b " * 75})
    said = Said()
    summary = generate(targets, tmp_path / "out", model, reporter=said)
    assert summary.n_cut == 1
    assert [row["is_cut"] for row in rows_of(tmp_path / "out").values()] == [True, False, False]
    assert said.notes == ["extraction: 1 of 3 prompts are longer than the model reads; their ends have no effect"]
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


# ---- what can't work is said in one line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "--steps=0; expected 1 or more"),
        ({"batch": 0}, "--batch=0; expected 1 or more"),
        ({"dtype": "int8"}, "--dtype=int8; expected one of auto, fp16, fp32"),
        ({"dtype": "fp16", "device": "cpu"}, "--dtype=fp16: expected a GPU, found none; choose --dtype fp32"),
        ({"height": 60}, "--height=60; expected a multiple of 8"),
        ({"noise": True, "guidance": 1.0}, "expected --guidance above 1, found 1; raise it, or leave out --noise"),
    ],
)
def test_options_that_can_not_work(targets, model, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        generate(targets, tmp_path, model, **options)
    assert not list(tmp_path.iterdir())


def without_index(folder):
    (folder / "model_index.json").unlink()


def without_scheduler(folder):
    shutil.rmtree(folder / "scheduler")


def naming_no_scheduler(folder):
    index = json.loads((folder / "model_index.json").read_text())
    del index["scheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))


def with_broken_index(folder):
    (folder / "model_index.json").write_text("[1")


def with_broken_weights(folder):
    next((folder / "unet").glob("*.safetensors")).write_bytes(b"no weights")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            without_index,
            r"has no model_index.json; expected a folder with model_index.json, .* found scheduler, text_encoder, tokenizer, unet",
        ),
        (without_scheduler, "has no folder scheduler, which its model_index.json names; save or download the whole model again"),
        (naming_no_scheduler, r"model_index.json names no scheduler; expected one"),
        (with_broken_index, r"model_index.json can't be read: JSONDecodeError: .*; expected a JSON object"),
        (with_broken_weights, r"can't be loaded: .*; save or download the model again"),
    ],
)
def test_a_model_that_is_not_whole(targets, model, tmp_path, damage, message):
    damage(shutil.copytree(model, tmp_path / "model"))
    with pytest.raises(ConfigError, match=message) as caught:
        generate(targets, tmp_path / "out", str(tmp_path / "model"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_there(targets, model, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("nobody/no-such-model", str(tmp_path / "nowhere")):
        with pytest.raises(
            ConfigError, match=r"is no folder here, and can't be fetched \(.*; download the model where there is a network"
        ) as caught:
            generate(targets, tmp_path / "out", name)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    (tmp_path / "model.ckpt").touch()
    with pytest.raises(ConfigError, match="model.ckpt is a file; expected a folder"):
        generate(targets, tmp_path / "out", str(tmp_path / "model.ckpt"))


def test_a_model_that_does_not_fit(targets, tmp_path):
    from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
    from tiny_diffusion import write_model

    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = UNet2DModel(sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, **blocks)
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    with pytest.raises(ConfigError, match="is a DDPMPipeline, which takes no guidance_scale, height, prompt, width; expected a model that"):
        generate(targets, tmp_path / "out", str(tmp_path / "ddpm"))
    by_v = write_model(tmp_path, scheduler=DDIMScheduler(steps_offset=1, clip_sample=False, prediction_type="v_prediction"))
    with pytest.raises(
        ConfigError, match=r"--noise: expected a model that predicts noise \(epsilon\), found that .* predicts v_prediction"
    ):
        generate(targets, tmp_path / "out", by_v, noise=True)


def test_noise_without_a_unet_or_without_guidance_inside():
    from dedup.attack.noise import NoiseMeter

    with pytest.raises(ConfigError, match=r"--noise: expected a pipeline with a unet, found that m \(Double\) has none"):
        Painter(Double(1), Drawing("m", noise=True), 1, "cpu")
    with pytest.raises(ConfigError, match="m computes 3 outputs for 3 images; expected two for each"):
        NoiseMeter(3, "m").add(None, (), (np.zeros((3, 4, 8, 8)),))


@pytest.mark.parametrize("package", ["diffusers", "transformers", "torch"])
def test_without_the_extra_it_is_named(targets, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        MissingExtra, match=rf"needs the package '{package}', which is not installed; run: pip install 'webdedup\[extraction\]'"
    ):
        generate(targets, tmp_path, "m")


def test_a_folder_of_other_images_is_left_alone(targets, model, made, tmp_path):
    out = shutil.copytree(made[0], tmp_path / "out")
    with pytest.raises(RunDirectoryError, match="holds images made with steps 2 and noise True; choose another --out"):
        generate(targets, out, model, steps=3)
    damaged = out / FIRST / f"{first_seed(FIRST)}.png"
    for path in out.glob("_generated/part-*"):
        path.unlink()
    Image.new("RGB", (64, 64)).save(damaged)
    with pytest.raises(InputError, match=f"{damaged.name} has no noise_magnitude; expected an image that this command wrote; delete it"):
        generate(targets, out, model, noise=True)
    damaged.write_bytes(b"no image")
    with pytest.raises(InputError, match=f"{damaged.name} can't be read: .*; delete it and run the same command again"):
        generate(targets, out, model, noise=True)


LINE = {"target_id": "ab", "prompt": "a", "first_seed": 0, "n_generations": 1}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "list.jsonl lists nothing to generate"),
        (["{"], "can't be read as JSON lines"),
        (["[]"], "line 1: expected an object, found list"),
        ([json.dumps(LINE), json.dumps(LINE | {"target_id": "../up"})], "line 2: target_id is '../up'; expected a name for a folder"),
        ([json.dumps(LINE | {"target_id": "_x"})], "target_id is '_x'"),
        ([json.dumps(LINE | {"prompt": None})], "the prompt of ab is None; expected a text"),
        ([json.dumps(LINE | {"n_generations": 0})], "n_generations of ab is 0; expected 1 or more"),
        ([json.dumps(LINE | {"first_seed": -1})], "first_seed of ab is -1; expected a whole number from 0"),
    ],
)
def test_a_list_that_can_not_be_used(tmp_path, lines, message):
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match=message):
        generate(str(tmp_path / "list.jsonl"), tmp_path / "out", "m")
    with pytest.raises(InputError, match="gone.jsonl does not exist"):
        generate(str(tmp_path / "gone.jsonl"), tmp_path / "out", "m")


# ---- on Spark


def test_the_job_takes_the_arguments_of_the_command(monkeypatch):
    from dedup.cli import submit

    given = []
    monkeypatch.setattr(submit, "main", lambda: given.extend(sys.argv[1:]))
    monkeypatch.setattr(sys, "argv", ["generate.py", "targets", "--out", "o"])
    submit.submit_command("extraction", "generate")
    assert given == ["extraction", "generate", "targets", "--out", "o", "--set", "engine.name=spark", "--set", "engine.master="]


@pytest.mark.spark
def test_spark_makes_the_same_images(targets, model, made, tmp_path, start_spark):
    engine = start_spark()
    try:
        summary = generate(targets, tmp_path, model, noise=True, targets_per_part=2, device="cpu", engine=engine)
    finally:
        engine.close()
    assert summary.n_made == 10
    assert images_of(tmp_path) == images_of(made[0])
    assert rows_of(tmp_path) == rows_of(made[0])
