"""The change from the Go program that pusher replaces: every difference, and which of them a configuration meets."""
