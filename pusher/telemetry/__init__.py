"""What the process says about itself: log lines, metrics, reports to Sentry."""
