"""The elements' crystals that a config asks for: whose label them, and which crystal each is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from campaign.config.checks import Problem
from campaign.config.schema import CampaignConfig
from campaign.crystals.references import SIMPLE_STRUCTURES, elemental
from campaign.errors import InputError
from campaign.ledger.zeros import Zeros
from campaign.reading.structures import read_structures
from campaign.types import DERIVED, ENERGY_PER_ATOM, Crystal, Quantity


def labelling(config: CampaignConfig, measured: Mapping[str, Collection[Quantity]]) -> list[str]:
    """The oracles that label the elements' crystals: those named, or all that measure energies
    where formation energies are wanted.
    """
    if config.references is not None and config.references.oracles is not None:
        return list(config.references.oracles)
    levels = config.fidelities.levels if config.fidelities is not None else ()
    gates = [name for level in levels if level.gate is not None for name in level.gate.judged]
    if (
        config.references is None
        and config.phases is None
        and not {item.name for item in DERIVED} & {*config.modelled, *gates}
    ):
        return []
    return [
        name
        for name, quantities in measured.items()
        if ENERGY_PER_ATOM.name in {known.name for known in quantities}
    ]


def given_structures(config: CampaignConfig, folder: Path) -> dict[str, str | Crystal]:
    """By element: the name of a simple structure, or the crystal of a file. Raises InputError for a
    file that holds no such crystal.
    """
    stated = config.references.structures if config.references is not None else {}
    return {
        element: value if value in SIMPLE_STRUCTURES else _from_file(element, value, folder)
        for element, value in stated.items()
    }


def _from_file(element: str, value: str, folder: Path) -> Crystal:
    path = folder / Path(value).expanduser()
    if not path.exists():
        raise InputError(
            f"references: the structure of {element}, {value!r}, is neither "
            f"{', '.join(SIMPLE_STRUCTURES)} nor a file: there is no {path}",
            hint="relative paths start at the config's folder",
        )
    found = [entry.crystal for entry in read_structures(path)]
    if len(found) != 1 or set(found[0].symbols) != {element}:
        told = ", ".join(crystal.formula for crystal in found[:3]) or "nothing"
        raise InputError(
            f"references: expected one crystal of {element} alone in {path}, found "
            f"{told}{' and more' if len(found) > 3 else ''}",
            hint="leave one structure of the element in a file of its own",
        )
    return found[0]


def wanted(config: CampaignConfig, oracle: str) -> list[str]:
    """The elements whose crystals an oracle labels: those without a chemical potential there."""
    known = Zeros.of(config.model_dump(mode="json")).potentials_of(oracle)
    return [element for element in config.space.elements if element not in known]


def problems_of_references(
    config: CampaignConfig, measured: Mapping[str, Collection[Quantity]], folder: Path
) -> Iterator[Problem]:
    """Elements without a crystal, files without one, and numbers that could be of several
    levels.
    """
    oracles = labelling(config, measured)
    stated = config.references
    place = (
        ("references", "structures")
        if stated is not None and stated.structures
        else ("references",)
    )
    for element, value in stated.chemical_potentials.items() if stated is not None else ():
        if not isinstance(value, dict) and len(oracles) > 1:
            message = (
                f"the chemical potential of {element} is of one level of theory, but "
                f"{', '.join(oracles)} label references"
            )
            hint = (
                f"give it by oracle, {element}: {{{oracles[0]}: {value:g}}}, or name one "
                "under references.oracles"
            )
            yield Problem(
                ("references", "chemical_potentials", element), message, hint, also=("oracles",)
            )
    needed = {element for oracle in oracles for element in wanted(config, oracle)}
    needed |= set(config.space.elements) if config.sentinels is not None else set()
    for element in stated.structures if stated is not None else ():
        try:
            given_structures(
                config.model_copy(update={"references": _only(config, element)}), folder
            )
        except InputError as error:
            yield Problem(
                ("references", "structures", element),
                error.message.removeprefix("references: "),
                error.hint,
            )
    for element in [element for element in config.space.elements if element in needed]:
        if stated is None or element not in stated.structures:
            try:
                elemental(element)
            except InputError as error:
                yield Problem(place, error.message, error.hint, also=("space",))


def _only(config: CampaignConfig, element: str) -> object:
    assert config.references is not None
    return config.references.model_copy(
        update={"structures": {element: config.references.structures[element]}}
    )
