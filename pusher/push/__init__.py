"""The life of a push, from its record to its outcome."""
