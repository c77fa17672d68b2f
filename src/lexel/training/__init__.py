"""Training runs, their evaluation, and the demo. Needs the extra `lexel[train]`."""
