"""Failures a user can do something about: one sentence on what is wrong, where, and what to do."""

from __future__ import annotations


class UsageError(Exception):
    """The call is wrong: an option, a config, a name. The command line exits with 2."""


class RunError(Exception):
    """The call is right but the world is not: a missing or damaged file, data that do not fit. Exits with 1."""
