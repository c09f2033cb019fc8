# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the time of two daemons goes: `python -m bench.profile`."""
