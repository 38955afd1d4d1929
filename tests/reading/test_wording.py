"""What is wrong with settings, in words."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field, ValidationError

from campaign.reading.wording import mistakes


def test_what_is_missing_is_told_with_its_meaning() -> None:
    class Inner(BaseModel):
        column: str = Field(description="CIF text, or where it lies. Relative to the config.")
        unit: str

    class Outer(BaseModel):
        name: str = Field(description="Name of the whole.")
        inner: Inner

    document: dict[str, object] = {"inner": {}}
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(document)
    assert sorted(map(str, mistakes(caught.value, Outer, document))) == [
        "inner.column is missing: CIF text, or where it lies",
        "inner.unit is missing",
        "name is missing: name of the whole",
    ]
