# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiles the loops beside this file into `build/`, when something they depend on has changed."""

from __future__ import annotations

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Distribution, Extension  # type: ignore[import-untyped]
from setuptools.command.build_ext import build_ext  # type: ignore[import-untyped]

import bench.micro
import cloudvpn

HERE = Path(__file__).parent
BUILD = HERE / "build"

# As setup.py builds the release: measured code and measuring code are compiled alike.
DIRECTIVES = {
    "language_level": 3,
    "cdivision": True,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "nonecheck": False,
}


def build() -> None:
    """Makes `bench.micro.loops` and `bench.micro.calibration` importable."""
    refuse_stale(Path(cloudvpn.__file__).parent / "_fast")
    extensions = [
        Extension(
            f"bench.micro.{source.stem}",
            [str(source)],
            define_macros=[("CYTHON_WITHOUT_ASSERTIONS", "1")],
            extra_compile_args=["-O3", "-g1", "-fno-strict-aliasing"],
        )
        for source in sorted(HERE.glob("*.pyx"))
    ]
    modules = cythonize(  # type: ignore[no-untyped-call]
        extensions,
        build_dir=str(BUILD),
        compiler_directives=DIRECTIVES,
        # An editable install may be found by an import hook only, which Cython does not ask.
        include_path=[str(Path(cloudvpn.__file__).parents[1])],
        quiet=True,
    )
    command = build_ext(Distribution({"name": "bench", "ext_modules": modules}))
    command.build_lib = str(BUILD / "lib")
    command.build_temp = str(BUILD / "temp")
    command.ensure_finalized()
    command.run()
    bench.micro.__path__.append(str(BUILD / "lib/bench/micro"))


def refuse_stale(folder: Path) -> None:
    """Extensions older than their sources: not what shall be measured, and their tables of methods may not match."""
    stale = []
    for source in folder.glob("*.pyx"):
        changed = max(source.stat().st_mtime, source.with_suffix(".pxd").stat().st_mtime)
        if max((module.stat().st_mtime for module in folder.glob(f"{source.stem}.*.so")), default=0) < changed:
            stale.append(source.stem)
    if stale:
        raise RuntimeError(f"build the package first; missing or older than its sources: {', '.join(sorted(stale))}")
