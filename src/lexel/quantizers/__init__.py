"""Quantizers: one file for each family."""
