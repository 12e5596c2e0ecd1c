"""The command line, and the commands that a user runs by hand."""
