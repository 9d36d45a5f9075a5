"""Descriptions of models, and the catalog of those that are served."""
