"""A worker as uvicorn runs it: limits on its connections, and how it stops."""
