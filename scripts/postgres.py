"""The PostgreSQL of ``lab.postgres``, for scripts outside of this tree that know it by this name."""

from lab.postgres import programs, start, stop

__all__ = ["programs", "start", "stop"]
