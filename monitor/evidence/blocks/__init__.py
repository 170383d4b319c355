"""Columnar blocks of records: the schema of docs/records.md, to bytes and back."""

from understudy.monitor.evidence.blocks.block import (
    Block,
    Head,
    Heartbeat,
    LabelBlock,
    RecordBlock,
    Row,
    Texts,
)
from understudy.monitor.evidence.blocks.builder import Builder, partition_of
from understudy.monitor.evidence.blocks.cells import Column, Grid
from understudy.monitor.evidence.blocks.codec import SCHEMA, decode, encode

__all__ = [
    "SCHEMA",
    "Block",
    "Builder",
    "Column",
    "Grid",
    "Head",
    "Heartbeat",
    "LabelBlock",
    "RecordBlock",
    "Row",
    "Texts",
    "decode",
    "encode",
    "partition_of",
]
