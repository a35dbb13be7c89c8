"""Batch normalisation for training: synchronised across processes, or in place to save memory."""

from ccnet.norm.conversion import (
    activation_slopes,
    convert_inplace_abn,
    convert_sync_batchnorm,
    restore_batchnorm,
)
from ccnet.norm.inplace_abn import InPlaceABN
from ccnet.norm.sync_batch_norm import SyncBatchNorm

__all__ = [
    "InPlaceABN",
    "SyncBatchNorm",
    "activation_slopes",
    "convert_inplace_abn",
    "convert_sync_batchnorm",
    "restore_batchnorm",
]
