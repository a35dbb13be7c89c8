"""Kernel of criss-cross attention: its mathematics, schedules, and their autograd."""

from ccnet.attention_kernel.autograd import attend
from ccnet.attention_kernel.dense import dense

__all__ = ["attend", "dense"]
