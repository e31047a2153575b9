"""The one way to the disk: changes, in batches, behind the gate.

`changes` says what a caller wants written and what becomes of it, `commit` and `interval`
are the two ways to make it durable, and `writer` decides who commits when.
"""

from __future__ import annotations

from lgkv.batch import Batch
from lgkv.writer.changes import Change, Mailbox, Pending
from lgkv.writer.commit import WriterFigures
from lgkv.writer.writer import Writer

__all__ = [
    "Batch",
    "Change",
    "Mailbox",
    "Pending",
    "Writer",
    "WriterFigures",
]
