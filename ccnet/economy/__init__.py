"""Economy: a replica of a network computes the same in less memory."""

from ccnet.economy.choice import economise, is_watched

__all__ = ["economise", "is_watched"]
