"""Conversion of checkpoints: published families, own state dicts, ImageNet backbones."""

from ccnet.weights.conversion.convert import complete, convert, convert_backbone, read_foreign

__all__ = ["complete", "convert", "convert_backbone", "read_foreign"]
