"""The tab key, as a shell asks: by environment variables."""

import os
import shutil
import subprocess
import sys

import pytest
from commands import dedup
from patience import HANGS_S

from dedup.config.key import STAGE_NAMES
from dedup.config.keys import KEYS

WORDS = [f"{name}=" for name in KEYS]


def complete(line, shell="bash"):
    words = line.split(" ")
    asked = {"_DEDUP_COMPLETE": f"complete_{shell}", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_ARGS": line}
    done = dedup(env=os.environ | asked)
    return done.stdout.split() if shell == "bash" else done.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dedup run ", WORDS),
        ("dedup run input.sh", ["input.shards=", "input.shards=VALUE"]),
        ("dedup run -c conf/cifar10.yaml input.shards=a.tar search.m", ["search.min_similarity=", "search.method="]),
        ("dedup run --set encoder.na", ["encoder.name=", "encoder.name=dct"]),
        ("dedup run --only index index.cod", ["index.codes=", "index.codes=auto"]),
        ("dedup rewrite out cleaned --set ", [key for key in WORDS if key.startswith("engine.")]),
        ("dedup export out --format keys --out k.txt engine.wor", ["engine.workers=", "engine.workers=0"]),
        ("dedup extraction score t g --out x search.", []),
        ("dedup run --only con", ["confirm"]),
        ("dedup run --only pairs,con", ["pairs,confirm"]),
        ("dedup run --from st", ["statistics"]),
        ("dedup run --until ", list(STAGE_NAMES)),
        ("dedup status out confirm.en", ["confirm.enabled=true", "confirm.enabled=false"]),
        ("dedup config targets.t", ["targets.top=", "targets.top=350000"]),
        ("dedup extraction score t g --out x extraction.max_d", ["extraction.max_distance=", "extraction.max_distance=0.15"]),
        ("dedup query out a.jpg --set engine.dev", ["engine.device=", "engine.device=auto"]),
        ("dedup query out a.jpg --set search.", []),
        ("dedup run input.shards=", []),
        ("dedup run nothing.", []),
    ],
)
def test_keys_and_stages(line, expected):
    assert complete(line) == expected


def test_commands_and_options():
    assert {"explain", "extraction"} <= set(complete("dedup ex"))
    assert complete("dedup in") == ["info"]
    assert complete("dedup explain --js") == ["--json"]
    assert "--redo" in complete("dedup run --re")


def test_zsh_shows_meanings():
    said = complete("dedup run search.min_sim", "zsh")
    meaning = KEYS["search.min_similarity"].meaning
    assert "search.min_similarity=" in said
    assert meaning.split(":")[0][:20] in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_that_the_shell_loads(shell):
    done = dedup(env=os.environ | {"_DEDUP_COMPLETE": f"source_{shell}"})
    assert done.returncode == 0
    assert "_DEDUP_COMPLETE" in done.stdout


def test_in_bash_itself(tmp_path):
    """Bash takes key=value for three words, and writes a space behind a word that is the only one."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    (tmp_path / "dedup").write_text(f'#!/bin/sh\nexec {sys.executable} -m dedup "$@"\n')
    (tmp_path / "dedup").chmod(0o755)
    script = """
    eval "$(_DEDUP_COMPLETE=source_bash dedup)"
    press() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _dedup_completion dedup; echo "${COMPREPLY[*]}"; }
    press dedup run input.sh
    press dedup run input.shards =
    press dedup run input.shards = /da
    press dedup run input.shards = a.tar search.vie
    """
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "--norc", "-c", script], capture_output=True, text=True, check=True, env=environment, timeout=HANGS_S)
    assert done.stdout.splitlines() == [
        "input.shards= input.shards=VALUE",
        "",
        "",
        "search.views= search.view_min_similarity=",
    ]
