# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m cloudvpn` is `cloudvpn`."""

from cloudvpn.cli import main

main()
