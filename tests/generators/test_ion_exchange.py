"""Ions exchanged in known compounds: charges, probabilities, volumes, provenance, and what is
refused.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from campaign.crystals.chemistry import ChargeNeutral
from campaign.errors import InputError
from campaign.protocols import GenerationContext
from campaign.types import Candidate, Crystal, LabelledCandidate, Objective, SearchSpace
from generators.ion_exchange import IonExchange, IonExchangeConfig, exchanges, ions_of


def context(*elements: str, **parts: object) -> GenerationContext:
    space = SearchSpace(elements, rules=(ChargeNeutral(),))
    return GenerationContext(
        space=space, objective=Objective("energy_per_atom", "minimize"), **parts
    )  # type: ignore[arg-type]


def rocksalt(cation: str, anion: str, edge: float) -> Structure:
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(edge), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]
    ).get_primitive_structure()


def delafossite(metal: str) -> Structure:
    lattice = Lattice.hexagonal(2.88, 14.2)
    return Structure.from_spacegroup(
        "R-3m", lattice, ["Li", metal, "O"], [[0, 0, 0.5], [0, 0, 0], [0, 0, 0.24]]
    ).get_primitive_structure()


KNOWN = {
    "LiF": rocksalt("Li", "F", 4.03),
    "KBr": rocksalt("K", "Br", 6.60),
    "MgO": rocksalt("Mg", "O", 4.21),
    "LiCoO2": delafossite("Co"),
    "NiAl": Structure(Lattice.cubic(2.88), ["Ni", "Al"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "known"
    folder.mkdir()
    for name, structure in KNOWN.items():
        structure.to(filename=str(folder / f"{name}.cif"))
    return folder


def generated(
    source: Path, n: int = 50, seed: int = 0, **parts: object
) -> list[tuple[Crystal, dict[str, object]]]:
    generator = IonExchange(IonExchangeConfig(source=source, min_probability=1e-6))
    where = context("Na", "Cl", "Fe", "O", "Li", **parts)
    return [
        (crystal, dict(proposal.condition))
        for crystal, proposal in generator.generate(
            n, rng=np.random.default_rng(seed), context=where
        )
    ]


def test_what_is_found_is_inside_the_space_neutral_and_tells_its_parent(source: Path) -> None:
    found = generated(source)
    formulas = {crystal.formula for crystal, _ in found}
    assert {"Cl1Na1", "Fe1O1", "Fe1Li1O2"} <= formulas
    space = context("Na", "Cl", "Fe", "O", "Li").space
    for crystal, condition in found:
        assert not space.violation(crystal.symbols)
        assert str(condition["known"]).startswith("known/")
        assert 0 < float(str(condition["probability"])) < 1
        assert " for " in str(condition["exchange"])
    parents = {condition["parent_formula"] for _, condition in found}
    assert "Al1Ni1" not in parents, "an alloy has no ions"


def test_the_chance_is_the_product_of_the_mined_ones() -> None:
    from pymatgen.analysis.structure_prediction.substitution_probability import (
        SubstitutionProbability,
    )
    from pymatgen.core import Species

    table = SubstitutionProbability()
    found = dict(exchanges(ions_of("Br1K1"), ("Na", "Cl", "K")))
    old, new = [Species("Br", -1), Species("K", 1)], [Species("Cl", -1), Species("Na", 1)]
    assert found[((("Br", -1), ("Cl", -1)), (("K", 1), ("Na", 1)))] == pytest.approx(
        table.cond_prob_list(new, old)
    )
    chances = [chance for _, chance in exchanges(ions_of("Br1K1"), ("Na", "Cl", "K"))]
    assert chances == sorted(chances, reverse=True)


def test_volumes_follow_the_ions(source: Path) -> None:
    """Rocksalt NaCl has 22.4 angstrom^3 per atom, FeO 10.0, LiCl 17.0."""
    found = {
        crystal.formula: crystal.volume / len(crystal)
        for crystal, condition in generated(source)
        if len(crystal) == 2
    }
    for formula, volume in {"Cl1Na1": 22.4, "Fe1O1": 10.0, "Cl1Li1": 17.0}.items():
        assert found[formula] == pytest.approx(volume, rel=0.2), formula


def test_a_seed_gives_the_same_and_nothing_comes_twice(source: Path) -> None:
    first, again, other = (generated(source, seed=seed) for seed in (3, 3, 4))
    assert [crystal.id for crystal, _ in first] == [crystal.id for crystal, _ in again]
    assert [crystal.id for crystal, _ in first] != [crystal.id for crystal, _ in other]
    rocksalts = [crystal for crystal, _ in first if crystal.formula == "Cl1Na1"]
    assert len(rocksalts) == 1, "from LiF and from KBr it is the same crystal"


def test_what_is_labelled_or_under_way_is_not_proposed_again(source: Path) -> None:
    everything = {crystal.formula: crystal for crystal, _ in generated(source)}
    label = LabelledCandidate(candidate=Candidate(everything["Cl1Na1"]), values={})
    left = {
        crystal.formula
        for crystal, _ in generated(
            source, labelled=(label,), pending=(Candidate(everything["Fe1O1"]),)
        )
    }
    assert left == everything.keys() - {"Cl1Na1", "Fe1O1"}


def test_tables_of_cifs_are_read_compressed_too(tmp_path: Path) -> None:
    rows = "\n".join(f'{name},"{structure.to(fmt="cif")}"' for name, structure in KNOWN.items())
    path = tmp_path / "known.csv.gz"
    path.write_bytes(
        gzip.compress(f"id,cif\n{rows}\nbroken,\"_chemical_formula_sum 'Li1 F1'\"\n".encode())
    )
    assert {crystal.formula for crystal, _ in generated(path)} >= {"Cl1Na1", "Fe1O1", "Fe1Li1O2"}
    with pytest.raises(InputError, match="no column 'structure'"):
        next(
            iter(
                IonExchange(IonExchangeConfig(source=path, structure_column="structure")).generate(
                    1, rng=np.random.default_rng(0), context=context("Na", "Cl")
                )
            )
        )


def test_a_source_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no"):
        IonExchange(IonExchangeConfig(source=tmp_path / "absent.csv"))
