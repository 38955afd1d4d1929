"""Replay of strategies on a table of labels or a cheap oracle: the campaign's own code, in virtual
time, over many seeds.
"""
