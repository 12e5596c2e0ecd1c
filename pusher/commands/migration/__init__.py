"""The move from the Go program: every difference, and which of them apply to a configuration."""
