"""The page at `/`, on which people try the server in a browser: docs/page.md."""
