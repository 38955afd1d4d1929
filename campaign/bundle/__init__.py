"""Evidence bundles: a finished campaign as one folder that others can check without having run
it.
"""

from campaign.bundle.verifying import Check, verify
from campaign.bundle.writing import write_bundle

__all__ = ["Check", "verify", "write_bundle"]
