"""Deployment: faster networks, exported files, and reading those back."""
