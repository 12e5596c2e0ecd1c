"""Where messages come from and where outcomes go: Kafka, or the embedded SQLite broker."""
