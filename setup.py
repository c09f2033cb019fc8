# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the extensions, one for each module of `cloudvpn/_fast`; everything else stands in pyproject.toml.

CLOUDVPN_BUILD chooses how: `release` (default), `debug` (bounds checks, assertions, line tracing for coverage), `asan`
(AddressSanitizer, UndefinedBehaviorSanitizer) or `fuzz` (coverage for libFuzzer, AddressSanitizer; with CC=clang). All
but the first want a tree of their own: `make debug`, `make asan`, `make fuzz`.
Compiler directives stand here and not in the files' headers, so that the debug build really changes them.
"""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

BUILD = os.environ.get("CLOUDVPN_BUILD", "release")
DEBUG = BUILD == "debug"
FLAGS = {
    "release": ["-O3", "-g1"],
    "debug": ["-O1", "-g"],
    "asan": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
    "fuzz": ["-O2", "-g", "-fsanitize=address,fuzzer-no-link", "-fno-omit-frame-pointer"],
}
if BUILD not in FLAGS:
    raise SystemExit(f"CLOUDVPN_BUILD is one of {', '.join(FLAGS)}, not {BUILD}")

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
MACROS = [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")] if DEBUG else [("CYTHON_WITHOUT_ASSERTIONS", "1")]

EXTENSIONS = [
    Extension(
        f"cloudvpn._fast.{source.stem}",
        [str(source)],
        define_macros=MACROS,
        # Frames are read through differently typed pointers.
        extra_compile_args=[*FLAGS[BUILD], "-fno-strict-aliasing", "-Wno-unused-function"],
        extra_link_args=[flag for flag in FLAGS[BUILD] if flag.startswith("-fsanitize")],
    )
    for source in sorted(Path("cloudvpn/_fast").glob("*.pyx"))
]

setup(ext_modules=cythonize(EXTENSIONS, compiler_directives=DIRECTIVES))
