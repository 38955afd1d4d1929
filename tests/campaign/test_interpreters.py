"""Oracles in an interpreter of their own: whatever command starts it, and whatever is wrong with
it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support import HELPERS, load

from campaign import interpreters, plugins
from campaign.errors import InputError
from campaign.executors.serial import SerialExecutor
from campaign.protocols import (
    EvaluatesMany,
    EvaluationJob,
    HasElements,
    Oracle,
    OracleSpec,
    PluginSpec,
    RelaxesVolume,
)
from campaign.types import Candidate, Crystal, Evaluation

NICKEL = Crystal(
    [[3.52, 0, 0], [0, 3.52, 0], [0, 0, 3.52]],
    [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
    [28] * 4,
)


def spec(
    python: tuple[str, ...],
    use: str = "lennard_jones",
    folder: Path | None = None,
    **params: object,
) -> PluginSpec:
    return PluginSpec(
        group="oracles",
        use=use,
        params=params,
        module_folder=str(folder) if folder else None,
        python=python,
    )


def script(folder: Path, text: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def labelled(plugin: PluginSpec) -> Evaluation:
    executor = SerialExecutor()
    oracle = OracleSpec(
        name="one", plugin=plugin, fidelity=plugins.fidelity_of(plugins.build(plugin), plugin).key
    )
    executor.start([oracle])
    try:
        executor.submit(EvaluationJob(key="k", oracle="one", candidate=Candidate(NICKEL)))
        while not (finished := executor.wait(1.0)):
            pass
        return finished[0].evaluation
    finally:
        executor.shutdown()


@pytest.mark.parametrize("command", ["plain", "words", "noise"])
def test_a_label_is_the_same_whatever_starts_the_interpreter(command: str, tmp_path: Path) -> None:
    """A wrapper, such as a container's, may print what it likes before our own program begins."""
    noise = script(
        tmp_path, f'head -c 5000 /dev/urandom; echo "<oreloop>"; exec "{sys.executable}" "$@"'
    )
    python = {
        "plain": (sys.executable,),
        "words": ("env", "A=1", sys.executable),
        "noise": (noise,),
    }[command]
    here, there = labelled(spec(())), labelled(spec(python))
    assert there.failure is None
    assert there.observations == here.observations
    assert there.fidelity == here.fidelity


def test_what_an_oracle_states_is_known_here_and_nothing_more() -> None:
    """Without its module ever being imported in this process."""
    foreign = plugins.build(spec((sys.executable,), "lammps_bulk_modulus"))
    own = plugins.build(spec((), "lammps_bulk_modulus"))
    assert isinstance(foreign, Oracle)
    assert isinstance(foreign, HasElements)
    assert isinstance(foreign, RelaxesVolume)
    assert (foreign.quantities, foreign.elements, foreign.relaxes_volume) == (
        tuple(own.quantities),
        own.elements,
        own.relaxes_volume,
    )
    simple = plugins.build(spec((sys.executable,)))
    assert not isinstance(simple, HasElements)
    first, second = simple.evaluate(NICKEL), plugins.build(spec(())).evaluate(NICKEL)
    assert first.observations == second.observations
    settings = {"epsilon": 0.2, "strain": 1e-3}
    assert plugins.known_settings(spec((sys.executable,)), settings) == {"epsilon": 0.2}


def test_a_users_module_is_imported_there_and_not_here(tmp_path: Path) -> None:
    (tmp_path / "only_there.py").write_text(
        "import os\nfrom campaign.types import Evaluation, Quantity\n\n"
        "class Mine:\n    quantities = (Quantity('pid', '1'),)\n\n"
        "    def evaluate(self, crystal):\n        print('a line that is no answer')\n"
        "        return Evaluation.single(self.quantities[0], os.getpid())\n"
    )
    found = labelled(spec((sys.executable,), "only_there:Mine", tmp_path))
    assert found.value("pid") != os.getpid()
    assert "only_there" not in sys.modules


FAULTS = {
    "not there": (("/no/such/python",), "/no/such/python, is not there"),
    "no command": (
        ("no-such-command-anywhere", "python"),
        "no-such-command-anywhere, is not there",
    ),
    "a folder": (("/tmp",), "is not there"),
    "no interpreter": (("true",), "gave no answer: exit code 0"),
    "without packages": ((sys.executable, "-S"), "No module named 'pydantic'"),
    "another program's words": (
        (sys.executable, "-c", "raise SystemExit('no image')"),
        "gave no answer: no image",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_interpreter_that_is_no_good_is_told_at_its_place(fault: str) -> None:
    python, message = FAULTS[fault]
    with pytest.raises(InputError) as raised:
        _ = load(HELPERS, oracles=[{"use": "lennard_jones", "python": list(python)}]).parts
    assert message in raised.value.message
    assert raised.value.hint
    assert "\n" not in raised.value.message


def test_what_is_wrong_with_settings_is_told_from_there_as_from_here() -> None:
    told = []
    for python in (None, [sys.executable]):
        with pytest.raises(InputError) as raised:
            _ = load(
                HELPERS,
                oracles=[{"use": "lennard_jones", "python": python, "params": {"epsilom": 1}}],
            ).parts
        told.append(raised.value.message)
    assert told[0] == told[1]
    assert "did you mean 'epsilon'" in told[0]


def test_a_path_starts_at_the_configs_folder_and_a_links_name_is_kept(tmp_path: Path) -> None:
    """The link in a virtual environment is what makes it one."""
    (tmp_path / "python").symlink_to(sys.executable)
    assert interpreters.words_of("./python", tmp_path) == (str(tmp_path / "python"),)
    assert interpreters.words_of(("apptainer", "exec", "a.sif", "python"), tmp_path) == (
        "apptainer",
        "exec",
        "a.sif",
        "python",
    )
    assert interpreters.words_of(None, tmp_path) == ()


def test_another_interpreter_sees_none_of_this_ones_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setattr(sys, "path", [*sys.path, "/home/of/a/user"])
    assert "PYTHONPATH" not in interpreters.surroundings(("python",))
    assert interpreters.surroundings(())["PYTHONPATH"] == "/somewhere"
    seen = interpreters.search_path(("python",))
    assert "/home/of/a/user" in seen
    assert not any("site-packages" in folder for folder in seen)


def test_an_oracle_that_takes_many_does_so_from_another_interpreter(tmp_path: Path) -> None:
    (tmp_path / "lab.py").write_text(
        "from campaign.types import ENERGY_PER_ATOM, Evaluation, Observation\n"
        "class Counts:\n"
        "    quantities = (ENERGY_PER_ATOM,)\n"
        "    def evaluate(self, crystal):\n"
        "        raise NotImplementedError\n"
        "    def evaluate_many(self, crystals):\n"
        "        for i in reversed(range(len(crystals))):\n"
        "            value = float(len(crystals[i]) + 100 * len(crystals))\n"
        "            yield i, Evaluation(observations=(Observation(ENERGY_PER_ATOM.name, "
        "value, ENERGY_PER_ATOM.unit),))\n"
    )
    oracle = plugins.build(spec((sys.executable,), "lab:Counts", tmp_path))
    assert isinstance(oracle, EvaluatesMany)
    doubled = Crystal.from_atoms(NICKEL.atoms.repeat((2, 1, 1)))
    found = list(oracle.evaluate_many([NICKEL, doubled, NICKEL]))
    assert [(i, evaluation.observations[0].value) for i, evaluation in found] == [
        (2, 304.0),
        (1, 308.0),
        (0, 304.0),
    ]
    assert not isinstance(plugins.build(spec((sys.executable,))), EvaluatesMany)
