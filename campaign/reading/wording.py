"""What is wrong with settings, in a person's words: what was expected, what was found, the nearest
key; nothing of how it is checked.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

Location = tuple[str | int, ...]

_PLAIN: Mapping[str, str] = {
    "dict_type": "settings, one `key: value` a line",
    "model_type": "settings, one `key: value` a line",
    "model_attributes_type": "settings, one `key: value` a line",
    "tuple_type": "a list",
    "list_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "string_type": "text",
    "path_type": "a path",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "none_required": "nothing",
}
_PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "letters, digits and . _ - with a letter or digit at the start"
}
_BOUNDED: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "literal_error": lambda context: str(context["expected"]),
    "enum": lambda context: str(context["expected"]),
    "greater_than": lambda context: f"more than {context['gt']:g}",
    "greater_than_equal": lambda context: f"at least {context['ge']:g}",
    "less_than": lambda context: f"less than {context['lt']:g}",
    "less_than_equal": lambda context: f"at most {context['le']:g}",
    "multiple_of": lambda context: f"a multiple of {context['multiple_of']:g}",
    "too_short": lambda context: f"a list of at least {context['min_length']}",
    "too_long": lambda context: f"a list of at most {context['max_length']}",
    "string_too_short": lambda context: f"at least {context['min_length']} characters",
    "string_too_long": lambda context: f"at most {context['max_length']} characters",
    "string_pattern_mismatch": lambda context: _PATTERNS.get(
        context["pattern"], f"text of the pattern {context['pattern']}"
    ),
    "union_tag_invalid": lambda context: (
        f"{str(context['discriminator']).strip(chr(39))}: one of {context['expected_tags']}"
    ),
    "union_tag_not_found": lambda context: (
        f"{str(context['discriminator']).strip(chr(39))}: to be given"
    ),
}
_MISSING = "is missing"
_OWN_WORDS = ("Value error, ", "Assertion failed, ")


@dataclass(frozen=True)
class Mistake:
    """What is wrong at a place of a document; ``text`` stands by itself."""

    location: Location
    text: str
    is_unknown: bool = False

    @property
    def dotted(self) -> str:
        return ".".join(str(part) for part in self.location)

    def __str__(self) -> str:
        """Place and text in one line."""
        if self.is_unknown:
            return self.text.replace("unknown key", f"unknown key {self.dotted!r}", 1)
        return (
            f"{self.dotted}{' ' if self.text.startswith(_MISSING) else ': '}{self.text}"
            if self.location
            else self.text
        )


def mistakes(error: ValidationError, model: type[BaseModel], document: Any) -> list[Mistake]:
    """All that was found wrong with a document that ``model`` describes; what only follows from
    something deeper is left out.
    """
    gathered: dict[Location, list[Any]] = {}
    for item in error.errors(include_url=False):
        gathered.setdefault(_place(item, document), []).append(item)
    deepest = [
        place
        for place in gathered
        if not any(other[: len(place)] == place != other for other in gathered)
    ]
    return [_mistake(place, gathered[place], model) for place in deepest]


def _place(item: Any, document: Any) -> Location:
    """The location as far as the document holds it, without the names of types that were tried;
    what is missing ends it.
    """
    place: list[str | int] = []
    here = document
    for i, part in enumerate(item["loc"]):
        is_there = (
            part in here
            if isinstance(here, Mapping)
            else isinstance(part, int) and isinstance(here, Sequence) and part < len(here)
        )
        if is_there:
            place.append(part)
            here = here[part]
        elif item["type"] == "missing" and i == len(item["loc"]) - 1:
            place.append(part)
    return tuple(place)


def _mistake(place: Location, items: Sequence[Any], model: type[BaseModel]) -> Mistake:
    kinds = {item["type"] for item in items}
    if "extra_forbidden" in kinds:
        names = known_keys(model, place[:-1])
        nearest = difflib.get_close_matches(str(place[-1]), names, n=1)
        told = (
            f"did you mean {nearest[0]!r}?"
            if nearest
            else f"known are {', '.join(names)}"
            if names
            else ""
        )
        return Mistake(place, f"unknown key{f'; {told}' if told else ''}", is_unknown=True)
    if kinds == {"missing"}:
        return Mistake(place, f"{_MISSING}{_described(model, place)}")
    own = [_own_words(item) for item in items if item["type"] in ("value_error", "assertion_error")]
    if own:
        return Mistake(place, "; ".join(dict.fromkeys(own)))
    expected = " or ".join(dict.fromkeys(_expected(item) for item in items))
    return Mistake(place, f"expected {expected}, found {_found(items[0])}{_nearest(items[0])}")


def _own_words(item: Any) -> str:
    text = str(item["msg"])
    for prefix in _OWN_WORDS:
        text = text.removeprefix(prefix)
    return text


def _expected(item: Any) -> str:
    kind = item["type"]
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind in _BOUNDED:
        return _BOUNDED[kind](item["ctx"])
    return f"something else ({item['msg']})"


def _nearest(item: Any) -> str:
    """The word that was meant, where one of a few was expected."""
    words = (
        re.findall(r"'([^']*)'", str(item["ctx"]["expected"]))
        if item["type"] == "literal_error"
        else []
    )
    nearest = difflib.get_close_matches(str(item.get("input")), words, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def _found(item: Any) -> str:
    """The value as YAML would show it, in a few words."""
    value = item.get("input")
    if item["type"] in ("too_short", "too_long"):
        return f"{item['ctx']['actual_length']}"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return repr(value)
    return (
        "settings"
        if isinstance(value, Mapping)
        else "a list"
        if isinstance(value, list | tuple)
        else "something else"
    )


def _described(model: type[BaseModel], place: Location) -> str:
    """What is to stand at a place, in the words of its setting."""
    fields = (found.model_fields.get(str(place[-1])) for found in _settings_at(model, place[:-1]))
    words = (field.description for field in fields if field is not None)
    told = next(filter(None, words), "").partition(". ")[0].rstrip(".")
    if told[1:2].islower():
        told = f"{told[0].lower()}{told[1:]}"
    return f": {told}" if told else ""


def known_keys(model: type[BaseModel], place: Location) -> list[str]:
    """The keys that settings have at a place; empty where any key goes."""
    return list(
        dict.fromkeys(name for found in _settings_at(model, place) for name in found.model_fields)
    )


def _settings_at(model: type[BaseModel], place: Location) -> list[type[BaseModel]]:
    here = [model]
    for part in place:
        if not isinstance(part, int):
            inside = [
                found.model_fields[part].annotation for found in here if part in found.model_fields
            ]
            here = (
                [found for annotation in inside for found in _models(annotation)]
                if inside
                else here
            )
    return here


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
