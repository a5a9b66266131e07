"""The wheel runs the demo where nothing but it and what it says it needs is installed.

To download the requirements again would show no more than this does. The test's environment is empty; into it go the wheel and
links to the distributions that the wheel's own METADATA asks for, and to those that they ask for in turn. What is not asked for
is not there: a requirement that pyproject.toml forgets is a failing import, as it would be for a user. Each link leads to one
module of one distribution, so that neither the tree nor its editable install can be imported in the wheel's place.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dedup.runs.directory import Run
from dedup.storage.tables import read_table

ROOT = Path(__file__).parents[1]
EXTRAS = ("cpu", "demo", "report")  # what README.md and `make demo` install
N_IMAGES = 60

pytestmark = pytest.mark.slow


def succeed(*command: object, **options: object) -> str:
    """What a command prints; it must end well."""
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of the tree, in which setuptools may leave what it likes, and finds nothing that it left before."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "dedup", folder / "tree" / "dedup", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "tree")
    # with the setuptools of the extra `dev`: build isolation would download one
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    succeed(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, folder / "tree")
    return next(folder.glob("*.whl"))


def asked_for(requirements: Iterable[str], extras: Iterable[str]) -> list[Requirement]:
    """Those that hold here, for a distribution installed with these extras."""
    parsed = [Requirement(text) for text in requirements]
    return [one for one in parsed if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))]


def closure(requirements: Iterable[str], extras: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Every distribution that requirements lead to, by name, in the version they want."""
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = asked_for(requirements, extras)
    while todo:
        requirement = todo.pop()
        name, wanted = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            pytest.skip(f"needs the package {name}, for {requirement}")
        assert requirement.specifier.contains(found[name].version, prereleases=True), f"{requirement}, found {found[name].version}"
        todo += asked_for(found[name].requires or [], wanted)
    return found


def link(distribution: metadata.Distribution, folder: Path) -> None:
    """Make the modules, libraries and metadata of a distribution available in a folder of packages."""
    for name in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
        if not (folder / name).exists():
            (folder / name).symlink_to(distribution.locate_file(name))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Folder of an environment that holds the wheel and its requirements, and not even pip."""
    folder = tmp_path_factory.mktemp("environment")
    succeed(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    succeed(*pip, "install", "--no-deps", "--no-index", wheel)
    with zipfile.ZipFile(wheel) as archive:
        (described,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        requirements = message_from_bytes(archive.read(described)).get_all("Requires-Dist", [])
    (packages,) = (folder / "lib").glob("python*/site-packages")
    for distribution in closure(requirements, EXTRAS).values():
        link(distribution, packages)
    return folder


def test_it_holds_every_file_of_the_package(wheel):
    files = (path for path in (ROOT / "dedup").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    # with them the page of `dedup serve`, the templates of the report and py.typed, which no test of the tree would miss
    assert packed == {path.relative_to(ROOT).as_posix() for path in files}


def test_it_runs_the_demo_in_an_empty_environment(environment, tmp_path):
    # nothing of this process's environment that could lead to the tree
    own = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")} | {"PATH": f"{environment}/bin:/usr/bin:/bin"}

    def run(*command: object) -> str:
        return succeed(*command, cwd=tmp_path, env=own)

    questions = "import dedup, importlib.util as u; print(dedup.__file__, *(u.find_spec(name) for name in ('pip', 'pytest', 'torch')))"
    imported, *others = run(environment / "bin" / "python", "-c", questions).split()
    assert Path(imported).is_relative_to(environment)
    assert others == ["None"] * 3
    run(environment / "bin" / "dedup", "demo-data", "shards", "--n-images", N_IMAGES)
    run(environment / "bin" / "dedup", "run", "input.shards=shards/*.tar", "output.run_dir=run", "engine.workers=1")
    layout = Run(str(tmp_path / "run"))
    rows = {name: read_table(layout.table(name)).num_rows for name in ("manifest", "duplicates", "rejected")}
    assert rows["manifest"] > N_IMAGES // 2
    assert rows["duplicates"] > 0
    assert sum(rows.values()) == N_IMAGES
    assert "<svg" in (tmp_path / "run" / "report.html").read_text()  # from the templates in the wheel
