"""The notebooks run from the first cell to the last, each in a process of its own, and are kept
without outputs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "docs" / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[Any]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_as_it_stands(path: Path, tmp_path: Path) -> None:
    """A cell's last expression is shown as a notebook would show it."""
    shown = "import ast, sys\nspace = {'__name__': '__main__'}\n"
    for cell in cells(path, "code"):
        shown += f"""
tree = ast.parse({"".join(cell["source"])!r})
last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
exec(compile(tree, "cell", "exec"), space)
if last is not None:
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), space)
    assert value is None or any(hasattr(value, name) for name in ("_repr_html_", "_repr_mimebundle_")) or isinstance(value, (list, str))
"""  # noqa: E501
    done = subprocess.run(
        [sys.executable, "-c", shown],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_whole_and_holds_no_outputs(path: Path) -> None:
    document = json.loads(path.read_text())
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in document["cells"]}) == len(document["cells"])
    assert all(
        not cell["outputs"] and cell["execution_count"] is None for cell in cells(path, "code")
    )
    assert len(cells(path, "markdown")) >= 4
