"""What an operator does to a Kafka: topics made, widened and deleted, records expired."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from kafka.errors import CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError
from kafka.structs import OffsetAndMetadata, TopicPartition


@contextmanager
def administration(brokers: str) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(bootstrap_servers=brokers)
    try:
        yield admin
    finally:
        admin.close()


def create_topic(brokers: str, topic: str, partitions: int = 3, **settings: str) -> None:
    """Makes a topic and waits until it has leaders."""
    configs = {name.replace("_", "."): value for name, value in settings.items()}
    options = {"num_partitions": partitions, "replication_factor": 1, "configs": configs}
    with administration(brokers) as admin:
        admin.create_topics({topic: options}, wait_for_metadata=True)


def widen_topic(brokers: str, topic: str, partitions: int) -> None:
    """Gives a topic more partitions."""
    with administration(brokers) as admin:
        admin.create_partitions({topic: partitions})


def delete_topic(brokers: str, topic: str) -> None:
    with administration(brokers) as admin:
        admin.delete_topics([topic])


def expire_records(brokers: str, topic: str, partition: int, before: int) -> None:
    """Deletes a partition's records below an offset, as retention does."""
    with administration(brokers) as admin:
        admin.delete_records({TopicPartition(topic, partition): before})


def limit_records(brokers: str, topic: str, max_bytes: int) -> None:
    """Lets a topic refuse records above a size."""
    with administration(brokers) as admin:
        admin.alter_configs([ConfigResource("TOPIC", topic, {"max.message.bytes": str(max_bytes)})])


def topics(brokers: str) -> set[str]:
    with administration(brokers) as admin:
        return set(admin.list_topics())


def committed(brokers: str, group: str) -> dict[tuple[str, int], OffsetAndMetadata]:
    """All that a group has committed, by topic and partition; nothing where the brokers do not know the group yet."""
    with administration(brokers) as admin:
        try:
            found = admin.list_group_offsets([group])
        except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError):
            return {}
        return {tuple(partition): offset for partition, offset in found[group].items() if offset.offset >= 0}


def shares(brokers: str, group: str) -> list[int]:
    """How many partitions each member of a group has."""
    with administration(brokers) as admin:
        members = admin.describe_groups([group])[group]["members"]
        # one that is joining has a text without content
        assignments = [member["member_assignment"] or {} for member in members]
        assigned = [assignment.get("assigned_partitions", ()) for assignment in assignments]
        return [sum(len(topic["partitions"]) for topic in topics) for topics in assigned]
