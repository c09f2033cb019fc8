# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests start from."""

import os

# Configurations that tests write must pass `strict_permissions`, whatever the user's umask is.
os.umask(0o022)
