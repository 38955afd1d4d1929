"""The documentation: every config is valid, every snippet and command runs, references are the
code's, and the site builds.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support import SMALL, merged
from typer.main import get_command
from typer.testing import CliRunner

import oreloop
from campaign.backtest import config as backtests
from campaign.cli import app
from campaign.config import loaded as configs
from campaign.study import config as studies

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.parent.name != "reference")


def fences(page: Path) -> Iterator[tuple[str, str]]:
    yield from re.findall(
        r"^```(\w+(?: \w+)?)\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE
    )


def name_of(text: str) -> str:
    """The file that a block says it is, in its first line."""
    found = re.match(r"# (\S+\.(?:yaml|py))\n", text)
    return found[1] if found else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_what_a_page_shows_runs_as_it_stands(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(
        "campaign.config.schema.QueueConfig.lacking", ""
    )  # that they are here is told to who runs, not reads
    for kind, text in fences(page):
        name = name_of(text)
        if kind == "yaml":
            assert name, f"a config needs a first line with its name: {text[:60]}"
            Path(name).write_text(text)
            assert configs.read(Path(name)).parts.oracles
        elif kind in ("yaml backtest", "yaml study"):
            Path(name).write_text(text)
            assert (backtests.read if kind == "yaml backtest" else studies.read)(
                Path(name)
            ).config.name
        elif kind == "yaml fragment":
            document: dict[str, Any] = merged(SMALL, YAML(typ="safe").load(text))
            assert configs.validate(document, folder=tmp_path, source=page).parts
        elif kind == "python" and name:
            Path(name).write_text(text)
        elif kind == "python":
            subprocess.run([sys.executable, "-c", text], check=True, capture_output=True)
        elif kind == "console":
            for line in text.splitlines():
                words = shlex.split(line, comments=True)
                assert words[0] == "oreloop", (
                    f"{line}: only our own commands are run; others belong into a text block"
                )
                result = CliRunner().invoke(app, words[1:])
                assert result.exit_code == 0, f"{line}: {result.output} {result.exception}"
        else:
            assert kind == "text", f"{page}: a block of kind {kind} is not tested"


STUB = """#!/bin/bash
echo "$(basename "$0") $*" >> "$LOG"
case "$(basename "$0")" in
  scontrol) printf 'a\\nb\\n' ;;
  sleep) ;;
  *) trap 'echo "$(basename "$0") was asked to end" >> "$LOG"; exit 0' TERM; while :; do /bin/sleep 0.05; done ;;
esac
"""  # noqa: E501


def test_the_slurm_script_hands_the_signal_to_the_driver(tmp_path: Path) -> None:
    """With stand-ins for Slurm, Ray and the driver: Slurm signals the script's process alone."""
    script = next(text for _, text in fences(DOCS / "how-to" / "clusters.md") if "#SBATCH" in text)
    assert "--signal=B:TERM@" in script
    for name in ("srun", "scontrol", "sleep", "oreloop"):
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "job.sh").write_text(script)
    log = tmp_path / "log"
    surroundings = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "LOG": str(log),
        "SLURM_JOB_NODELIST": "a,b",
    }
    job = subprocess.Popen(
        ["/bin/bash", str(tmp_path / "job.sh")], env=surroundings, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 20
        while (
            "oreloop run" not in (log.read_text() if log.exists() else "")
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        time.sleep(0.2)
        job.terminate()
        job.wait(10)
    finally:
        os.killpg(job.pid, signal.SIGKILL)
    assert [line for line in log.read_text().splitlines() if "was asked" in line] == [
        "oreloop was asked to end"
    ]


def test_commands_in_text_blocks_and_sentences_exist() -> None:
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    for page in PAGES:
        for words in re.findall(r"(?<!from )oreloop ([a-z]+)", page.read_text()):
            assert words in known, f"{page.name}: there is no command {words}"


def test_the_reference_is_the_codes() -> None:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in module.pages().items():
        assert (DOCS / "reference" / name).read_text() == text, "run `python docs/generate.py`"


def test_every_public_name_and_each_of_its_members_is_documented() -> None:
    lacking = []
    for name in (name for name in oreloop.__all__ if not name.startswith("_")):
        found = getattr(oreloop, name)
        members = vars(found).items() if inspect.isclass(found) else ()
        shown = {
            f"{name}.{key}": getattr(value, "__func__", value)
            for key, value in members
            if not key.startswith("_")
        }
        callables = {
            key: value
            for key, value in shown.items()
            if inspect.isfunction(value) or isinstance(value, property)
        }
        lacking += [
            key for key, value in ({name: found} | callables).items() if not inspect.getdoc(value)
        ]
    assert not lacking


def test_the_reference_tells_allowed_values() -> None:
    for row in (
        "| `objective.direction` | `maximize`, `minimize`, `match` | `maximize` |",
        "| `budget.labels` | whole number, at least 1 |",
        "| `space.elements` | list of text | required |",
        "| `space.charge_neutral` | `true`, `false` | `false` |",
    ):
        assert row in (DOCS / "reference" / "config.md").read_text(), row


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--config-file",
        str(ROOT / "mkdocs.yml"),
        "--site-dir",
        str(tmp_path),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "how-to" / "clusters" / "index.html").exists()
    assert (
        'href="../../style.css"' in (tmp_path / "reference" / "config" / "index.html").read_text()
    )
    assert re.search(
        r"\.wy-table-responsive table td,[^}]*white-space: normal",
        (tmp_path / "style.css").read_text(),
    ), "the theme cuts cells"
