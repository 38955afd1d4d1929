"""Oracles inside other oracles and screens: named in their settings, built by the registry of
plug-ins.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from campaign import plugins
from campaign.errors import InputError
from campaign.parameters import PlacedSettings
from campaign.protocols import Oracle, PluginSpec, asks_committee


class AsksOracle(PlacedSettings):
    """Settings of a component that asks an oracle; files that the oracle's settings name lie as
    seen from the config's folder.
    """

    oracle: str = Field(
        description="Name of the oracle that is asked, or my_package.module:MyClass."
    )
    params: dict[str, Any] = Field(default_factory=dict, description="That oracle's own settings.")

    def spec(self, **changes: Any) -> PluginSpec:
        """The oracle with some of its settings changed."""
        return PluginSpec(
            group="oracles",
            use=self.oracle,
            params={**self.params, **changes},
            module_folder=self._folder,
        )


def built(spec: PluginSpec, *place: str | int) -> Oracle:
    """An inner oracle. ``place``: where its settings stand in those of the component that asks it.

    Raises ParameterError where they are wrong, InputError where it is no oracle, cannot run here or
    waits for a campaign's committee.
    """
    reason = plugins.unavailable(spec)
    if reason:
        raise InputError(f"{spec.use}: {reason}")
    try:
        oracle = plugins.build(spec)
    except plugins.ParameterError as error:
        raise plugins.ParameterError(
            spec.use, [((*place, *where), what) for where, what in error.problems], error.known
        ) from error
    if not isinstance(oracle, Oracle):
        raise InputError(f"{spec.use} is no oracle: it needs `quantities` and `evaluate(crystal)`")
    if asks_committee(oracle):
        raise InputError(
            f"{spec.use} waits for the committee that a campaign trains, which inner oracles "
            "never get",
            hint="name a model's file, or put the oracle on a level of its own",
        )
    return oracle
