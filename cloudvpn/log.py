# SPDX-License-Identifier: GPL-3.0-or-later
"""The log: one event is one line on stderr, whatever names peers and files carry."""

from __future__ import annotations

import logging
import os
import sys
from datetime import datetime

# Priorities of sd-daemon(3), which are those of syslog(3).
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def escape(text: str) -> str:
    r"""Make what is not printable (controls, newlines, bidi marks, surrogates) visible as \xNN, \uNNNN or \UNNNNNNNN.

    The backslash stays as it is, so escaping twice is escaping once and callers need not know who escapes last.
    """
    return text if text.isprintable() else "".join(char if char.isprintable() else _visible(ord(char)) for char in text)


def _visible(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class LineFormatter(logging.Formatter):
    """Writes a record as one line; only a traceback adds lines, each of them indented."""

    def __init__(self, *, for_journal: bool) -> None:
        super().__init__()
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        if self._for_journal:
            first = more = f"<{_PRIORITIES.get(record.levelno, 6)}>"  # the journal keeps the time, and reads each line
        else:
            time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
            first, more = f"{time} {record.levelname.lower()} ", ""
        lines = [first + escape(record.getMessage())]
        if record.exc_info:
            # splitlines() knows more line ends than "\n"; all lead to an indented line, so none can be forged.
            lines += [f"{more}    {escape(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(lines)


def is_journal(descriptor: int) -> bool:
    """Ask as systemd.exec(5) wants it: JOURNAL_STREAM is inherited even by a child whose stderr goes elsewhere."""
    try:
        info = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"


def set_up(level: str) -> None:
    """Send the logger 'cloudvpn' to stderr, from `level` (of log_level) on; a second call replaces the first."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(for_journal=is_journal(2)))
    logging.raiseExceptions = False     # a line that finds no room on a disk or in memory is lost, and nothing else
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)     # what the loop notices about links is logged by us
    logger = logging.getLogger("cloudvpn")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
