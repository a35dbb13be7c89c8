"""Economy: a replica of a network computes the same in less memory."""

from ccnet.economy.choice import economise
from ccnet.economy.layers import is_observed

__all__ = ["economise", "is_observed"]
