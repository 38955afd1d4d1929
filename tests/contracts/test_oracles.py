"""What every oracle that ships must keep."""

from __future__ import annotations

import csv
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from campaign import plugins
from campaign.crystals.lattice import supercell
from campaign.executors import sanity
from campaign.executors.worker import OracleWorker
from campaign.files import write_whole
from campaign.protocols import EvaluationJob, Oracle, OracleSpec, PluginSpec
from campaign.types import Candidate, Crystal, Evaluation, FailureKind, Observation
from oracles.analytic import LennardJones, LennardJonesConfig
from oracles.ask_tell import AskTell, AskTellConfig

CRYSTAL = supercell("bcc", (2, 2, 1), ["Ni", "Fe", "Cr", "Ni", "Fe", "Cr", "Ni", "Fe"])


def spec(use: str, **params: Any) -> OracleSpec:
    return OracleSpec(name=use, plugin=PluginSpec(group="oracles", use=use, params=params))


@pytest.mark.parametrize("use", ["lammps_bulk_modulus", "lennard_jones"])
def test_an_oracle_gives_each_promised_quantity_in_its_unit_again_and_again(use: str) -> None:
    worker = OracleWorker(spec(use), "w", 1)
    oracle = plugins.build(spec(use).plugin)
    assert isinstance(oracle, Oracle)
    first, second = (
        worker.evaluate(EvaluationJob(key="k", oracle=use, candidate=Candidate(CRYSTAL)))
        for _ in range(2)
    )
    assert first.failure is None
    assert {(o.quantity, o.unit) for o in first.observations} == {
        (q.name, q.unit) for q in oracle.quantities
    }
    assert [o.value for o in first.observations] == pytest.approx(
        [o.value for o in second.observations], abs=1e-9
    )
    assert first.cost.wall_seconds > 0
    assert first.cost.worker == "w"


def test_lennard_jones_energy_of_a_dimer_in_a_large_cell() -> None:
    """Two atoms at the minimum of the pair energy: -epsilon + the shift at the cutoff, shared by
    two atoms.
    """
    diameter = 2 * 1.24
    crystal = Crystal(np.eye(3) * 30, np.array([[0, 0, 0], [diameter / 30, 0, 0]]), [28, 28])  # type: ignore[arg-type]
    value = LennardJones(LennardJonesConfig(epsilon=0.3)).evaluate(crystal).value("energy_per_atom")
    edge = (diameter / 7.0) ** 6 / 2
    assert value == pytest.approx(0.5 * (-0.3 - 4 * 0.3 * (edge**2 - edge)), rel=1e-9)


def evaluation(**values: float) -> Evaluation:
    return Evaluation(
        observations=tuple(Observation(name, value, "eV/atom") for name, value in values.items())
    )


ENERGY = LennardJones.quantities


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (evaluation(energy_per_atom=float("nan")), FailureKind.UNPHYSICAL, "is nan"),
        (evaluation(energy_per_atom=-99.0), FailureKind.UNPHYSICAL, "outside -5 to 5"),
        (evaluation(), FailureKind.CRASH, "promised energy_per_atom"),
        (
            Evaluation(observations=(Observation("energy_per_atom", 1.0, "kJ/mol"),)),
            FailureKind.UNPHYSICAL,
            "came in kJ/mol, expected eV/atom",
        ),
    ],
)
def test_unbelievable_answers_are_no_labels(
    answer: Evaluation, kind: FailureKind, message: str
) -> None:
    failure = sanity.check(answer, CRYSTAL, ENERGY, {"energy_per_atom": (-5.0, 5.0)})
    assert failure is not None
    assert failure.kind is kind
    assert message in failure.message


@pytest.mark.parametrize(
    ("relaxed", "message"),
    [
        (
            Crystal(1.5 * CRYSTAL.lattice, CRYSTAL.fractional, CRYSTAL.numbers),
            "volume changed by a factor of 3.3",
        ),
        (
            Crystal(CRYSTAL.lattice, CRYSTAL.fractional * 0.05, CRYSTAL.numbers),
            "apart after relaxation",
        ),
        (CRYSTAL.with_numbers([28] * 8), "the candidate was"),
    ],
)
def test_cells_that_fell_apart_are_no_labels(relaxed: Crystal, message: str) -> None:
    answer = Evaluation(observations=evaluation(energy_per_atom=0.0).observations, crystal=relaxed)
    failure = sanity.check(answer, CRYSTAL, ENERGY, {})
    assert failure is not None
    assert message in failure.message


def test_exceptions_and_wrong_types_do_not_cross_the_wall(tmp_path: Path) -> None:
    (tmp_path / "odd_oracles.py").write_text(
        "from campaign.types import ENERGY_PER_ATOM\n"
        "class Odd:\n"
        "    quantities = (ENERGY_PER_ATOM,)\n"
        "    def __init__(self, what): self.what = what\n"
        "    def evaluate(self, crystal):\n"
        "        if self.what == 'memory': raise MemoryError\n"
        "        return 3.0 if self.what == 'number' else 1 / 0\n"
    )
    for what, kind, message in (
        ("memory", FailureKind.OUT_OF_MEMORY, "memory"),
        ("number", FailureKind.CRASH, "returned float"),
        (
            "error",
            FailureKind.CRASH,
            "ZeroDivisionError: division by zero (odd_oracles.py, line 7)",
        ),
    ):
        plugin = PluginSpec(
            group="oracles",
            use="odd_oracles:Odd",
            params={"what": what},
            module_folder=str(tmp_path),
        )
        worker = OracleWorker(OracleSpec(name="odd", plugin=plugin), "w", 1)
        failure = worker.evaluate(
            EvaluationJob(key="k", oracle="odd", candidate=Candidate(CRYSTAL))
        ).failure
        assert failure is not None
        assert failure.kind is kind
        assert message in failure.message


def ask(folder: Path, **settings: Any) -> AskTell:
    return AskTell(
        AskTellConfig(folder=folder, quantities={"hardness": "GPa"}, poll_seconds=0.02, **settings)
    )


def test_questions_are_asked_once_and_answers_read_when_they_come(tmp_path: Path) -> None:
    crystal = Crystal.from_atoms(bulk("Fe"))
    answers: list[Evaluation] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(tmp_path).evaluate(crystal)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    while not (tmp_path / f"{crystal.id}.cif").exists():
        time.sleep(0.01)
    time.sleep(0.1)
    with (tmp_path / "questions.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == [crystal.id]
    (tmp_path / "answers.csv").write_text(f"id,hardness,failure\n{crystal.id},,\n")
    time.sleep(0.1)
    assert not answers, "a row with blanks is not an answer yet"
    (tmp_path / "answers.csv").write_text(
        f"id,hardness,failure\n{crystal.id},,\n{crystal.id},12.5,\n"
    )
    for thread in threads:
        thread.join(5)
    assert [answer.value("hardness") for answer in answers] == [12.5, 12.5]
    assert answers[0].observations[0].unit == "GPa"


def test_an_answer_may_be_a_failure(tmp_path: Path) -> None:
    one = Crystal.from_atoms(bulk("Fe"))
    (tmp_path / "answers.csv").write_text(f"id,hardness,failure\n{one.id},,sample broke\n")
    failure = ask(tmp_path).evaluate(one).failure
    assert failure is not None
    assert failure.message == "sample broke"


def answered(folder: Path, crystal: Crystal) -> tuple[threading.Thread, list[Evaluation]]:
    """A worker that waits for an answer, as soon as its question stands in the folder."""
    found: list[Evaluation] = []
    thread = threading.Thread(
        target=lambda: found.append(ask(folder).evaluate(crystal)), daemon=True
    )
    thread.start()
    while not (folder / "questions.csv").exists():
        time.sleep(0.01)
    return thread, found


@pytest.mark.parametrize("name", ["answers.csv", "questions.csv"])
def test_half_a_number_of_a_table_that_is_being_written_is_no_label(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that puts one character more between two looks, in place."""
    crystal = Crystal.from_atoms(bulk("Fe"))
    oracle = ask(tmp_path)
    oracle.answers(crystal)
    row = f"id,hardness\n{crystal.id},"
    rest = iter("187.25")
    (tmp_path / name).write_text(row)

    def sleep(_: float) -> None:
        with (tmp_path / name).open("a") as file:
            file.write(next(rest, ""))

    monkeypatch.setattr("oracles.ask_tell.time.sleep", sleep)
    assert oracle.evaluate(crystal).value("hardness") == 187.25


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("id,formula,file,hardness (GPa)\n{id},Fe1,x.cif,7.25\n", 7.25),
        ("\ufeffid,hardness\n{id},7.25\n", 7.25),
        ("id;hardness\n{id};7.25\n", 7.25),
        ("id\thardness\n{id}\t7.25\n", 7.25),
        ("id,hardness (MPa)\n{id},7250\n", 7.25),
        ('hardness [GPa],id,note\n7.25,{id},"good, clean"\n', 7.25),
    ],
)
@pytest.mark.parametrize("name", ["answers.csv", "questions.csv"])
def test_answers_are_read_as_people_save_them(
    tmp_path: Path, text: str, value: float, name: str
) -> None:
    crystal = Crystal.from_atoms(bulk("Fe"))
    thread, found = answered(tmp_path, crystal)
    (tmp_path / name).write_text(text.format(id=crystal.id))
    thread.join(5)
    assert [answer.value("hardness") for answer in found] == pytest.approx([value])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id;hardness\n{id};7,25\n", "row 1, 'hardness': expected a number, found '7,25'"),
        ("id,hardness\n{id},7,25\n", "row 1: 3 fields, but the header has 2"),
        ("id,hardness\n{id},hard\n", "row 1, 'hardness': expected a number, found 'hard'"),
        ("id,hardness\n{id},nan\n", "row 1, 'hardness': nan is no value"),
        ("id,hardness\n{id}z,7.25\n", "row 1: no question has the id"),
        ("id,hardness (HV)\n{id},7.25\n", "'HV' is no unit that is known"),
        ("id,hardness (eV)\n{id},7.25\n", "the unit 'eV' cannot become GPa"),
        ("id,strength\n{id},7.25\n", "there is no column 'hardness'"),
        ("id,hardness,hardness\n{id},7.25,7.25\n", "there are 2 columns 'hardness'"),
        ("", "is empty"),
    ],
)
def test_what_cannot_be_read_is_told_and_leaves_the_question_open(
    tmp_path: Path, text: str, told: str
) -> None:
    crystal = Crystal.from_atoms(bulk("Fe"))
    thread, found = answered(tmp_path, crystal)
    write_whole(tmp_path / "answers.csv", text.format(id=crystal.id).encode())
    deadline = time.monotonic() + 5
    while not (tmp_path / "problems.txt").exists() or not (tmp_path / "problems.txt").read_text():
        assert time.monotonic() < deadline, "nothing was told"
        time.sleep(0.01)
    assert told in (tmp_path / "problems.txt").read_text()
    assert not found
    (tmp_path / "answers.csv").write_text(f"id,hardness\n{crystal.id},8.0\n")
    thread.join(5)
    assert [answer.value("hardness") for answer in found] == [8.0]
    assert (tmp_path / "problems.txt").read_text() == ""


def test_many_workers_write_one_header(tmp_path: Path) -> None:
    crystals = [Crystal.from_atoms(bulk("Fe", a=2.5 + 0.05 * i)) for i in range(12)]
    threads = [
        threading.Thread(target=ask(tmp_path).answers, args=(crystal,)) for crystal in crystals
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    with (tmp_path / "questions.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "formula", "file", "hardness (GPa)"]
    assert sorted(row[0] for row in rows[1:]) == sorted(crystal.id for crystal in crystals)


def test_a_label_names_the_settings_that_it_was_made_with() -> None:
    worker = OracleWorker(spec("lennard_jones"), "w", 1)
    plain, softer, foreign = (
        worker.evaluate(
            EvaluationJob(key="k", oracle="lj", candidate=Candidate(CRYSTAL), softer=softer)
        )
        for softer in ({}, {"cutoff": 8.0}, {"mixing": 0.1})
    )
    assert plain.fidelity.startswith("lennard-jones-")
    assert softer.fidelity != plain.fidelity, "another cutoff is another level"
    assert softer.value("energy_per_atom") != plain.value("energy_per_atom")
    assert foreign.fidelity == plain.fidelity, (
        "a setting for another oracle's failures is not this one's"
    )
    assert foreign.failure is None


def test_random_numbers_in_an_oracle_come_from_the_campaigns_seed_and_the_job(
    tmp_path: Path,
) -> None:
    (tmp_path / "drawing.py").write_text(
        "import numpy as np\n"
        "from campaign.types import ENERGY_PER_ATOM, Evaluation\n"
        "class Drawing:\n"
        "    quantities = (ENERGY_PER_ATOM,)\n"
        "    def evaluate(self, crystal): return Evaluation.single(ENERGY_PER_ATOM, "
        "np.random.random())\n"
    )
    plugin = PluginSpec(group="oracles", use="drawing:Drawing", module_folder=str(tmp_path))

    def draw(seed: int, key: str) -> float:
        worker = OracleWorker(OracleSpec(name="d", plugin=plugin, seed=seed), "w", 1)
        return worker.evaluate(
            EvaluationJob(key=key, oracle="d", candidate=Candidate(CRYSTAL))
        ).value("energy_per_atom")

    assert draw(1, "a") == draw(1, "a")
    assert len({draw(1, "a"), draw(2, "a"), draw(1, "b")}) == 3
