# SPDX-License-Identifier: GPL-3.0-or-later
"""An oracle of the version-1 wire that shares no code with the product."""
