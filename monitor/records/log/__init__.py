"""A durable log on local disk: segments, their reader and writer, and a queue made of them."""

from understudy.monitor.records.log.frames import Damage
from understudy.monitor.records.log.segments import Read, is_log, read
from understudy.monitor.records.log.spool import Entry, Spool
from understudy.monitor.records.log.writer import SegmentLog

__all__ = ["Damage", "Entry", "Read", "SegmentLog", "Spool", "is_log", "read"]
