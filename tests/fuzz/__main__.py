"""Runs the fuzzers: ``python -m tests.fuzz TARGET --seconds N``; see docs/fuzzing.md."""

from gevent import monkey

monkey.patch_all()

from tests.fuzz.command import main

main()
