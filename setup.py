"""All that a build needs stands in pyproject.toml; this file is for tools that ask for it by name."""

from setuptools import setup

setup()
