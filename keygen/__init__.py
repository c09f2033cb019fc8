# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `cloudvpn-keygen`: a CA in a folder, and the keys and certificates of its nodes."""
