"""The embedded broker: topics, groups and commits in one SQLite file, for one machine without Kafka.

Every topic has one partition. Processes share the file: SQLite's write-ahead log lets them read and write at the same
time, and a lease gives each topic of a group to one of them.
"""

from pusher.broker.sqlite.publisher import SqlitePublisher
from pusher.broker.sqlite.reader import SqliteReader
from pusher.broker.sqlite.source import SqliteSource

__all__ = ["SqlitePublisher", "SqliteReader", "SqliteSource"]
