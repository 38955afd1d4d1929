"""Studies: settings of strategies and of trained components, tuned by Optuna against a value that
is measured.
"""
