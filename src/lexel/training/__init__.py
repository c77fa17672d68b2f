"""Training runs and their evaluation. Needs the extra `lexel[train]`."""
