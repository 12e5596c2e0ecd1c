"""The commands that send pushes."""
