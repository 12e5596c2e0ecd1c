"""Sends a range of messages again: which, to where, and each only once."""
