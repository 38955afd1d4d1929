"""VASP's place is taken by a program that reads its inputs and writes its outputs: labels, what is
told of failures, and that what was cut off goes on.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fake_vasp
import pytest
from pymatgen.core import SETTINGS

from benchmarks.slurm_server import Server, lacking
from campaign.api import Campaign
from campaign.crystals.references import elemental
from campaign.errors import InputError
from campaign.types import Crystal, Evaluation, FailureKind
from oracles.dft.vasp import Vasp, VaspConfig

NICKEL = elemental("Ni")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the program and the potentials are."""
    fake_vasp.install(tmp_path)
    fake_vasp.potentials(tmp_path / "psp", {"Ni": "Ni_pv", "Fe": "Fe_pv"})
    monkeypatch.setitem(SETTINGS, "PMG_VASP_PSP_DIR", str(tmp_path / "psp"))
    monkeypatch.delenv("FAKE_VASP", raising=False)
    return tmp_path


def oracle(home: Path, **settings: Any) -> Vasp:
    given = {"custodian": False, "inputs_only": False, "command": [str(home / "vasp_std")]}
    return Vasp(VaspConfig.model_validate({"folder": home / "runs"} | given | settings))


def failed(home: Path, fault: str, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Evaluation:
    monkeypatch.setenv("FAKE_VASP", fault)
    evaluation = oracle(home, **settings).evaluate(NICKEL)
    monkeypatch.delenv("FAKE_VASP")
    assert evaluation.failure is not None
    return evaluation


def begun(home: Path, crystal: Crystal = NICKEL) -> list[float]:
    """Edges (angstrom) that the runs of a crystal began with."""
    return [float(line) for line in (home / "runs" / crystal.id / "runs").read_text().split()]


def test_a_relaxation_is_a_label_with_the_relaxed_crystal(home: Path) -> None:
    evaluation = oracle(home, version="6.4").evaluate(NICKEL)
    assert evaluation.failure is None, evaluation.failure
    assert evaluation.value("energy_per_atom") == pytest.approx(-3.0)
    relaxed = fake_vasp.RELAXED**3 * NICKEL.volume / len(NICKEL)
    assert evaluation.value("volume_per_atom") == pytest.approx(relaxed, rel=1e-5)
    assert evaluation.crystal is not None
    assert evaluation.crystal.volume == pytest.approx(relaxed * len(NICKEL), rel=1e-5)


def test_a_result_that_is_there_is_not_computed_again(home: Path) -> None:
    first, second = (oracle(home).evaluate(NICKEL) for _ in range(2))
    assert first == second
    assert len(begun(home)) == 1


@pytest.mark.parametrize("fault", ["killed", "steps"])
def test_a_relaxation_that_was_cut_off_goes_on_from_its_last_geometry(
    home: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed(home, fault, monkeypatch)
    evaluation = oracle(home).evaluate(NICKEL)
    assert evaluation.failure is None, evaluation.failure
    first, second = begun(home)
    assert second == pytest.approx(0.95 * first)
    assert evaluation.value("volume_per_atom") == pytest.approx(
        fake_vasp.RELAXED**3 * NICKEL.volume / len(NICKEL), rel=1e-5
    )


@pytest.mark.parametrize("text", ["", "half a li", "no\ngeometry\nat\nall\n"])
def test_half_a_last_geometry_is_not_gone_on_from(
    home: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed(home, "killed", monkeypatch)
    (home / "runs" / NICKEL.id / "CONTCAR").write_text(text)
    assert oracle(home).evaluate(NICKEL).failure is None
    first, second = begun(home)
    assert second == first


@pytest.mark.parametrize(
    ("fault", "kind", "told", "is_retried"),
    [
        ("memory", FailureKind.OUT_OF_MEMORY, "out of memory", True),
        ("killed", FailureKind.INFRASTRUCTURE, "killed by signal 9", True),
        ("input", FailureKind.CRASH, "refuses its input .*Error reading item 'ENCUT'", False),
        ("crash", FailureKind.CRASH, "code 174.*segmentation fault", True),
        ("steps", FailureKind.NOT_CONVERGED, "did not converge the geometry", True),
        ("electrons", FailureKind.NOT_CONVERGED, "did not converge the electrons", True),
    ],
)
def test_failures_are_told_apart(
    home: Path,
    fault: str,
    kind: FailureKind,
    told: str,
    is_retried: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failure = failed(home, fault, monkeypatch).failure
    assert failure is not None
    assert failure.kind is kind, failure
    assert failure.retryable is is_retried
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(failure.message)


def test_another_version_of_vasp_is_refused(home: Path) -> None:
    failure = oracle(home, version="5.4").evaluate(NICKEL).failure
    assert failure is not None
    assert not failure.retryable
    assert "VASP 5.4 was asked for (version), 6.4.3 ran" in failure.message


def test_potentials_are_looked_for_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert oracle(home).elements == {"Ni", "Fe"}
    monkeypatch.setitem(SETTINGS, "PMG_VASP_PSP_DIR", str(home / "nowhere"))
    with pytest.raises(InputError, match=r"PMG_VASP_PSP_DIR names no folder \(.*nowhere\)"):
        oracle(home)
    monkeypatch.delitem(SETTINGS, "PMG_VASP_PSP_DIR")
    with pytest.raises(InputError, match="PMG_VASP_PSP_DIR is not set"):
        oracle(home)


def test_a_missing_potential_is_no_reason_to_try_again(home: Path) -> None:
    failure = oracle(home).evaluate(elemental("Cr")).failure
    assert failure is not None
    assert not failure.retryable
    assert "Cr_pv" in failure.message


def test_what_a_label_means_holds_what_it_was_made_with(home: Path) -> None:
    same = oracle(home, version="6.4")
    assert same.fidelity.key == oracle(home, version="6.4", incar={"NCORE": 4}).fidelity.key
    others = [
        oracle(home, version="6.5"),
        oracle(home, version="6.4", set="MPStaticSet"),
        oracle(home, version="6.4", cutoff=700),
        oracle(home, version="6.4", incar={"ISMEAR": 0}),
    ]
    path = home / "psp" / "POT_GGA_PAW_PBE" / "Ni_pv" / "POTCAR"
    path.write_text(path.read_text().replace("270.000", "271.000"))
    others.append(oracle(home, version="6.4"))
    keys = {same.fidelity.key, *(other.fidelity.key for other in others)}
    assert len(keys) == 6


@pytest.mark.parametrize(
    ("name", "folder", "functional", "relaxes"),
    [
        ("MatPESStaticSet", "POT_PAW_PBE_64", "pbe", False),
        ("MPScanRelaxSet", "POT_GGA_PAW_PBE_54", "r2scan", True),
        ("MP24StaticSet", "POT_PAW_PBE_64", "r2scan", False),
    ],
)
def test_each_set_takes_its_own_potentials(
    home: Path, name: str, folder: str, functional: str, relaxes: bool
) -> None:
    with pytest.raises(InputError, match="potentials are not found"):
        oracle(home, set=name)
    fake_vasp.potentials(home / "psp", {"Ni": "Ni_pv"}, folder)
    found = oracle(home, set=name)
    assert found.fidelity.name == f"dft-{functional}-vasp"
    assert found.relaxes_volume is relaxes
    evaluation = found.evaluate(NICKEL)
    assert evaluation.failure is None, evaluation.failure
    scale = fake_vasp.RELAXED**3 if relaxes else 1.0
    assert evaluation.value("volume_per_atom") == pytest.approx(
        scale * NICKEL.volume / len(NICKEL), rel=1e-5
    )


@pytest.mark.skipif(find_spec("custodian") is None, reason='pip install "oreloop[vasp]"')
@pytest.mark.parametrize("fault", ["", "electrons", "crash"])
def test_custodian_runs_vasp(home: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VASP", fault)
    failure = oracle(home, custodian=True).evaluate(NICKEL).failure
    kinds = {"": None, "electrons": FailureKind.NOT_CONVERGED, "crash": FailureKind.CRASH}
    assert (failure.kind if failure is not None else None) is kinds[fault], failure


@pytest.mark.skipif(bool(lacking()), reason=lacking())
def test_the_config_of_the_documentation_labels_by_vasp_as_jobs(
    home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path_factory.mktemp("slurm"))
    try:
        for name, value in server.surroundings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PMG_VASP_PSP_DIR", str(home / "psp"))
        monkeypatch.setenv("PATH", f"{home}:{os.environ['PATH']}")
        page = (Path(__file__).parent.parent.parent / "docs" / "how-to" / "dft.md").read_text()
        text = "# vasp.yaml" + page.partition("# vasp.yaml")[2].partition("```")[0]
        config = home / "vasp.yaml"
        config.write_text(text.replace("module load vasp/6.4.3", f"export PATH={home}:$PATH"))
        found = Campaign.from_config(config, home / "campaign")
        found.run()
        state = found.state()
        assert not state.failures
        assert [label.values["energy_per_atom"] for label in state.labels.values()] == [-3.0, -3.0]
        assert len(list((home / "calculations").glob("*/vasprun.xml"))) == 2
    finally:
        server.stop()
