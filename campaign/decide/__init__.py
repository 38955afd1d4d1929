"""What a campaign decides, from what the ledger holds: models, rankings, and which crystals are
labelled next.
"""
