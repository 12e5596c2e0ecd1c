"""The admin port: health, metrics for Prometheus, and a status page for people."""
