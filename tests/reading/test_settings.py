"""Documents that are nested without an end are refused at once, whatever nests them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from campaign.errors import InputError
from campaign.reading.settings import yaml_of

ENDLESS = {
    "sequences in brackets": "[" * 1000 + "]" * 1000,
    "brackets left open": "[" * 20_000,
    "mappings in braces": "{a: " * 1000 + "}" * 1000,
    "sequences by dashes": "- " * 1000 + "a",
    "keys by indent": "".join(f"{' ' * depth}a:\n" for depth in range(1000)),
    "an alias of itself": "&a [*a]",
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_what_is_nested_without_an_end_is_refused_at_once(text: str) -> None:
    started = time.process_time()
    with pytest.raises(InputError, match=r"config\.yaml: its values lie more than 200 levels deep"):
        yaml_of(text, Path("config.yaml"), typ="rt")
    assert time.process_time() - started < 3


def test_brackets_in_text_and_deep_settings_are_read() -> None:
    deep = "[" * 30 + "1" + "]" * 30
    document = yaml_of(f"a: {deep}\nb: ']]]]'\nc: '[[[['\n", Path("config.yaml"), typ="rt")
    assert document["b"] == "]]]]"
    assert document["c"] == "[[[["
