"""All problems of a config at once, each with its line: fields, settings that contradict each
other, and parameters of plug-ins.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support import HELPERS, SMALL, load, merged
from typer.testing import CliRunner

from campaign.backtest import config as backtests
from campaign.cli import app
from campaign.config import loaded as configs
from campaign.errors import InputError
from campaign.study import config as studies

MANY = """\
name: many
seed: 1
space:
  elements: [Ni, Fe, Ni]
  min_fraction: {Ni: 0.5, Cr: 0.1}
  max_fraction: {Ni: 0.2}
objective: {quantity: energy, target: .nan}
budget: {labels: 0}
modee: rounds
generators:
  - {use: random_alloy, count: 5, params: {repeets: [1, 1, 1]}}
screens: {volume_per_atom: [20, 2]}
acquisition: {use: max_value_entropy}
constraints: [{quantity: energy_per_atom, at_most: 0}]
oracles:
  - {use: lennard_jones, sanity: {energy_per_atom: [5, -5]}}
"""


def messages(text: str, folder: Path) -> list[str]:
    (folder / "config.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        _ = configs.read(folder / "config.yaml").parts
    return caught.value.message.splitlines()


def test_wrong_fields_are_told_together(tmp_path: Path) -> None:
    found = messages(MANY, tmp_path)
    for line, told in (
        (7, "target"),
        (8, "found 0"),
        (9, "did you mean 'mode'"),
        (12, "found 20 and 2"),
        (16, "found 5 and -5"),
    ):
        assert any(
            f"config.yaml, line {line}:" in message and told in message for message in found
        ), (line, told, found)
    assert any(
        "generators.0.params.repeets: unknown key; did you mean 'repeats'" in message
        for message in found
    )
    assert any("Ni is named twice" in message for message in found)
    assert any("line 5" in message and "found Cr" in message for message in found)
    assert any(
        "min_fraction of Ni, 0.5, is larger than its max_fraction, 0.2" in message
        for message in found
    )


def test_contradictions_and_parts_are_told_together(tmp_path: Path) -> None:
    right = (
        MANY.replace(", target: .nan", "")
        .replace("labels: 0", "labels: 5")
        .replace("modee: rounds\n", "")
        .replace("[20, 2]", "[2, 20]")
    )
    found = messages(right.replace("[5, -5]", "[-5, 5]"), tmp_path)
    assert len(found) == 5, "elements, bounds, acquisition"
    for wrong, correct in {
        "Fe, Ni]": "Fe, Cr]",
        "{Ni: 0.2}": "{Ni: 0.9}",
        "max_value_entropy": "random",
    }.items():
        right = right.replace(wrong, correct)
    assert len(messages(right, tmp_path)) == 2, "the parameter and the quantity"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"elements": ["Ni", "Fe", "Fe"]}}, "Fe is named twice"),
        ({"space": {"max_fraction": {"Al": 0.3}}}, "space's elements .*, found Al"),
        (
            {"space": {"min_fraction": {"Ni": 0.6}, "max_fraction": {"Ni": 0.5}}},
            "is larger than its max_fraction",
        ),
        ({"space": {"together": [{"elements": ["Ni", "Ni"]}]}}, "Ni is named twice"),
        ({"space": {"together": [{"elements": ["Ni", "Al"]}]}}, "found Al"),
        (
            {
                "space": {
                    "together": [{"elements": ["Ni"], "min_fraction": 0.5, "max_fraction": 0.4}]
                }
            },
            "found 0.5 and 0.4",
        ),
        (
            {"space": {"elements": [["Ni", "Fe"]]}},
            r"expected an element's symbol, such as Ni, found \['Ni', 'Fe'\]",
        ),
        ({"space": {"elements": [{"Ni": 0.5}]}}, "expected an element's symbol"),
        ({"space": {"elements": [28]}}, "expected an element's symbol"),
        ({"objective": {"target": float("nan")}}, "objective.target"),
        ({"objective": {"target": float("inf")}}, "objective.target"),
        ({"budget": {"wall_time": float("nan")}}, "budget.wall_time"),
        ({"screens": {"volume_per_atom": [100, 3]}}, "found 100 and 3"),
        ({"screens": {"volume_per_atom": [3, float("nan")]}}, "volume_per_atom"),
        (
            {
                "oracles": [
                    {"use": "lennard_jones", "sanity": {"energy_per_atom": [float("nan"), 1]}}
                ]
            },
            "found nan and 1",
        ),
        (
            {"oracles": [{"use": "lennard_jones", "params": {"epsilon": float("nan")}}]},
            "expected a number, found nan",
        ),
        (
            {"constraints": [{"quantity": "a", "at_least": 3}, {"quantity": "a", "at_most": 2}]},
            "at least 3 and at most 2",
        ),
        ({"references": {"structures": {"Al": "fcc"}}}, "found Al"),
        (
            {"generators": [{"use": "random_crystal", "params": {"volume": [1.2, 0.9]}}]},
            "found 1.2 and 0.9",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _ = load(HELPERS, **changes).parts


def test_a_window_may_be_open() -> None:
    oracles = [{"use": "lennard_jones", "sanity": {"energy_per_atom": [float("-inf"), 5]}}]
    assert load(HELPERS, oracles=oracles).parts.oracles


LATIN = "# 20 \u00b0C, Abst\u00e4nde\nname: case\n"


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (
            ("name: x\n" + LATIN).encode("latin-1"),
            "line 2: expected UTF-8, found the byte 0xB0 at column 6",
            "in Latin-1 this byte is '\u00b0'",
        ),
        (LATIN.encode("utf-16"), "expected UTF-8, found UTF-16", "save the file as UTF-8"),
        (b"name: x\x00\n", "found NUL bytes", "UTF-8"),
    ],
)
def test_configs_in_another_encoding_are_named(
    tmp_path: Path, content: bytes, message: str, hint: str
) -> None:
    path = tmp_path / "case.yaml"
    path.write_bytes(content)
    for read in (configs.read, backtests.read, studies.read):
        with pytest.raises(InputError) as caught:
            read(path)
        assert message in caught.value.message
        assert hint in caught.value.hint
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert result.exit_code == InputError.exit_code


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:

    path = tmp_path / "case.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(merged(SMALL, {})).encode())
    assert configs.read(path).config.name == "small"


def test_documents_that_aliases_multiply_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "case.yaml"
    path.write_text(
        "a0: &a0 [x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    )
    with pytest.raises(InputError, match="more than 200000 values"):
        configs.read(path)


def test_truth_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch_size: expected a number, found true"):
        load(tmp_path, acquisition={"batch_size": True})


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"space": {"elements": ["Ni", "Cr"], "max_fraction": {"Ni": True}}}, "max_fraction.Ni"),
        ({"screens": {"volume_per_atom": [False, 20]}}, "volume_per_atom.0"),
        (
            {"oracles": [{"use": "lennard_jones", "params": {"epsilon": True}}]},
            "oracles.0.params.epsilon",
        ),
        (
            {"oracles": [{"use": "lennard_jones", "sanity": {"energy_per_atom": [-10, True]}}]},
            "sanity.energy_per_atom.1",
        ),
        (
            {"generators": [{"use": "random_alloy", "params": {"repeats": [1, 2, True]}}]},
            "generators.0.params.repeats.2",
        ),
    ],
)
def test_truth_is_no_number_anywhere(tmp_path: Path, changes: dict[str, Any], place: str) -> None:
    with pytest.raises(
        InputError, match=f"{re.escape(place)}: expected a number, found true or false"
    ):
        _ = load(tmp_path, **changes).parts
