"""Side-by-side measurements. Each is one command, prints a table and writes
``benchmarks/results/<name>.json``.
"""
