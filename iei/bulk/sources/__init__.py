"""What bulk jobs read: folders, files, lines, tables and shards, on this machine or in a cloud."""

from iei.bulk.sources.opening import open_source

__all__ = ["open_source"]
