# SPDX-License-Identifier: GPL-3.0-or-later
"""CloudVPN: a mesh Ethernet VPN whose nodes trust their own CA and nothing else."""

__version__ = "0.1.0"
