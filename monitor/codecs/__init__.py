"""Payload bytes to features and predictions: pure functions, one file for each wire format.

A codec never fails and never changes a request. What it cannot read is an :class:`Undecodable` with
one of a few reasons.
"""

from understudy.monitor.codecs.decode import Decoded, decode_exchange
from understudy.monitor.codecs.spec import ModelSpec
from understudy.monitor.codecs.table import Reason, Table, Undecodable

__all__ = ["Decoded", "ModelSpec", "Reason", "Table", "Undecodable", "decode_exchange"]
