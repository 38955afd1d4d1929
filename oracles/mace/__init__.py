"""Labels from MACE models, and MACE models from labels."""
