"""The error by which a compressor or a runtime says no."""

from __future__ import annotations


class Refused(Exception):
    """A compressor or a runtime cannot do this candidate; the message is the reason."""
