"""Fuzzing: everything that reads what others write, fed with what nobody would write. See docs/fuzzing.md."""
