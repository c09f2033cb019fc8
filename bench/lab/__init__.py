# SPDX-License-Identifier: GPL-3.0-or-later
"""What `bench.peers`, `bench.mesh` and `bench.profile` have in common: hosts, daemons, load, figures, tables."""
