"""Every snippet of the README works as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from campaign.cli import app
from campaign.config import loaded as configs

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"), ids=lambda text: text.split("\n")[0][6:26].strip())
def test_configs_are_valid(text: str, tmp_path: Path) -> None:
    (tmp_path / "density_oracle.py").write_text(blocks("python")[0])
    (tmp_path / "config.yaml").write_text(text)
    assert configs.read(tmp_path / "config.yaml").parts.oracles


def test_commands_exist_and_take_these_arguments() -> None:
    for line in "\n".join(blocks("console")).splitlines():
        words = line.partition("#")[0].split()
        if words[:1] == ["oreloop"]:
            shown = CliRunner().invoke(app, [words[1], "--help"])
            assert shown.exit_code == 0, line


def test_the_oracle_of_ones_own_runs_from_the_command_line_and_the_notebook_snippet_reads_it(
    tmp_path: Path,
) -> None:
    oracle, _, notebook = blocks("python")
    assert len(oracle.strip().splitlines()) <= 20
    (tmp_path / "density_oracle.py").write_text(oracle)
    config = next(text for text in blocks("yaml") if "densest" in text)
    (tmp_path / "densest.yaml").write_text(config)
    command = [sys.executable, "-m", "campaign.cli", "run", "densest.yaml"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "budget spent: 30 labels" in result.stdout
    script = notebook.replace("campaigns/my-alloy", "campaigns/densest")
    script += "print(len(campaign.labels), len(campaign.rounds), len(campaign.candidates) > 30)\n"
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == ["30", "5", "True"]


def test_the_conformance_kit_snippet_runs(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", blocks("python")[1]], cwd=tmp_path, check=True, capture_output=True
    )


def test_quoted_figures_are_the_committed_ones() -> None:
    """`python -m benchmarks.readme` writes them."""
    from benchmarks.readme import rewritten

    assert rewritten(README) == README


def test_the_page_of_the_papers_follows_from_the_results() -> None:
    """`python -m benchmarks.papers` writes it."""
    from benchmarks.papers import PAGE, PAPERS, page

    assert PAGE.read_text() == page()
    for entries in PAPERS.values():
        for line in entries():
            assert all(cell.strip() for cell in line.cells), line.where
