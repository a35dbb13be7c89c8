"""Economy: a replica of a network computes the same in less memory."""

from ccnet.economy.choice import economise

__all__ = ["economise"]
