# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks; README.md says how to run them and what the figures mean."""
