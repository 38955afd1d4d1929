"""The ledger: the one durable state of a campaign."""

from campaign.ledger.state import CampaignState
from campaign.ledger.store import Ledger, LedgerReader

__all__ = ["CampaignState", "Ledger", "LedgerReader"]
