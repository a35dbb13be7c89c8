"""The attention explorer: a page in the browser, served from this machine to this machine."""

from ccnet.explorer.answers import Explorer
from ccnet.explorer.server import serve

__all__ = ["Explorer", "serve"]
