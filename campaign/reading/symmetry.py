"""The symmetry operations that a CIF block means: listed, or by Hall symbol, name and setting, or
number.

Operations are kept as rotations (m, 3, 3) and translations (m, 3) on fractional coordinates. What
is listed must be a group, of the space group that the block names, and fit the cell. Where a name
has several origins and the block does not say which, it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from campaign.errors import InputError
from campaign.types import FloatArray

if TYPE_CHECKING:
    from gemmi import SpaceGroup

_MOST_OPERATIONS = 192 * 4
_SETTING = re.compile(r"\s*:?\s*([12SZHRhrsz])$")
_CHOICES = {"S": "1", "Z": "2"}
_SAME_METRIC = 0.02


@dataclass(frozen=True)
class Named:
    """How a block names its symmetry, each empty (0) where it does not."""

    hall: str = ""
    name: str = ""
    number: int = 0


@dataclass(frozen=True)
class Operations:
    """rotations (m, 3, 3), translations (m, 3) in [0, 1)."""

    rotations: NDArray[np.int64]
    translations: FloatArray

    def __len__(self) -> int:
        return len(self.rotations)


def operations(listed: Sequence[str], named: Named, lattice: FloatArray, where: str) -> Operations:
    """Raises InputError where none are given, or what is given contradicts itself or the cell."""
    if not listed and named == Named():
        raise InputError(
            f"{where}: no symmetry is given",
            hint="list the operations, or name the space group; _space_group_name_H-M_alt 'P "
            "1' has none",
        )
    groups = _groups(named, lattice, where)
    if listed:
        found = _listed(tuple(listed), where)
        _check_type(found, named, groups, where)
    else:
        found = _of_group(_one(groups, named, where))
    _check_metric(found, lattice, where)
    return found


def _listed(listed: tuple[str, ...], where: str) -> Operations:
    try:
        return _parsed(listed)
    except ValueError as error:
        raise InputError(
            f"{where}: {error}",
            hint="give all operations of the space group, such as 'x, y, z' and '-x, y+1/2, -z'",
        ) from error


@lru_cache(maxsize=256)
def _parsed(listed: tuple[str, ...]) -> Operations:
    import gemmi

    if len(listed) > _MOST_OPERATIONS:
        raise ValueError(f"{len(listed)} symmetry operations are more than any space group has")
    rotations, translations = [], []
    for text in listed:
        try:
            operation = gemmi.Op(text.replace(" ", "").lower())
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{text!r} is no symmetry operation") from error
        rotations.append(np.array(operation.rot) // operation.DEN)
        translations.append(np.array(operation.tran) % operation.DEN)
        if (np.array(operation.rot) % operation.DEN).any() or abs(
            round(np.linalg.det(rotations[-1]))
        ) != 1:
            raise ValueError(f"{text!r} is no symmetry operation")
    keys = {
        _key(rotation, translation)
        for rotation, translation in zip(rotations, translations, strict=True)
    }
    if len(keys) < len(listed):
        raise ValueError("a symmetry operation is listed twice")
    _check_group(np.array(rotations), np.array(translations), gemmi.Op.DEN, keys)
    return Operations(np.array(rotations), np.array(translations) / gemmi.Op.DEN)


def _key(rotation: NDArray[np.int64], translation: NDArray[np.int64]) -> bytes:
    return rotation.astype(np.int8).tobytes() + translation.astype(np.int8).tobytes()


def _check_group(
    rotations: NDArray[np.int64], translations: NDArray[np.int64], whole: int, keys: set[bytes]
) -> None:
    for rotation, translation in zip(rotations, translations, strict=True):
        products = rotation @ rotations
        moved = (translations @ rotation.T + translation) % whole
        if any(
            _key(product, move) not in keys for product, move in zip(products, moved, strict=True)
        ):
            raise ValueError(
                f"the {len(rotations)} listed symmetry operations are no group: some are "
                "missing, or one is wrong"
            )


def _groups(named: Named, lattice: FloatArray, where: str) -> list[SpaceGroup]:
    """Settings of the space group that the block may mean, by its Hall symbol, else its name, else
    its number; none where unknown.
    """
    import gemmi

    if named.number and not 1 <= named.number <= 230:
        raise InputError(
            f"{where}: {named.number} is no number of a space group",
            hint="space groups are numbered from 1 to 230",
        )
    settings = list(gemmi.spacegroup_table())
    if named.hall:
        wanted = _plain(named.hall)
        found = [group for group in settings if _plain(group.hall) == wanted]
        if found:
            return found[:1]
    choice = ""
    if named.name:
        base, choice = _split(named.name)
        found = [group for group in settings if _plain(group.hm) == _plain(base)]
        if not found:
            one = gemmi.find_spacegroup_by_name(base)
            found = [group for group in settings if one is not None and group.hm == one.hm]
    else:
        found = [
            group
            for group in settings
            if named.number and group.number == named.number and group.is_reference_setting()
        ]
        found += [
            g
            for g in settings
            if found and g.number == found[0].number and g.hm == found[0].hm and g is not found[0]
        ]
    if choice:
        found = [group for group in found if group.ext == choice] or found
    fitting = [group for group in found if _fits(_of_group(group), lattice)]
    return fitting or found


def _plain(text: str) -> str:
    return re.sub(r"[\s_]+", "", text).lower().replace("=", '"')


def _split(name: str) -> tuple[str, str]:
    """A name and its setting: origin 1 or 2 (S and Z in ICSD), hexagonal (H) or rhombohedral (R)
    axes; empty where it has none.
    """
    found = _SETTING.search(name)
    if found is None or not (
        ":" in found[0] or (found[0][:1].isspace() and not found[1].isdigit())
    ):
        return name, ""
    letter = found[1].upper()
    return name[: found.start()], _CHOICES.get(letter, letter)


def _one(groups: Sequence[SpaceGroup], named: Named, where: str) -> SpaceGroup:
    told = named.hall or named.name or str(named.number)
    if not groups:
        raise InputError(
            f"{where}: {told!r} is no known space group", hint="list the symmetry operations"
        )
    if len({group.xhm() for group in groups}) > 1:
        names = ", ".join(repr(group.xhm()) for group in groups)
        raise InputError(
            f"{where}: the space group {told!r} has several settings ({names}), and the file "
            "lists no operations",
            hint="list the symmetry operations, or name the setting",
        )
    if named.number and groups[0].number != named.number:
        raise InputError(
            f"{where}: {told!r} is space group {groups[0].number}, the file's number is "
            f"{named.number}"
        )
    return groups[0]


def _of_group(group: SpaceGroup) -> Operations:
    return _parsed(tuple(operation.triplet() for operation in group.operations()))


def _check_type(found: Operations, named: Named, groups: Sequence[SpaceGroup], where: str) -> None:
    """That listed operations are those of the space group that is named."""
    numbers = {group.number for group in groups} | ({named.number} if named.number else set())
    if not numbers:
        return
    number = _number_of(found.rotations.tobytes(), found.translations.tobytes(), len(found))
    if numbers != {number}:
        told = " and ".join(str(item) for item in sorted(numbers))
        raise InputError(
            f"{where}: the file names space group {told} "
            f"({named.name or named.hall or 'by number'}), but the {len(found)} operations that "
            f"it lists are those of {number or 'none'}",
            hint="list all operations, with the centring, or remove what is wrong",
        )


@lru_cache(maxsize=256)
def _number_of(rotations: bytes, translations: bytes, m: int) -> int:
    import spglib

    try:
        found = spglib.get_spacegroup_type_from_symmetry(
            np.frombuffer(rotations, dtype=np.int64).reshape(m, 3, 3).astype(np.intc),
            np.frombuffer(translations, dtype=float).reshape(m, 3),
        )
    except Exception:  # spglib tells that it found none by errors of several kinds
        return 0
    return int(found.number) if found is not None else 0


def _fits(found: Operations, lattice: FloatArray) -> bool:
    """Whether each operation keeps all lengths and angles of the cell."""
    metric = lattice @ lattice.T
    lengths = np.sqrt(np.diag(metric))
    moved = np.swapaxes(found.rotations, 1, 2) @ metric @ found.rotations
    return bool((np.abs(moved - metric) <= _SAME_METRIC * np.outer(lengths, lengths)).all())


def _check_metric(found: Operations, lattice: FloatArray, where: str) -> None:
    if not _fits(found, lattice):
        raise InputError(
            f"{where}: the cell's lengths and angles do not have the symmetry of the space group",
            hint="check the cell, and on which axes (unique axis, hexagonal or rhombohedral) "
            "the symmetry is given",
        )
