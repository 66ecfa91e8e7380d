"""How setuptools builds the extensions (``pyproject.toml`` names the class): on all processors at once.

setuptools' own ``parallel`` would run Cython in threads, for which it is not made; so Cython has processes, for all
extensions first, and threads only wait for the C compilers.
"""

from __future__ import annotations

import os

from Cython.Build import cythonize
from setuptools.command.build_ext import build_ext


class BuildExtensions(build_ext):
    """``build_ext`` that uses all processors this process may use."""

    def build_extensions(self) -> None:
        processors = len(os.sched_getaffinity(0))
        generated = cythonize(self.extensions, nthreads=processors, force=self.force)
        for extension, with_c in zip(self.extensions, generated, strict=True):
            assert extension.name == with_c.name
            extension.sources = with_c.sources
        self.parallel = self.parallel or processors
        super().build_extensions()
