# SPDX-License-Identifier: GPL-3.0-or-later
from cloudvpn._fast.random import RandomSource
from cloudvpn._fast.route import RouteTable

def choose(routes: RouteTable, random: RandomSource, mac: int, source: int, ratio: int) -> int | None: ...
