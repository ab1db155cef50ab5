"""Installs the data sets and the flagfiles, which lie beside the package in a checkout, inside it."""

from __future__ import annotations

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

NOT_INSTALLED = ("testing", "generate")


class BuildWithoutTests(build_py):
    """Builds the package without the tests of the data sets."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Lists the modules of a package that are installed."""
        modules = super().find_package_modules(package, package_dir)
        return [found for found in modules if not found[1].endswith((*NOT_INSTALLED, "_test"))]


setup(
    packages=[
        *find_packages(include=["ccp_dml", "ccp_dml.*"]),
        *(f"ccp_dml.{name}" for name in find_packages(include=["datasets", "datasets.*"])),
        "ccp_dml.configs",
    ],
    cmdclass={"build_py": BuildWithoutTests},
)
