"""Every notebook runs on small data, uses public names only, and is kept without outputs."""

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from patience import HANGS_S
from shard_data import scene

import dedup
from dedup.demo.shards import make_demo_data

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def source(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Demo shards and a run over them, in the places the notebooks are told."""
    folder = tmp_path_factory.mktemp("notebooks")
    make_demo_data(folder / "shards", n_images=240, per_shard=120, workers=1)
    return folder


def execute(name, folder, **parameters):
    notebook = nbformat.read(FOLDER / name, as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert {node.id for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)} >= set(parameters)
    cell.source += "\n" + "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    NotebookClient(notebook, timeout=int(HANGS_S), resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_they_run_one_after_another(folder, monkeypatch):
    monkeypatch.delenv("MPLBACKEND")  # figures are shown in the notebook, as for a reader
    run_dir = str(folder / "run")
    first = execute("01_shards_to_manifest.ipynb", folder, shards=f"{folder}/shards/*.tar", run_dir=run_dir)
    second = execute("02_duplication_statistics.ipynb", folder, run_dir=run_dir)
    third = execute("03_targets_to_scores.ipynb", folder, run_dir=run_dir, work_dir=str(folder / "attack"), n_targets=6, n_generations=14)
    for notebook in (first, second, third):
        assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
        assert not [output for output in outputs(notebook) if output.output_type == "error" or output.get("name") == "stderr"]
    assert "2 of 6 memorised, 2 extracted; planted 2" in "".join(output.get("text", "") for output in outputs(third))


def test_the_study_of_dose_and_response(folder, monkeypatch):
    monkeypatch.delenv("MPLBACKEND")
    notebook = execute(
        "04_templates_and_detectors.ipynb",
        folder,
        shards=f"{folder}/shards/*.tar",
        work_dir=str(folder / "study"),
        counts=[2, 6],
        images_per_count=2,
        n_generations=12,
    )
    assert sum("image/png" in output.get("data", {}) for output in outputs(notebook)) == 4
    assert not [output for output in outputs(notebook) if output.output_type == "error" or output.get("name") == "stderr"]
    said = "".join(output.get("text", "") for output in outputs(notebook))
    assert "exact 6: 12 of 12 samples are in groups" in said


def test_the_one_on_cifar_runs_on_a_folder_of_its_shape(folder, monkeypatch):
    monkeypatch.delenv("MPLBACKEND")
    for number in range(60):
        name = f"{'test' if number >= 48 else 'train'}/{'ab'[number % 2]}/{number:03d}.png"
        (folder / "cifar" / name).parent.mkdir(parents=True, exist_ok=True)
        scene(number % 40, (32, 32)).save(folder / "cifar" / name)
    notebook = execute("cifar10_duplicates.ipynb", folder, cifar=str(folder / "cifar"), run_dir=str(folder / "cifar-run"), n_generated=10)
    assert sum("image/png" in output.get("data", {}) for output in outputs(notebook)) == 5
    assert "20 images are copies of another" in "".join(output.get("text", "") for output in outputs(notebook))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_they_are_kept_clean_and_import_public_names(path):
    notebook = nbformat.read(path, as_version=4)
    assert not outputs(notebook)
    assert all(cell.get("execution_count") is None for cell in notebook.cells)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells) == 1
    tree = ast.parse(source(notebook))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not [name.name for name in node.names if name.name.startswith("dedup.")]
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("dedup")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "dedup":
            assert node.attr in dedup.__all__, node.attr
