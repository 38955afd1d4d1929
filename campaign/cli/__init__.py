"""The command ``oreloop``."""

from importlib import import_module

from campaign.collecting import no_collection

with no_collection():
    from campaign.cli.base import app, main
    from campaign.cli.campaigns import template_folder

    for _group in (
        "campaigns",
        "results",
        "studies",
        "installed",
        "registering",
        "chaos",
    ):  # in this order they stand in the help
        import_module(f"campaign.cli.{_group}")

__all__ = ["app", "main", "template_folder"]
