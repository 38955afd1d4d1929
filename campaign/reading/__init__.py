"""The door for what enters: structures, each right or refused by name."""
