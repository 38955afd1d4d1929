"""What is given at the command line in words: settings as ``key=value``, elements."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from campaign.errors import InputError
from campaign.reading.settings import yaml_of


def settings_of(words: Sequence[str]) -> dict[str, Any]:
    """Nested settings of words such as ``training.epochs=5``; values as in YAML. Raises
    InputError.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not all(key.split(".")):
            raise InputError(
                f"expected a setting such as training.epochs=5, got {word!r}",
                hint="write it like --set key=value",
            )
        found = laid(found, {key: yaml_of(text, Path(f"--set {key}"), typ="safe")})
    return found


def words_of_all(texts: Sequence[str]) -> tuple[str, ...]:
    """The words of texts such as ``Ni,Fe`` and ``Cr``."""
    return tuple(word for text in texts for word in re.split(r"[\s,]+", text) if word)


def laid(base: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested settings with values at dotted keys; a number in a key is a place in a list.
    Raises InputError.
    """
    found = copy.deepcopy(dict(base))
    for key, value in settings.items():
        here: Any = found
        *parents, last = key.split(".")
        for place, part in enumerate(parents):
            here = (
                here[_place(key, part, here)]
                if isinstance(here, list)
                else here.setdefault(part, {})
            )
            if not isinstance(here, (dict, list)):
                raise InputError(
                    f"{key}: {part} is a value, and has no "
                    f"{'.'.join(parents[place + 1 :] + [last])}"
                )
        if isinstance(here, list):
            here[_place(key, last, here)] = value
        else:
            here[last] = value
    return found


def _place(key: str, part: str, items: list[Any]) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise InputError(
            f"{key}: expected a place from 0 to {len(items) - 1} in a list, got {part}"
        )
    return int(part)
