"""The gRPC port: wire contracts over HTTP/2 and protobuf, each in a module. Wire format: docs/api/grpc.md.

`port` is for the process that forks the workers; all else imports grpcio, which must not be started before a fork, and
is imported in the workers only.
"""
