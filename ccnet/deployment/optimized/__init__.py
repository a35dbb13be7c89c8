"""Optimised networks: the same results, faster, for inference alone."""
