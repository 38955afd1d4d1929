"""Potentials by name, elements read from files, and swapped species caught where a file gives
itself away.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ase.data import atomic_numbers
from typer.testing import CliRunner

from campaign.cli import app
from campaign.crystals.references import elemental, ordered_binary
from campaign.errors import InputError
from campaign.types import Crystal
from oracles.lammps import meam, potentials
from oracles.lammps.engine import LammpsEngine
from oracles.lammps.potentials import PotentialFileConfig
from oracles.lammps.static import Lammps, LammpsConfig

MEAM, LIBRARY = "MoCoNiVFeAlCr_2nn.meam", "library_2nn.meam"


def folder() -> Path:
    found = potentials.shipped_folder()
    assert found is not None
    return found


def test_every_shipped_potential_knows_its_elements_and_computes() -> None:
    shipped = potentials.shipped()
    assert len(shipped) > 80
    for name in (
        "FeCr.cdeam",
        "C.lcbop",
        "CH.airebo",
        "SiC.tersoff",
        MEAM,
        "Ni_Zuo_JPCA2020.snapcoeff",
        "Ni.adp",
        "Ni_u3.eam",
    ):
        assert name in shipped
    assert shipped["FeCr.cdeam"].elements == ("Fe", "Cr")
    assert shipped["Ni_u3.eam"].elements == ("Ni",)
    assert shipped[MEAM].elements == ("Mo", "Co", "Ni", "V", "Fe", "Al", "Cr")
    assert "Foiles" in shipped["Ni_u3.eam"].reference
    sites = np.array(
        [
            [0, 0, 0],
            [0.5, 0.5, 0],
            [0.5, 0, 0.5],
            [0, 0.5, 0.5],
            [0.25, 0.25, 0.25],
            [0.75, 0.75, 0.25],
            [0.75, 0.25, 0.75],
        ]
    )
    for name, potential in shipped.items():
        with LammpsEngine(potential) as engine:
            numbers = [
                atomic_numbers[potential.elements[i % len(potential.elements)]]
                for i in range(len(sites))
            ]
            engine.load(Crystal(np.eye(3) * 5.0, sites, np.array(numbers, dtype=np.uint8)))
            engine.evaluate()
            assert np.isfinite(engine.figures()["pe"]), name


def test_potentials_are_listed_with_elements_and_reference() -> None:
    result = CliRunner().invoke(app, ["potentials", "Fe", "Cr"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "wu_lee_su_2017" in result.output
    assert "FeCr.cdeam" in result.output
    assert "Ni_u3.eam" not in result.output


def copy(target: Path, change: str = "") -> PotentialFileConfig:
    """The MEAM files in a folder of the user's, changed."""
    for name in (MEAM, LIBRARY):
        shutil.copy(folder() / name, target / name)
    if change == "indices":
        text = (target / MEAM).read_text()
        swapped = "".join(_swap(line, "3", "5") for line in text.splitlines(keepends=True))
        (target / MEAM).write_text(swapped)
    if change == "library":
        text = (target / LIBRARY).read_text()
        (target / LIBRARY).write_text(
            text.replace("'Ni'", "'@'").replace("'Fe'", "'Ni'").replace("'@'", "'Fe'")
        )
    return PotentialFileConfig(file=target / MEAM, library=target / LIBRARY)


def _swap(line: str, one: str, other: str) -> str:
    head, bracket, rest = line.partition("(")
    where, close, value = rest.partition(")")
    if not bracket or line.startswith("#"):
        return line
    where = ",".join({one: other, other: one}.get(index, index) for index in where.split(","))
    return f"{head}({where}{close}{value}"


def test_a_users_copy_of_a_shipped_potential_gives_the_same_numbers(tmp_path: Path) -> None:
    theirs, ours = (
        Lammps(LammpsConfig(potential=copy(tmp_path))),
        Lammps(LammpsConfig(potential=MEAM)),
    )
    crystal = ordered_binary("Fe", "Ni")
    assert theirs.evaluate(crystal).value("energy_per_atom") == ours.evaluate(crystal).value(
        "energy_per_atom"
    )
    assert ours.evaluate(elemental("Ni")).value("energy_per_atom") == pytest.approx(-4.45, abs=1e-3)


@pytest.mark.parametrize("change", ["indices", "library"])
def test_swapped_species_in_a_file_that_repeats_its_values_are_refused(
    tmp_path: Path, change: str
) -> None:
    with pytest.raises(
        InputError,
        match=r"index \d has .*cohesive energy 4.\d+ eV.* but its own comment calls it (Ni|Fe)",
    ) as error:
        potentials.load(copy(tmp_path, change))
    assert "swapped" in error.value.hint


def test_an_order_in_the_config_is_checked_against_the_file(tmp_path: Path) -> None:
    """The flaw of a published data set: the file's first index is Ni, the order given says Fe."""
    library = "\n".join(
        f"'{name}' '{lattice}' {z} 1 56.0\n{alpha} 1 1 1 1 {edge} {energy} 1\n1 1 1 1 1 3"
        for name, lattice, z, alpha, edge, energy in (
            ("Fe", "bcc", 8, 5.157, 2.8637, 4.29),
            ("Ni", "fcc", 12, 5.084, 3.5214, 4.45),
        )
    )
    (tmp_path / "library.meam").write_text(library)
    (tmp_path / "NiFe.meam").write_text(
        "rc = 4.5\nEc(1,1) = 4.45\nalpha(1,1) = 5.084\nEc(2,2) = 4.29\nalpha(2,2) = "
        "5.157\nEc(1,2) = 4.4\n"
    )

    def config(elements: tuple[str, ...] | None) -> PotentialFileConfig:
        return PotentialFileConfig(
            file=tmp_path / "NiFe.meam", library=tmp_path / "library.meam", elements=elements
        )

    assert potentials.from_file(config(None)).elements == ("Ni", "Fe"), "read from the file"
    assert potentials.from_file(config(("Ni", "Fe"))).order == ("Ni", "Fe")
    with pytest.raises(InputError, match="the values are those of Ni"):
        potentials.from_file(config(("Fe", "Ni")))
    mixture = tmp_path / "mixture.meam"
    mixture.write_text((tmp_path / "NiFe.meam").read_text())
    values = PotentialFileConfig(file=mixture, library=tmp_path / "library.meam")
    assert potentials.from_file(values).elements == ("Ni", "Fe"), (
        "deduced from the values under each index"
    )
    mixture.write_text("rc = 4.5\nEc(1,2) = 4.4\n")
    for silent in (mixture, tmp_path / "FeNi.meam"):
        silent.write_text(mixture.read_text())
        with pytest.raises(InputError, match="does not say which element") as error:
            potentials.from_file(
                PotentialFileConfig(file=silent, library=tmp_path / "library.meam")
            )
        assert "use with Ni Fe from" in error.value.hint
        said = PotentialFileConfig(
            file=silent, library=tmp_path / "library.meam", elements=("Ni", "Fe")
        )
        assert potentials.from_file(said).order == ("Ni", "Fe"), "a file's name is no order"
    with pytest.raises(InputError, match="index 2, but elements: names 1"):
        potentials.from_file(
            PotentialFileConfig(file=mixture, library=tmp_path / "library.meam", elements=("Ni",))
        )
    mixture.write_text("# use with Ni Fe from library.meam\nrc = 4.5\nEc(1,2) = 4.4\n")
    assert potentials.from_file(
        PotentialFileConfig(file=mixture, library=tmp_path / "library.meam")
    ).order == ("Ni", "Fe")
    with pytest.raises(InputError, match="its indices are Ni Fe, the config says Fe Ni"):
        potentials.from_file(
            PotentialFileConfig(
                file=mixture, library=tmp_path / "library.meam", elements=("Fe", "Ni")
            )
        )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.unknown", "", "cannot tell what kind"),
        ("x.eam.alloy", "a\nb\nc\nmuch 1 2", "cannot be read"),
        ("x.sw", "# UNITS: real\nSi Si Si 1", "units real"),
        ("x.tersoff", "Si Si C 1\nC Si Si 1", "no entry for C C C"),
        ("x.meam", "rc = 4", "has two files"),
    ],
)
def test_files_that_cannot_be_used_say_why(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        potentials.load(PotentialFileConfig(file=tmp_path / name))


@pytest.mark.skipif(find_spec("kimpy") is not None, reason="kimpy is installed")
def test_an_openkim_id_says_what_is_missing() -> None:
    with pytest.raises(InputError, match="needs kimpy") as error:
        potentials.load("MEAM_LAMMPS_WuLeeSu_2017_NiCrFe__MO_912636107108_000")
    assert "openkim-models" in error.value.hint
    with pytest.raises(InputError, match="no potential") as error:
        potentials.load("MO_912636107108")
    assert "in full" in error.value.hint


@pytest.mark.skipif(find_spec("kimpy") is None, reason="kimpy is not installed")
def test_openkims_copy_of_the_built_in_potential_gives_the_same_energy() -> None:
    theirs = Lammps(
        LammpsConfig(potential="MEAM_LAMMPS_WuLeeSu_2017_NiCrFe__MO_912636107108_000", relax="none")
    )
    ours = Lammps(LammpsConfig(relax="none"))
    crystal = ordered_binary("Fe", "Ni")
    assert theirs.evaluate(crystal).value("energy_per_atom") == pytest.approx(
        ours.evaluate(crystal).value("energy_per_atom"), abs=1e-9
    )


def test_a_file_takes_the_library_entry_that_it_was_made_for_where_several_are_of_one_element(
    tmp_path: Path,
) -> None:
    """Tungsten's own file goes with WL, whose cohesive energy the paper fits (8.66 eV); with W it
    would give 8.904 eV.
    """
    ours = Lammps(LammpsConfig(potential="WL.meam")).evaluate(elemental("W"))
    assert ours.value("energy_per_atom") == pytest.approx(-8.66, abs=1e-3)
    shutil.copy(folder() / "WL.meam", tmp_path / "tungsten.meam")
    shutil.copy(folder() / "library.meam", tmp_path / "library.meam")
    plain = PotentialFileConfig(file=tmp_path / "tungsten.meam", library=tmp_path / "library.meam")
    with pytest.raises(InputError, match="index 1 fit 2 entries of the library, W, WL") as error:
        potentials.from_file(plain)
    assert "elements: [WL]" in error.value.hint
    right, other = (
        potentials.from_file(plain.model_copy(update={"elements": (label,)}))
        for label in ("WL", "W")
    )
    assert (right.order, other.order) == (("WL",), ("W",)), "labels as they are written"
    assert right.sha256 != other.sha256, "what gives other energies is another level"
    text = (tmp_path / "tungsten.meam").read_text()
    (tmp_path / "tungsten.meam").write_text(f"# use with WL from library.meam\n{text}")
    assert potentials.from_file(plain).order == ("WL",)
    assert potentials.from_file(plain.model_copy(update={"elements": ("W",)})).order == ("WL",), (
        "the element, of which the file says more"
    )
    with pytest.raises(InputError, match="the config calls it Si97"):
        potentials.from_file(plain.model_copy(update={"elements": ("Si97",)}))


def test_an_element_with_several_entries_and_none_of_its_name_is_asked_for(tmp_path: Path) -> None:
    entries = "\n".join(
        f"'{label}' 'fcc' 12 1 27.0\n4.6 1 1 1 1 4.05 {energy} 1\n1 1 1 1 1 3"
        for label, energy in (("AlA", 3.3), ("AlB", 3.4))
    )
    (tmp_path / "library.meam").write_text(entries)
    (tmp_path / "x.meam").write_text("rc = 4.5\n")
    config = PotentialFileConfig(
        file=tmp_path / "x.meam", library=tmp_path / "library.meam", elements=("Al",)
    )
    with pytest.raises(InputError, match="2 entries for Al: AlA, AlB"):
        potentials.from_file(config)
    assert potentials.from_file(config.model_copy(update={"elements": ("AlB",)})).labels == {
        "Al": "AlB"
    }
    (tmp_path / "x.meam").write_text("Ec(1,1) = 3.4\n")
    assert potentials.from_file(config.model_copy(update={"elements": None})).order == ("AlB",), (
        "by the value"
    )


def test_of_two_library_entries_with_one_label_the_first_counts() -> None:
    text = (
        "'Ni' 'fcc' 12 28 58.7\n5 1 1 1 1 3.5 4.45 1\n1 1 1 1 1 3\n'Ni' 'fcc' 12 28 58.7\n6 "
        "1 1 1 1 3.5 4.00 1\n1 1 1 1 1 3\n"
    )
    assert meam.read_library(text, "library.meam")["Ni"].cohesive_energy == 4.45


@pytest.mark.parametrize("is_a_copy", [False, True])
def test_a_part_of_a_potential_is_refused_rather_than_run_alone(
    tmp_path: Path, is_a_copy: bool
) -> None:
    """Tantalum's SNAP goes with a ZBL repulsion, which its third file adds."""
    name = "Ta06A.snapcoeff"
    for path in folder().glob("Ta06A.snap*"):
        shutil.copy(path, tmp_path / path.name)
    with pytest.raises(InputError, match=r"one part of a potential: Ta06A.snap beside it adds"):
        potentials.load(PotentialFileConfig(file=tmp_path / name) if is_a_copy else name)
    assert name not in potentials.shipped()


def test_library_labels_are_elements() -> None:
    assert [meam.element_of(label) for label in ("Ni", "AlS", "Sn5", "C", "H", "Qq")] == [
        "Ni",
        "Al",
        "Sn",
        "C",
        "H",
        "",
    ]


def aluminium_nickel(target: Path) -> Path:
    """A file of two elements that ships with LAMMPS, as eam/alloy."""
    path = target / "NiAlH.eam.alloy"
    path.write_bytes((folder() / "NiAlH_jea.eam.alloy").read_bytes())
    return path


def energy(potential: potentials.Potential) -> float:
    with LammpsEngine(potential) as engine:
        engine.load(ordered_binary("Al", "Ni"))
        engine.evaluate()
        return float(engine.figures()["pe"])


@pytest.mark.parametrize(
    "name",
    ["my potential.eam.alloy", "a$b.eam.alloy", "a#b.eam.alloy", "it's.eam.alloy", "Ünï.eam.alloy"],
)
def test_names_and_folders_may_hold_any_letters(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = aluminium_nickel(tmp_path)
    odd = tmp_path / "a $folder #1"
    odd.mkdir()
    theirs = shutil.copy(plain, odd / name)
    monkeypatch.setenv("TMPDIR", str(odd))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert energy(potentials.from_file(PotentialFileConfig(file=theirs))) == energy(
        potentials.from_file(PotentialFileConfig(file=plain))
    )
    assert np.isfinite(Lammps(LammpsConfig()).evaluate(elemental("Ni")).value("energy_per_atom")), (
        "a MEAM potential of ours"
    )


@pytest.mark.parametrize("change", ["windows", "old mac", "byte order mark"])
def test_line_ends_and_byte_order_marks_change_no_number(tmp_path: Path, change: str) -> None:
    plain = aluminium_nickel(tmp_path)
    theirs, content = tmp_path / "theirs.eam.alloy", plain.read_bytes()
    changed = {
        "windows": content.replace(b"\n", b"\r\n"),
        "old mac": content.replace(b"\n", b"\r"),
        "byte order mark": b"\xef\xbb\xbf" + content,
    }
    theirs.write_bytes(changed[change])
    known, found = (
        potentials.from_file(PotentialFileConfig(file=path)) for path in (plain, theirs)
    )
    assert found.sha256 == known.sha256
    assert energy(found) == energy(known)


def test_damaged_or_misnamed_tables_are_refused_by_name(tmp_path: Path) -> None:
    plain = aluminium_nickel(tmp_path)
    text = plain.read_text()

    def refused(name: str, content: bytes, message: str) -> InputError:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message) as error:
            potentials.from_file(PotentialFileConfig(file=tmp_path / name))
        assert name in error.value.message
        return error.value

    refused("cut.eam.alloy", text[: len(text) // 2].encode(), "is cut off: expected")
    refused("wide.eam.alloy", text.encode("utf-16"), "no plain text")
    place = text.index("-", 2000)
    refused(
        "minus.eam.alloy",
        (text[:place] + "\u2212" + text[place + 1 :]).encode(),
        r"line \d+: expected plain ASCII, found '.' \(U\+2212\)",
    )
    refused(
        "point.eam.alloy",
        (text[:place] + "-0,5 " + text[place + 5 :]).encode(),
        "expected a number, found '-0,5",
    )
    assert (
        "style: eam/alloy"
        in refused(
            "named.eam.fs", text.encode(), "is called eam/fs, but holds the .* eam/alloy file"
        ).hint
    )
    double = next(
        path
        for path in sorted(folder().glob("*.eam.fs"))
        if len(potentials.from_file(PotentialFileConfig(file=path)).elements) > 1
    )
    assert (
        "style: eam/fs"
        in refused(
            "named.eam.alloy",
            double.read_bytes(),
            "is called eam/alloy, but holds the .* eam/fs file",
        ).hint
    )
