# SPDX-License-Identifier: GPL-3.0-or-later
ops: int

def run(copied: int = 1500) -> int: ...
