"""No code from data: pickles that would create a file, wherever the project reads; and no secret in what it says."""

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_data import Sample, detailed, encode, write_tar

import dedup
from dedup.engines.spark.shipment import _opened, _sealed
from dedup.errors import ConfigError, DedupError, InputError, StageError


class Payload:
    """Whoever unpickles it creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def marker(tmp_path):
    """A path that must not come to be; the payload would make it."""
    path = tmp_path / "it-ran"
    pickle.loads(pickle.dumps(Payload(path)))
    path.rmdir()  # it works
    yield path
    assert not path.exists()


def object_array(marker):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload(marker)] * 3, dtype=object), allow_pickle=True)
    return buffer.getvalue()


def members(marker):
    """Suffix and bytes of what a careless reader would load by its suffix, as webdataset's own decoders do."""
    plain = pickle.dumps(Payload(marker))
    yield from (
        (suffix, plain) for suffix in ("pyd", "pickle", "pkl", "pth", "pt", "ten", "joblib", "cls", "index", "txt", "json", "caption")
    )
    yield "npy", object_array(marker)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("arr.npy", object_array(marker))
    yield "npz", packed.getvalue()
    yield "yaml", f"!!python/object/apply:os.mkdir ['{marker}']".encode()
    yield "py", f"import os; os.mkdir({str(marker)!r})".encode()


def write_shard(path, marker):
    """Samples of an image and a payload each; one that is a payload by the name of an image."""
    with tarfile.open(path, "w") as tar:
        found = [(f"{number:03d}", suffix, data) for number, (suffix, data) in enumerate(members(marker))]
        for key, suffix, data in [*found, ("image", "jpg", pickle.dumps(Payload(marker)))]:
            parts = [(suffix, data)] if key == "image" else [("jpg", encode(detailed(int(key)))), (suffix, data)]
            for name, part in parts:
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size = len(part)
                tar.addfile(info, io.BytesIO(part))
    return len(found)


def run(*settings):
    return dedup.run(dedup.load_config(None, [*map(str, settings), "engine.workers=1"]))


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "dedup", *map(str, arguments)], capture_output=True, text=True, env=os.environ | environment, check=False
    )


@pytest.mark.slow
def test_shards_and_what_is_made_of_them(marker, tmp_path):
    n = write_shard(tmp_path / "a.tar", marker)
    write_tar(tmp_path / "b.tar", [Sample("b", encode(detailed(3)))])
    (tmp_path / "a.json").write_bytes(pickle.dumps(Payload(marker)))
    carried = {name: [pickle.dumps(Payload(marker))] for name in ("pyd", "json", "npy")}
    pq.write_table(pa.table({"key": ["000"], "caption": [pickle.dumps(Payload(marker))], **carried}), tmp_path / "a.parquet")
    run_dir = tmp_path / "run"
    run(f"input.shards={tmp_path}/*.tar", f"output.run_dir={run_dir}", "input.sidecar=true", "input.carry=pyd,json,npy")
    rejected = pq.read_table(run_dir / "embeddings" / "rejected").to_pylist()
    assert [(row["key"], row["reason"]) for row in rejected] == [("image", "undecodable_image")]
    assert pq.read_table(run_dir / "manifest").num_rows == n
    dedup.rewrite(str(run_dir), str(tmp_path / "clean"))
    with tarfile.open(tmp_path / "clean" / "00000.tar") as tar:
        copied = {member.name for member in tar}
    assert "000.pyd" in copied  # it is the user's, and goes on as it is
    dedup.write_report(str(run_dir), str(tmp_path / "report.html"))
    query = command("query", run_dir, tmp_path / "a.tar", "--json")
    assert query.returncode == 0, query.stderr
    score = command("extraction", "score", run_dir, tmp_path, "--out", tmp_path / "scores")
    assert score.returncode in (1, 2), score.stdout


def test_folders_lists_and_captions(marker, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "good.jpg").write_bytes(encode(detailed(1)))
    for number, (suffix, data) in enumerate(members(marker)):
        (folder / f"{number}.{suffix}").write_bytes(data)
        (folder / f"{number}.jpg").write_bytes(data)
    run_dir = tmp_path / "run"
    run(f"input.images={folder}", f"output.run_dir={run_dir}")
    assert pq.read_table(run_dir / "manifest")["key"].to_pylist() == ["good.jpg"]
    for name in ("captions.csv", "captions.parquet", "captions.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Payload(marker)))
        with pytest.raises(DedupError):
            run(f"input.images={folder}", f"output.run_dir={tmp_path}/other-{name}", f"input.captions={tmp_path}/{name}")
    for name in ("list.csv", "list.parquet", "list.pkl", "list.npy"):
        (tmp_path / name).write_bytes(object_array(marker) if name.endswith("npy") else pickle.dumps(Payload(marker)))
        with pytest.raises(DedupError):
            dedup.rewrite(str(run_dir), str(tmp_path / f"clean-{name}"), keep_list=str(tmp_path / name))
        with pytest.raises(DedupError):
            run(f"input.images={folder}", f"output.run_dir={tmp_path}/third-{name}", f"exclude.list={tmp_path}/{name}")


@pytest.mark.slow
def test_arrays_of_a_run_and_of_others(marker, tmp_path):
    folder = tmp_path / "embeddings"
    folder.mkdir()
    (folder / "a.npy").write_bytes(object_array(marker))
    pq.write_table(pa.table({"key": ["a", "b", "c"]}), folder / "a.parquet")
    with pytest.raises(DedupError, match=r"a\.npy"):
        run(f"input.embeddings={folder}", f"output.run_dir={tmp_path}/precomputed", "encoder.name=precomputed")
    write_tar(tmp_path / "a.tar", [Sample(f"{number}", encode(detailed(number % 3))) for number in range(4)])
    run_dir = tmp_path / "run"
    settings = [f"input.shards={tmp_path}/a.tar", f"output.run_dir={run_dir}", "embed.thumbnails=true"]
    run(*settings)
    arrays = [path for path in run_dir.rglob("*") if path.suffix in (".npy", ".npz", ".faiss", ".bin")]
    assert len(arrays) >= 7
    for path in arrays:
        whole = path.read_bytes()
        path.write_bytes(object_array(marker))
        with contextlib.suppress(Exception):
            dedup.open_index(str(run_dir)).search(encode(detailed(1)))
        assert not marker.exists(), path
        path.write_bytes(whole)
    for path in arrays:
        path.write_bytes(object_array(marker))
    for arguments in (
        ["query", run_dir, tmp_path / "a.tar"],
        ["run", *settings],
        ["run", "--only", "index", f"output.run_dir={run_dir}", "--redo"],
    ):
        found = command(*arguments)
        assert "Traceback" not in found.stderr, found.stderr
        assert not marker.exists(), arguments


def test_configuration(marker, tmp_path):
    for text in (f"!!python/object/apply:os.mkdir ['{marker}']", f"input:\n  shards: !!python/object/apply:os.mkdir ['{marker}']"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigError):
            dedup.load_config(str(tmp_path / "bad.yaml"))


@pytest.mark.slow
def test_checkpoints(marker, tmp_path, require_extra):
    torch = require_extra("torch")
    require_extra("open_clip")
    from tiny_clip import write_architecture

    architecture = write_architecture(tmp_path)
    write_tar(tmp_path / "a.tar", [Sample("a", encode(detailed(1)))])
    torch.save({"state_dict": Payload(marker)}, tmp_path / "weights.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Payload(marker)))
    for encoder, name in (("clip", "weights.pt"), ("clip", "plain.pt"), ("torchscript", "plain.pt")):
        with pytest.raises(DedupError):
            run(f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/{encoder}-{name}", f"encoder.name={encoder}", f"encoder.model={architecture}", f"encoder.pretrained={tmp_path}/{name}")  # fmt: skip
        assert not marker.exists(), (encoder, name)


def test_tasks_on_their_way_to_workers(marker):
    """The only pickles there are: Spark's tasks and results, in the run's own scratch folder."""
    assert _opened(b"k" * 32, "result-1", _sealed(b"k" * 32, "result-1", {"a": 1})) == {"a": 1}
    good = _sealed(b"other", "result-1", Payload(marker))
    for sealed in (good, pickle.dumps(Payload(marker)), b"", bytes(32) + pickle.dumps(Payload(marker))):
        with pytest.raises(StageError, match="was not loaded"):
            _opened(b"k" * 32, "result-1", sealed)
    with pytest.raises(StageError, match="was not loaded"):
        _opened(b"other", "result-2", good)


SECRET = "s3cr3tValue"


@pytest.mark.parametrize(
    "setting",
    [
        "input.shards=s3://KEY:{}@bucket/a.tar",
        "input.shards=simplecache::https://me:{}@127.0.0.1:9/a.tar",
        "input.images=https://me:{}@127.0.0.1:9/pictures",
        "exclude.list=ftp://me:{}@127.0.0.1/list.txt",
        "base.run_dir=s3://KEY:{}@bucket/run",
    ],
)
def test_a_password_in_an_address_is_refused(tmp_path, setting):
    key = setting.partition("=")[0]
    with pytest.raises(ConfigError, match=f"{key} holds a password") as found:
        run(setting.format(SECRET), f"output.run_dir={tmp_path}/run")
    assert SECRET not in str(found.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("query", ["X-Amz-Credential=AKIA{0}&X-Amz-Signature={0}", "sig={0}&part=1", "token={0}", "Policy={0}"])
def test_a_signed_address_is_not_told(tmp_path, query):
    address = f"http://127.0.0.1:9/{{a,b}}.tar?{query.format(SECRET)}"
    found = command("run", f"input.shards={address}", f"output.run_dir={tmp_path}/run", NO_COLOR="1")
    assert found.returncode == 1
    assert "127.0.0.1:9/a.tar" in found.stderr
    assert SECRET not in found.stdout + found.stderr


def test_settings_of_the_engine_and_the_environment_are_not_recorded(tmp_path):
    write_tar(tmp_path / "a.tar", [Sample(f"{number}", encode(detailed(number))) for number in range(3)])
    found = command("run", f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/run", f"engine.spark=spark.hadoop.fs.s3a.secret.key={SECRET}", AWS_SECRET_ACCESS_KEY=SECRET, HF_TOKEN=SECRET)  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert SECRET not in found.stdout + found.stderr
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    for name in ("_config.json", "_stages/index.json"):
        assert "engine" not in json.loads((tmp_path / "run" / name).read_text())


def test_no_address_is_opened_that_data_names(tmp_path):
    """What a caption, a url or a path in a tar names is text."""
    entry = Sample(
        "../../etc/a", encode(detailed(1)), "file:///etc/passwd", url=f"file://{tmp_path}/secret", extra={"caption": "${oc.env:HOME}"}
    )
    write_tar(tmp_path / "a.tar", [entry])
    run(f"input.shards={tmp_path}/a.tar", f"output.run_dir={tmp_path}/run")
    row = pq.read_table(tmp_path / "run" / "manifest").to_pylist()[0]
    assert (row["key"], row["caption"]) == ("../../etc/a", "file:///etc/passwd")
    with pytest.raises((DedupError, InputError)):
        dedup.load_config(None, ["input.shards=a", "no.such=${oc.env:HOME}"])
