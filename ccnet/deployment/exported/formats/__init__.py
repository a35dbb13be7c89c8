"""Formats of exported files: ONNX, and the two of PyTorch."""

from ccnet.deployment.exported.formats.registry import FORMATS, check_version, format_of, open_file

__all__ = ["FORMATS", "check_version", "format_of", "open_file"]
