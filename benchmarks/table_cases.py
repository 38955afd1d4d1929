"""Situations of tables of labels: columns, units, numbers as people and programs write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.input_cases import RIGHT, Case, table
from oracles.hull import read_phases

_EDGES = (2.8, 2.9, 3.0, 3.1)


def _crystal(edge: float) -> str:
    cell = (
        "\n".join(f"_cell_length_{axis} {edge}" for axis in "abc")
        + "\n"
        + "\n".join(f"_cell_angle_{a} 90" for a in ("alpha", "beta", "gamma"))
    )
    columns = "\n".join(
        f"_atom_site_{name}" for name in ("label", "type_symbol", "fract_x", "fract_y", "fract_z")
    )
    return (
        f"data_x\n{cell}\n_space_group_name_H-M_alt 'P 1'\nloop_\n{columns}\nNi1 Ni 0 0 "
        "0\nFe1 Fe 0.5 0.5 0.5\n"
    )


def _csv(header: str, cells: Sequence[str], *, separator: str = ",", end: str = "\n") -> str:
    lines = [f"cif{separator}{header}"]
    lines += [
        f'"{_crystal(edge)}"{separator}{cell}' for edge, cell in zip(_EDGES, cells, strict=False)
    ]
    return end.join(lines) + end


def _frames(key: str, values: Sequence[str], rest: str = "") -> str:
    return "".join(
        f'2\nLattice="{edge} 0 0 0 {edge} 0 0 0 {edge}" Properties=species:S:1:pos:R:3 '
        f"{key}={value} {rest}\n"
        f"Ni 0 0 0\nFe {edge / 2} {edge / 2} {edge / 2}\n"
        for edge, value in zip(_EDGES, values, strict=False)
    )


def _energy(
    name: str,
    header: str,
    cell: str,
    wanted: float | None,
    refusal: Sequence[str] | None = None,
    column: Any = None,
    **further: Any,
) -> Case:
    values = {"energy_per_atom": [wanted]} if wanted is not None else None
    columns = {"energy_per_atom": column if column is not None else header}
    return table(
        name, _csv(header, [cell], **further), columns=columns, values=values, refusal=refusal
    )


def cases() -> Iterator[Case]:
    yield from _units()
    yield from _numbers()
    yield from _layouts()
    yield from _keys()
    yield from _phases()


def _units() -> Iterator[Case]:
    for unit, factor in (
        ("eV/atom", 1.0),
        ("meV/atom", 1e-3),
        ("Ry/atom", 13.605693),
        ("Ha/atom", 27.211386),
        ("kJ/mol/atom", 0.010364270),
        ("kcal/mol/atom", 0.043364104),
        ("eV/at.", 1.0),
        ("eV per atom", 1.0),
        ("eV/cell", 0.5),
        ("Ry/cell", 13.605693 / 2),
        ("meV atom^-1", 1e-3),
        ("J/atom", 6.241509e18),
        ("Hartree/atom", 27.211386),
    ):
        yield _energy(
            f"energies in {unit}",
            f"E ({unit})",
            "-4.0",
            -4.0 * factor,
            refusal=("d.csv", "unit", unit) if unit == "Hartree/atom" else None,
        )
        said = {"column": "E", "unit": unit}
        yield _energy(
            f"energies in {unit}, said in the config",
            "E",
            "-4.0",
            -4.0 * factor,
            refusal=("d.csv", "unit") if unit == "Hartree/atom" else None,
            column=said,
        )
    yield _energy("square brackets", "E [meV/atom]", "-4000", -4.0, column="E")
    for unit in ("kJ/mol", "kcal/mol", "eV", "Ry", "Ha"):
        yield _energy(
            f"energies in {unit}, of what?", f"E ({unit})", "-4.0", None, ("d.csv", "per atom")
        )
    for unit in (
        "eV/f.u.",
        "eV/formula unit",
        "kJ/mol-f.u.",
        "eV/molecule",
        "GPa",
        "eV/A^2",
        "furlong",
        "K",
    ):
        yield _energy(f"energies in {unit}", f"E ({unit})", "-4.0", None, ("d.csv", "unit"))
    yield _energy("a total by name", "total_energy", "-8.0", None, ("d.csv", "per atom"))
    yield _energy("TOTEN", "TOTEN", "-8.0", None, ("d.csv", "per atom"))
    yield _energy("per: cell", "TOTEN", "-8.0", -4.0, column={"column": "TOTEN", "per": "cell"})
    yield _energy(
        "header and config at odds",
        "E (meV/atom)",
        "-4.0",
        None,
        ("d.csv", "meV/atom"),
        column={"column": "E", "unit": "eV/atom"},
    )
    for unit, factor in (
        ("GPa", 1.0),
        ("MPa", 1e-3),
        ("kbar", 0.1),
        ("Pa", 1e-9),
        ("eV/A^3", 160.21766),
        ("Ry/bohr^3", 14710.5076),
    ):
        yield table(
            f"hardness in {unit}",
            _csv(f"hardness ({unit})", ["7.0"]),
            columns={"hardness": "hardness"},
            values={"hardness": [7.0 * factor]},
        )
    for unit in ("HV", "Mohs", "kgf/mm^2", "N"):
        yield table(
            f"hardness in {unit}",
            _csv(f"hardness ({unit})", ["7.0"]),
            columns={"hardness": "hardness"},
            refusal=("d.csv", unit),
        )
    for unit, factor in (
        ("g/cm^3", 1.0),
        ("g/cm3", 1.0),
        ("kg/m^3", 1e-3),
        ("g cm^-3", 1.0),
        ("u/A^3", 1.660539),
    ):
        yield table(
            f"density in {unit}",
            _csv(f"density ({unit})", ["8.0"]),
            columns={"density": "density"},
            values={"density": [8.0 * factor]},
        )
    yield table(
        "per cent", _csv("share (%)", ["50"]), columns={"share": "share"}, values={"share": [0.5]}
    )
    for unit, factor in (
        ("A^3/atom", 1.0),
        ("Å^3/atom", 1.0),
        ("nm^3/atom", 1000.0),
        ("bohr^3/atom", 0.14818471),
        ("A^3/cell", 0.5),
    ):
        yield table(
            f"volumes in {unit}",
            _csv(f"V ({unit})", ["12.0"]),
            columns={"volume_per_atom": "V"},
            values={"volume_per_atom": [12.0 * factor]},
        )


def _numbers() -> Iterator[Case]:
    for text, wanted in (
        ("-4.31", -4.31),
        (" -4.31 ", -4.31),
        ("-431e-2", -4.31),
        ("-4.31E0", -4.31),
        ("+.5", 0.5),
        ("-4.", -4.0),
        ("007", 7.0),
    ):
        yield _energy(f"the number {text!r}", "E (eV/atom)", text, wanted, column="E")
    for text in (
        "nan",
        "NaN",
        "inf",
        "-inf",
        "1e400",
        "1_805",
        "\u22124.31",
        "4.31 eV",
        "N/A",
        "-",
        "--4",
        "1.805.3",
        "0x10",
        "1 805",
        "#REF!",
        "None",
        "-4.31(2)",
        "TRUE",
        "4,31e0x",
        "\uff11\uff12",
    ):
        yield _energy(
            f"the number {text!r}", "E (eV/atom)", text, None, ("d.csv", "row 1"), column="E"
        )
    for text in ("-4,31", "1,805", "1,805.5"):
        yield _energy(
            f"the quoted number {text!r}",
            "E (eV/atom)",
            f'"{text}"',
            None,
            ("d.csv", "row 1"),
            column="E",
        )
        yield _energy(
            f"the number {text!r} after semicolons",
            "E (eV/atom)",
            text,
            None,
            ("d.csv", "row 1"),
            column="E",
            separator=";",
        )
        yield _energy(
            f"the bare number {text!r}",
            "E (eV/atom)",
            text,
            None,
            ("d.csv", "row 1", "fields"),
            column="E",
        )
    yield _energy("an empty cell", "E (eV/atom)", "", None, ("d.csv", "row 1"), column="E")


def _layouts() -> Iterator[Case]:
    energies = {"energy_per_atom": "E"}
    wanted = {"energy_per_atom": [-4.0, -4.1]}
    plain = _csv("E (eV/atom)", ["-4.0", "-4.1"])
    yield table(
        "semicolons",
        _csv("E (eV/atom)", ["-4.0", "-4.1"], separator=";"),
        columns=energies,
        values=wanted,
    )
    yield table(
        "tabs",
        _csv("E (eV/atom)", ["-4.0", "-4.1"], separator="\t"),
        columns=energies,
        values=wanted,
    )
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        yield table(
            f"in {encoding}",
            plain.replace("data_x", "data_x # 20 °C").encode(encoding),
            columns=energies,
            values=wanted,
        )
    yield table("Windows' line ends", plain.replace("\n", "\r\n"), columns=energies, values=wanted)
    yield table("a blank line at the end", plain + "\n\n", columns=energies, values=wanted)
    yield table("a row of separators at the end", plain + ",\n", columns=energies, values=wanted)
    yield table(
        "blanks around the header",
        plain.replace("cif,E (eV/atom)", "cif , E (eV/atom) "),
        columns=energies,
        values=wanted,
    )
    yield table(
        "a double column", _csv("E,E", ["-4.0,-5.0"]), columns=energies, refusal=("d.csv", "'E'")
    )
    yield table(
        "two columns that may be meant",
        _csv("E (eV/atom),E (meV/atom)", ["-4.0,-5.0"]),
        columns=energies,
        refusal=("d.csv", "'E'"),
    )
    yield table(
        "a surplus field",
        _csv("E (eV/atom)", ["-4.0,3"]),
        columns=energies,
        refusal=("d.csv", "row 1", "fields"),
    )
    yield table(
        "a missing field",
        _csv("E (eV/atom),note", ["-4.0"]),
        columns=energies,
        refusal=("d.csv", "row 1", "fields"),
    )
    yield table(
        "no such column",
        _csv("energy", ["-4.0"]),
        columns=energies,
        refusal=("d.csv", "'E'", "energy"),
    )
    yield table(
        "another letter case",
        _csv("e (eV/atom)", ["-4.0"]),
        columns=energies,
        refusal=("d.csv", "'E'"),
    )
    yield table(
        "no column of structures",
        plain.replace("cif,", "structure,"),
        columns=energies,
        refusal=("d.csv", "'cif'"),
    )
    yield table(
        "a quote that does not close", plain + '"data_x', columns=energies, refusal=("d.csv",)
    )
    yield table("an empty table", "", columns=energies, refusal=("d.csv", "empty"))
    yield table(
        "a header alone", "cif,E (eV/atom)\n", columns=energies, refusal=("d.csv", "no structures")
    )
    yield table("zeros as text", b"\x00\x00\x00", columns=energies, refusal=("d.csv", "text"))
    yield table(
        "a broken crystal in row 2",
        plain + '"data_y",-4.2\n',
        columns=energies,
        refusal=("d.csv", "row 3"),
    )
    yield table(
        "a broken crystal, skipped",
        plain + '"data_y",-4.2\n',
        columns=energies,
        values=wanted,
        on_error="skip",
    )
    doubled = plain + f'"{_crystal(_EDGES[0])}",-4.0\n'
    yield table("one crystal twice, one value", doubled, columns=energies, values=wanted)
    other = plain + f'"{_crystal(_EDGES[0])}",-4.2\n'
    yield table(
        "one crystal twice, two values",
        other,
        columns=energies,
        refusal=("d.csv", "row 1, row 3", "several values"),
    )
    yield table(
        "one crystal twice, their mean",
        other,
        columns=energies,
        values={"energy_per_atom": [-4.1, -4.1]},
        replicates="mean",
    )
    yield table(
        "gzip by name alone", plain, file="d.csv.gz", columns=energies, refusal=("d.csv.gz",)
    )
    yield table("capital ending", plain, file="D.CSV", columns=energies, values=wanted)
    yield table(
        "a tsv",
        _csv("E (eV/atom)", ["-4.0", "-4.1"], separator="\t"),
        file="d.tsv",
        columns=energies,
        values=wanted,
        refusal=("d.tsv", "name"),
    )


def _keys() -> Iterator[Case]:
    energies = {"energy_per_atom": "energy"}
    per_atom = {"energy_per_atom": [-4.0, -4.1]}
    yield table(
        "ASE's energy is of the cell",
        _frames("energy", ["-8.0", "-8.2"]),
        file="d.extxyz",
        columns=energies,
        values=per_atom,
    )
    yield table(
        "an energy per atom by name",
        _frames("energy_per_atom", ["-4.0", "-4.1"]),
        file="d.extxyz",
        columns={"energy_per_atom": "energy_per_atom"},
        values=per_atom,
    )
    yield table(
        "REF_energy",
        _frames("REF_energy", ["-8.0", "-8.2"]),
        file="d.extxyz",
        columns={"energy_per_atom": "REF_energy"},
        values=per_atom,
    )
    yield table(
        "a key with capitals",
        _frames("Energy", ["-8.0", "-8.2"]),
        file="d.extxyz",
        columns=energies,
        refusal=("d.extxyz", "energy"),
        values=per_atom,
    )
    yield table(
        "an array in place of a number",
        _frames("E", ['"-4.0 -4.1"', "-4.0"]),
        file="d.extxyz",
        columns={"energy_per_atom": "E"},
        refusal=("d.extxyz", "structure 1"),
    )
    yield table(
        "a word in place of a number",
        _frames("E", ["high", "-4.0"]),
        file="d.extxyz",
        columns={"energy_per_atom": "E"},
        refusal=("d.extxyz", "structure 1"),
    )
    yield table(
        "truth in place of a number",
        _frames("E", ["T", "-4.0"]),
        file="d.extxyz",
        columns={"energy_per_atom": "E"},
        refusal=("d.extxyz", "structure 1"),
    )
    yield table(
        "nan",
        _frames("energy", ["nan", "-8.0"]),
        file="d.extxyz",
        columns=energies,
        refusal=("d.extxyz", "structure 1"),
    )
    yield table(
        "no such key in one frame",
        _frames("energy", ["-8.0"]) + _frames("other", ["1"]).replace("2.8", "3.3"),
        file="d.extxyz",
        columns=energies,
        refusal=("d.extxyz", "structure 2"),
    )
    yield table(
        "no labels at all",
        _frames("note", ["a"]),
        file="d.extxyz",
        columns=energies,
        refusal=("d.extxyz",),
    )
    yield table(
        "labels of a POSCAR",
        "x\n1\n2.88 0 0\n0 2.88 0\n0 0 2.88\nNi Fe\n1 1\nDirect\n0 0 0\n.5 .5 .5\n",
        file="POSCAR",
        columns=energies,
        refusal=("POSCAR", "no labels"),
    )


def _phases() -> Iterator[Case]:
    head = "id,formula,energy_per_atom,fidelity\n"

    def phases(
        name: str, text: str, refusal: Sequence[str] | None, energies: Sequence[float] = ()
    ) -> Case:
        def run(folder: Path) -> str:
            (folder / "phases.csv").write_text(text)
            found = [phase.energy_per_atom for phase in read_phases(folder / "phases.csv")]
            is_right = len(found) == len(energies) and all(
                abs(a - b) < 1e-9 for a, b in zip(found, energies, strict=True)
            )
            return RIGHT if is_right and refusal is None else f"read as {found}"

        return Case(
            "tables and units",
            f"phases of a hull: {name}",
            run,
            tuple(refusal) if refusal is not None else None,
        )

    yield phases("plain", head + "a,FeNi,-4.5,x\n", None, [-4.5])
    yield phases(
        "in meV", head.replace("atom,", "atom (meV/atom),") + "a,FeNi,-4500,x\n", None, [-4.5]
    )
    yield phases("an id twice", head + "a,FeNi,-4.5,x\na,FeNi3,-4.6,x\n", ("phases.csv", "'a'"))
    yield phases("nan", head + "a,FeNi,nan,x\n", ("phases.csv", "row 1"))
    for formula in ("Fe0.5.2", "Xx2", "", "fe", "Fe-1", "Fe(Ni", "123"):
        yield phases(
            f"the formula {formula!r}", head + f"a,{formula},-4.5,x\n", ("phases.csv", "row 1")
        )
    yield phases("a decimal comma", head + 'a,FeNi,"-4,5",x\n', ("phases.csv", "row 1"))
    yield phases(
        "a total",
        head.replace("energy_per_atom", "energy") + "a,FeNi,-9,x\n",
        ("phases.csv", "energy_per_atom"),
    )
