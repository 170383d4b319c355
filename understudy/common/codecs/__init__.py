"""Payload bytes to features and predictions: pure functions, one file for each wire format.

A codec never fails and never changes a request. What it cannot read is an :class:`Undecodable` with
one of a few reasons.
"""

from understudy.common.codecs.decode import Decoded, decode_exchange
from understudy.common.codecs.spec import ModelSpec
from understudy.common.codecs.table import Reason, Table, Undecodable

__all__ = ["Decoded", "ModelSpec", "Reason", "Table", "Undecodable", "decode_exchange"]
