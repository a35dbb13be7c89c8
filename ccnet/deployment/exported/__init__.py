"""Exported files: a network as one file, and such files read back."""
