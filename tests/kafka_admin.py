"""What ``lab.kafka.admin`` does, for scripts outside of this tree that know it by this name."""

from lab.kafka.admin import administration, committed, create_topic

__all__ = ["administration", "committed", "create_topic"]
