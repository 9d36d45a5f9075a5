"""What bulk jobs read: folders, patterns, files, stdin, WebDataset, Parquet, Arrow, CSV; on this machine or in a cloud."""

from iei.bulk.sources.opening import open_source

__all__ = ["open_source"]
