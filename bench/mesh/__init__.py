# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes of several nodes: `python -m bench.mesh`."""
