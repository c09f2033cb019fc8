# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks of the parts that run per frame, per route and per id, without sockets."""
