"""Everything that enters from files: structures and tables."""
