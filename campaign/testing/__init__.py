"""The conformance kits: what a plug-in of each port has to hold, ours and the users'. One module a
port.

``oreloop oracle check``, ``generator check``, ``surrogate check``, ``embedder check`` and ``screen
check`` run them at a terminal, ``check_oracle`` and the others in pytest.
"""

from campaign.testing.embedders import check_embedder, examine_embedder
from campaign.testing.findings import Finding, Status
from campaign.testing.generators import check_generator, examine_generator
from campaign.testing.oracles import check_oracle, examine
from campaign.testing.screens import check_screen, examine_screen
from campaign.testing.surrogates import check_surrogate, examine_surrogate

__all__ = [
    "Finding",
    "Status",
    "check_embedder",
    "check_generator",
    "check_oracle",
    "check_screen",
    "check_surrogate",
    "examine",
    "examine_embedder",
    "examine_generator",
    "examine_screen",
    "examine_surrogate",
]
