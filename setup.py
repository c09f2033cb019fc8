# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the extensions, one for each module of `cloudvpn/_fast`; everything else stands in pyproject.toml.

CLOUDVPN_BUILD chooses how: `release` (default), `debug` (bounds checks, assertions, line tracing for coverage).
Compiler directives stand here and not in the files' headers, so that the debug build really changes them.
"""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("CLOUDVPN_BUILD", "release") == "debug"

DIRECTIVES = {
    "language_level": 3,
    "embedsignature": True,
    "cdivision": True,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "linetrace": DEBUG,
}
MACROS = [("CYTHON_TRACE", "1")] if DEBUG else [("CYTHON_WITHOUT_ASSERTIONS", "1")]
FLAGS = ["-O1", "-g"] if DEBUG else ["-O3", "-g1"]

EXTENSIONS = [
    Extension(
        f"cloudvpn._fast.{source.stem}",
        [str(source)],
        define_macros=MACROS,
        # Frames are read through differently typed pointers.
        extra_compile_args=[*FLAGS, "-fno-strict-aliasing", "-Wno-unused-function"],
    )
    for source in sorted(Path("cloudvpn/_fast").glob("*.pyx"))
]

setup(ext_modules=cythonize(EXTENSIONS, compiler_directives=DIRECTIVES, force=DEBUG))
