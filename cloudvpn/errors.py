# SPDX-License-Identifier: GPL-3.0-or-later
"""The exceptions of the daemon, one for each party that can be at fault."""

from __future__ import annotations

from collections.abc import Sequence


class CloudVPNError(Exception):
    """Base of all errors that are reported without a traceback."""


class ConfigError(CloudVPNError):
    """The user's fault: every problem of one run, collected, each a full sentence with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class SetupError(CloudVPNError):
    """The machine's fault: what is missing to start (rights, a device, a port), and what to do."""


class PeerError(CloudVPNError):
    """The peer's fault: this link closes, everything else goes on."""


class InternalError(CloudVPNError):
    """Our own fault: a state that the code promised never to reach."""
