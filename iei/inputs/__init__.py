"""Preparation of inputs: download, decoding, resizing and tokenization."""
