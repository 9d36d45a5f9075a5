"""The only code that runs models: engine processes, the workers' clients of them, and an engine in this process."""
