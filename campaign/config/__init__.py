"""Configs: their frame, what is wrong in one, and what it names, built."""
