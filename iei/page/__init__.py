"""What browsers are shown: the page at `/`, on which people try the server (docs/page.md), and `/docs`."""
