"""Where the server is, and how to be known to it."""

from __future__ import annotations

import json
import pathlib
from dataclasses import dataclass

import grpc

# All replicas that the address stands for take turns. Retries are ours: they know the pushback.
_OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.max_receive_message_length", -1),
]
# gRPC's words for a server that is not there, or wants TLS and hears plaintext.
_UNREACHABLE = ("all backends", "all addresses", "Socket closed", "reset by peer")
# And for a message larger than the server takes.
_TOO_LARGE = "message larger than max"
_LOCAL = ("127.", "localhost:", "[::1]:", "unix:")


@dataclass(frozen=True)
class Tls:
    """Files in PEM. `ca_file` None: the authorities that gRPC trusts. A certificate with its key is
    shown to a server that asks for one."""

    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None  # expected in the certificate; None: the address

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises OSError if a file cannot be read."""
        def read(name: str | None) -> bytes | None:
            return None if name is None else pathlib.Path(name).read_bytes()
        return grpc.ssl_channel_credentials(
            read(self.ca_file), read(self.key_file), read(self.certificate_file))

    def options(self) -> list[tuple[str, str | int]]:
        if self.server_name is None:
            return list(_OPTIONS)
        return [*_OPTIONS, ("grpc.ssl_target_name_override", self.server_name)]


@dataclass(frozen=True)
class Endpoint:
    """An address with what it takes to be let in."""

    address: str
    tls: Tls | None = None
    token: str | None = None
    plaintext_token: bool = False

    def __post_init__(self) -> None:
        exposed = self.token is not None and self.tls is None and not self.plaintext_token
        if exposed and not self.address.removeprefix("dns:///").startswith(_LOCAL):
            raise ValueError(
                f"the token would travel to {self.address} in plaintext: give tls=Tls(), or "
                "plaintext_token=True where something else protects the way")

    def metadata(self) -> list[tuple[str, str]]:
        return [] if self.token is None else [("authorization", f"Bearer {self.token}")]

    def hint(self, error: grpc.RpcError) -> str:
        """What may help, after a transport's error that came before any answer."""
        unreachable = any(sign in (error.details() or "") for sign in _UNREACHABLE)
        if self.tls is None and unreachable and error.code() == grpc.StatusCode.UNAVAILABLE:
            return f" ({self.address}: a server with TLS needs tls=Tls(ca_file=...))"
        if _TOO_LARGE in (error.details() or ""):
            return " (send less, or start the server with a larger --request_bytes_max)"
        return ""

    def open(self) -> grpc.Channel:
        if self.tls is None:
            return grpc.insecure_channel(self.address, options=_OPTIONS)
        return grpc.secure_channel(self.address, self.tls.credentials(), self.tls.options())

    def open_async(self) -> grpc.aio.Channel:
        if self.tls is None:
            return grpc.aio.insecure_channel(self.address, options=_OPTIONS)
        return grpc.aio.secure_channel(self.address, self.tls.credentials(), self.tls.options())
