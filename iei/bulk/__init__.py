"""Many pictures and texts into files, without a server: sources → items → the service of a worker → parts.

`iei embed` and the actors of Ray Data share this room. It knows no HTTP server.
"""
