# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kind of TAP this system has."""

from __future__ import annotations

import sys
from typing import Final

from cloudvpn.tap import LinuxTap, Tap
from cloudvpn.tap_bsd import CharacterTap

SystemTap: Final[type[Tap]] = LinuxTap if sys.platform == "linux" else CharacterTap
