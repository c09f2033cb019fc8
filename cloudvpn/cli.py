# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `cloudvpn`: words of the command line to a configuration, a check, a demonstration or a running node."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from datetime import datetime, timezone

from cloudvpn import __version__
from cloudvpn.config import COMMANDS, Loaded, load_words
from cloudvpn.errors import CloudVPNError, ConfigError
from cloudvpn.help import usage
from cloudvpn.log import set_up
from cloudvpn.options import BY_NAME

log = logging.getLogger("cloudvpn")


def main() -> None:
    """The only place that ends the process."""
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Returns the exit code: 0, or 1 after a message on standard error."""
    if not words:
        print("usage: cloudvpn node.conf, or cloudvpn --help for all words", file=sys.stderr)
        return 1
    try:
        execute(words)
    except CloudVPNError as error:
        print("\n".join(f"cloudvpn: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def execute(words: Sequence[str]) -> None:
    first, rest = words[0], words[1:]
    command = "help" if first == "-h" else first.removeprefix("-").removeprefix("-") if first.startswith("-") else ""
    if command not in COMMANDS:
        start(words)
    elif command == "check":
        check(rest)
    elif rest:
        raise ConfigError([f"command line: {first}: takes no other words"])
    elif command == "help":
        print(usage(), end="")
    elif command == "version":
        print(f"cloudvpn {__version__}")
    else:
        from cloudvpn.demo import show
        show()


def check(words: Sequence[str]) -> None:
    """Everything a start would complain of and that can be seen without starting: options, files, keys."""
    from cloudvpn.expiry import find_endings
    from cloudvpn.reload import TrustFiles
    loaded = load_words(words)
    credentials = TrustFiles().load(loaded.config)
    now = datetime.now(timezone.utc)
    endings = [ending.describe(now) for ending in find_endings(credentials, (), now)]
    for remark in (*loaded.warnings, *credentials.warnings, *endings, *remarks_on_unused(loaded)):
        print(f"cloudvpn: {remark}", file=sys.stderr)
    print("cloudvpn: the configuration is good")


def start(words: Sequence[str]) -> None:
    from cloudvpn.daemon import run as run_node
    loaded = load_words(words)
    set_up(loaded.config.log_level)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    for remark in remarks_on_unused(loaded):
        log.info("%s", remark)
    run_node(words, loaded.config)


def remarks_on_unused(loaded: Loaded) -> list[str]:
    """One line for each option that was set and changes nothing."""
    return [f"{name}: accepted, but has no effect: {BY_NAME[name.replace('-', '_')].unused}" for name in loaded.unused]
