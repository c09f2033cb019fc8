# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets `python -m cloudvpn.keygen` be `cloudvpn-keygen`."""

from cloudvpn.keygen.cli import main

main()
