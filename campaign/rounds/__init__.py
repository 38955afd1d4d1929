"""The rounds of a campaign: what goes in, what is proposed and screened, what goes to the oracles
and comes back.
"""
