"""A gRPC client that is not ours: calls one method and says how it was answered.

usage: call.py ADDRESS METHOD [--plain | DIRECTORY]   (the directory of ca.crt, and of tls.crt and tls.key perhaps)
"""

import pathlib
import sys

import grpc


def channel(address, directory):
    if directory == "--plain":
        return grpc.insecure_channel(address)
    read = lambda name: pathlib.Path(directory, name).read_bytes()
    own = (None, None)
    if pathlib.Path(directory, "tls.key").exists():
        own = (read("tls.key"), read("tls.crt"))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(read("ca.crt"), *own))


def main(address, method, directory):
    with channel(address, directory) as connection:
        call = connection.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        try:
            call(b"")  # the test sees to it that this does not last for ever
            print("OK")
        except grpc.RpcError as error:
            print(error.code().name, " ".join(error.details().split()))


main(*sys.argv[1:])
