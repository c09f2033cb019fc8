# SPDX-License-Identifier: GPL-3.0-or-later
"""This project beside other tunnels: `python -m bench.peers`."""
