"""Deployment: networks as files that run without this package, and reading these back."""
