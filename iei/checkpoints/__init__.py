"""Hub ids and folders → descriptions of checkpoints that need neither torch nor transformers."""
