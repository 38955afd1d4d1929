"""Settings as words of a command line."""

from __future__ import annotations

import pytest

from campaign.errors import InputError
from campaign.reading.arguments import settings_of, words_of_all


def test_settings_are_nested_and_typed_as_in_yaml() -> None:
    words = [
        "a.rate=1e-3",
        "a.steps=5",
        "b=[x, 2]",
        "c={d: true}",
        "c.e=text of words",
        "b.1=3",
        "f=",
        "g=a=b",
    ]
    expected = {
        "a": {"rate": 1e-3, "steps": 5},
        "b": ["x", 3],
        "c": {"d": True, "e": "text of words"},
        "f": None,
        "g": "a=b",
    }
    assert settings_of(words) == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rate"], "expected a setting such as training.epochs=5, got 'rate'"),
        (["=3"], "expected a setting such as"),
        (["a..b=3"], "expected a setting such as"),
        (["a=[1"], "--set a is no valid YAML"),
        (["a=1", "a.b=2"], "a.b: a is a value, and has no b"),
        (["a=[1]", "a.3=2"], "a.3: expected a place from 0 to 0 in a list, got 3"),
    ],
)
def test_what_is_no_setting_is_told(words: list[str], told: str) -> None:
    with pytest.raises(InputError) as failed:
        settings_of(words)
    assert told in str(failed.value)


def test_words_stand_apart_by_commas_or_blanks() -> None:
    assert words_of_all(["Ni,Fe", "Cr Al", " Co, "]) == ("Ni", "Fe", "Cr", "Al", "Co")
