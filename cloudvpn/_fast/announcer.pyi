# SPDX-License-Identifier: GPL-3.0-or-later
class Announcer:
    ready: int
    due: int
