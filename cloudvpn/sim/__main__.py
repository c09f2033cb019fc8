# SPDX-License-Identifier: GPL-3.0-or-later
from cloudvpn.sim.cli import main

main()
