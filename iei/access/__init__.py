"""Who may send requests, and how much: API keys and their limits. No HTTP."""
