"""The house before and after: sizes, branches, arrows, settings, options, and the ways of a
decision, of a config key and of a failure through the files.

    python -m benchmarks.house --before 29db260 --suite-minutes 36 13.5

Both trees are read by the same means. Branches are ruff's cyclomatic complexity (McCabe's). An
arrow is an import between rooms, which are folders, and the modules that stand in `campaign/`
itself. A way is the files of the library that were entered while it was gone, found by tracing:
a decision replayed; a config with an unknown key refused; a label that fails, less one that does
not.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from benchmarks.record import Row, show, write

ROOT = Path(__file__).parent.parent
PACKAGES = ("oreloop", "campaign", "surrogates", "generators", "oracles")
_COMPLEX = re.compile(r"\((\d+) > 0\)")

COUNT, TRACE = Path(__file__).parent / "house_count.py", Path(__file__).parent / "house_trace.py"


class Tree:
    """A checkout and what is counted in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages = tuple(name for name in PACKAGES if (folder / name).is_dir())

    def _paths(self, *names: str) -> list[Path]:
        return sorted(path for name in names for path in (self.folder / name).rglob("*.py"))

    @cached_property
    def sources(self) -> dict[str, ast.Module]:
        return {
            ".".join(path.relative_to(self.folder).with_suffix("").parts).removesuffix(
                ".__init__"
            ): ast.parse(path.read_text())
            for path in self._paths(*self.packages)
        }

    def functions(self) -> int:
        kinds = ast.FunctionDef | ast.AsyncFunctionDef
        return sum(isinstance(n, kinds) for tree in self.sources.values() for n in ast.walk(tree))

    def branches(self) -> list[int]:
        """Cyclomatic complexity of each function."""
        command = [
            sys.executable, "-m", "ruff", "check", *self.packages, "--isolated", "--select", "C901",
            "--config", "lint.mccabe.max-complexity=0", "--output-format", "json", "--exit-zero",
        ]  # fmt: skip
        told = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True)
        found = (_COMPLEX.search(item["message"]) for item in json.loads(told.stdout))
        return [int(match.group(1)) for match in found if match]

    def imports(self) -> dict[str, set[str]]:
        """Module by module, those of the house that it imports when it is loaded."""
        known = set(self.sources)
        return {name: set(_imported(tree)) & known - {name} for name, tree in self.sources.items()}

    def room(self, module: str) -> str:
        folder = module.rpartition(".")[0]
        return module if folder in ("", "campaign") else folder

    def measured(self) -> Row:
        imports = self.imports()
        arrows = {
            (self.room(one), self.room(other))
            for one, others in imports.items()
            for other in others
            if self.room(one) != self.room(other)
        }
        branches = self.branches()
        of_library = sum(_lines(path) for path in self._paths(*self.packages))
        return {
            "modules": len(self.sources),
            "flat modules in campaign/": len(list((self.folder / "campaign").glob("[!_]*.py"))),
            "rooms": len({self.room(module) for module in self.sources}),
            "arrows between rooms": len(arrows),
            "has circles of modules": _has_circles(imports),
            "functions": self.functions(),
            "cyclomatic complexity, mean": round(statistics.fmean(branches), 2),
            "functions with a complexity above 10": sum(value > 10 for value in branches),
            "lines of the library": of_library,
            "lines of tests per line of the library": round(
                sum(_lines(path) for path in self._paths("tests")) / of_library, 3
            ),
            **self._run(COUNT, {"settings": "settings", "options": "options of commands"}),
            **self._run(
                TRACE,
                {
                    "decision": "files entered by a decision",
                    "key": "files entered by a wrong config key",
                    "failure": "files entered by a failure beyond those of a label",
                    "campaign": "files entered by a small campaign",
                },
            ),
        }

    def _run(self, script: Path, names: Mapping[str, str]) -> Row:
        surroundings = os.environ | {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        told = subprocess.run(
            [sys.executable, str(script), *self.packages],
            cwd=self.folder, env=surroundings, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = json.loads(told.stdout.strip().splitlines()[-1])
        return {name: found[key] for key, name in names.items()}


def _imported(tree: ast.Module) -> Iterator[str]:
    """Imports of the module's own level: those within functions draw no arrow at loading."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Try):
            waiting += node.body


def _has_circles(imports: Mapping[str, set[str]]) -> bool:
    """A package's own face, which imports what it shows, is no room of its own."""
    packages = {name.rpartition(".")[0] for name in imports}
    modules = {
        name: {other for other in others if other not in packages}
        for name, others in imports.items()
        if name not in packages
    }
    try:
        list(TopologicalSorter(modules).static_order())
    except CycleError:
        return True
    return False


def _lines(path: Path) -> int:
    """Those that are not empty, as if none were longer than 100 columns."""
    return sum(-(-len(line) // 100) for line in path.read_text().splitlines() if line.strip())


def at(commit: str, folder: Path) -> Tree:
    """The tree of a commit, in a folder of its own."""
    archive = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    _announce(folder)
    return Tree(folder)


def _announce(folder: Path) -> None:
    """The tree's own plug-ins and commands, in place of those of what is installed."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    facts = folder / f"{project['name']}-0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n")
    (facts / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in names.items())
            for group, names in groups.items()
        )
    )


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Figure by figure, before and after."""
    before, after = rows["trees"]
    return {
        f"{when}: {name}": row[name]
        for name in after
        if name != "tree"
        for when, row in (("before", before), ("after", after))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The house before and after")
    parser.add_argument("--before", default="29db260", help="commit")
    parser.add_argument("--after", default="HEAD", help="commit")
    parser.add_argument(
        "--suite-minutes", nargs=2, type=float, help="of the whole suite, before and after"
    )
    options = parser.parse_args()
    rows: list[Row] = []
    for number, commit in enumerate((options.before, options.after)):
        with tempfile.TemporaryDirectory() as name:
            row = {"tree": commit, **at(commit, Path(name)).measured()}
        if options.suite_minutes:
            row["minutes of the suite"] = options.suite_minutes[number]
        rows.append(row)
    notes = "minutes of the suite as `make test` told them on two quiet cores"
    show(json.loads(write("house", {"trees": rows}, summarise, notes).read_text())["summary"])


if __name__ == "__main__":
    main()
