# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `cloudvpn-keygen`: runs a subcommand, and turns whatever goes wrong into one line and the exit code 1."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime, timezone

from cryptography.exceptions import UnsupportedAlgorithm

from cloudvpn.errors import CloudVPNError
from cloudvpn.keygen.words import make_parser
from cloudvpn.log import escape


def main() -> None:
    """The only place that ends the process."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # names the terminal cannot show
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # `list | head`: at its end Python would try and complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def run(words: Sequence[str], now: datetime | None = None) -> int:
    """Returns the exit code: 0, or 1 after a line on standard error."""
    try:
        args = make_parser().parse_args(words)
        args.run(args, now or datetime.now(timezone.utc))
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except CloudVPNError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f'"{error.filename}": {error.strerror}' if error.filename else str(error))
    except (ValueError, OverflowError, UnsupportedAlgorithm) as error:
        return _fail(str(error) or type(error).__name__)
    except Exception as error:
        return _fail(f"this is a fault of cloudvpn-keygen, please report it: {type(error).__name__}: {error}")
    return 0


def _fail(text: str) -> int:
    print(f"cloudvpn-keygen: {escape(' '.join(text.splitlines()))}", file=sys.stderr)
    return 1
