# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulator: whole meshes of the shipped switch under a virtual clock. `docs/simulator.md` is for its users."""
