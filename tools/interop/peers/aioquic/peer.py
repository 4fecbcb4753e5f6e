"""aioquic as an endpoint of the interop runner: hq-interop client and server.

The command line and the environment are those of the other endpoints; `../../hq` documents them.
"""

import argparse
import asyncio
import os
import pathlib
import sys
import urllib.parse

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.asyncio.client import connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted
from aioquic.quic.logger import QuicFileLogger
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite, SessionTicket

UNSUPPORTED = 127
PATIENCE = 120.0
SERVER_CASES = {
    "handshake", "transfer", "longrtt", "chacha20", "multiplexing", "multiconnect", "retry",
    "resumption", "zerortt", "keyupdate", "blackhole", "amplificationlimit", "handshakeloss",
    "handshakecorruption", "transferloss", "transfercorruption", "ipv6", "v2", "rebind-port",
    "rebind-addr", "goodput", "crosstraffic", "multipath",
}
CLIENT_CASES = SERVER_CASES | {"connectionmigration"}


def configuration(is_client, case):
    config = QuicConfiguration(
        alpn_protocols=["hq-interop"],
        idle_timeout=PATIENCE,
        is_client=is_client,
        max_datagram_size=1350,
        supported_versions=[QuicProtocolVersion.VERSION_1],
    )
    if case == "v2":
        both = [QuicProtocolVersion.VERSION_2, QuicProtocolVersion.VERSION_1]
        config.supported_versions = both
        if is_client:
            config.original_version = QuicProtocolVersion.VERSION_1
    if os.environ.get("SSLKEYLOGFILE"):
        config.secrets_log_file = open(os.environ["SSLKEYLOGFILE"], "a", buffering=1)
    if os.environ.get("QLOGDIR"):
        config.quic_logger = QuicFileLogger(os.environ["QLOGDIR"])
    return config


class Tickets:
    """Session tickets of a server, each good once."""

    def __init__(self):
        self.by_label = {}

    def add(self, ticket: SessionTicket):
        self.by_label[ticket.ticket] = ticket

    def pop(self, label: bytes):
        return self.by_label.pop(label, None)


def below(root, request):
    """The file that a request names, or None."""
    words = request.split()
    if len(words) < 2 or words[0] != b"GET" or not words[1].startswith(b"/"):
        return None
    try:
        path = (root / words[1][1:].decode()).resolve()
    except (ValueError, UnicodeDecodeError):
        return None
    return path if path.is_relative_to(root) and path.is_file() else None


async def answer(root, reader, writer):
    path = below(root, await reader.read())
    if path is not None:
        writer.write(path.read_bytes())
    writer.write_eof()


async def server(args, case):
    config = configuration(False, case)
    config.load_cert_chain(args.cert, args.key)
    root = pathlib.Path(args.root).resolve()
    tickets = Tickets()
    host, port = args.listen.rsplit(":", 1)
    running = await serve(
        host.strip("[]"),
        int(port),
        configuration=config,
        retry=args.retry or case == "retry",
        session_ticket_fetcher=tickets.pop,
        session_ticket_handler=tickets.add,
        stream_handler=lambda r, w: asyncio.ensure_future(answer(root, r, w)),
    )
    host, port = running._transport.get_extra_info("sockname")[:2]
    print(f"listening on [{host}]:{port}" if ":" in host else f"listening on {host}:{port}")
    sys.stdout.flush()
    await asyncio.Event().wait()


class Client(QuicConnectionProtocol):
    def quic_event_received(self, event):
        if isinstance(event, HandshakeCompleted):
            print("resumed" if event.session_resumed else "full", event, file=sys.stderr)
        elif isinstance(event, ConnectionTerminated):
            print(event, file=sys.stderr)
        super().quic_event_received(event)

    async def get(self, path):
        reader, writer = await self.create_stream()
        writer.write(f"GET {path}\r\n".encode())
        writer.write_eof()
        return await reader.read()


async def fetch(args, case, config, urls, early, saved):
    first = urls[0]
    host = first.hostname
    # An address of the loopback is verified as localhost, as by the other endpoints.
    config.server_name = "localhost" if host in ("127.0.0.1", "::1") else host
    async with connect(
        host,
        first.port or 443,
        configuration=config,
        create_protocol=Client,
        session_ticket_handler=saved.append,
        wait_connected=not early,
    ) as client:
        tasks = [asyncio.ensure_future(client.get(url.path)) for url in urls]
        if early:
            client.transmit()
            await client.wait_connected()
        if case == "keyupdate":
            await client.ping()
            client.request_key_update()
        for url, data in zip(urls, await asyncio.gather(*tasks)):
            (args.out / pathlib.PurePosixPath(url.path).name).write_bytes(data)


async def client(args, case):
    args.out.mkdir(parents=True, exist_ok=True)
    urls = [urllib.parse.urlsplit(url) for url in args.urls]
    batches = [urls]
    if case in ("multiconnect", "handshakeloss", "handshakecorruption"):
        batches = [[url] for url in urls]
    elif case in ("resumption", "zerortt"):
        batches = [urls[:1], urls[1:]]
    saved = []
    for n, batch in enumerate(batches):
        config = configuration(True, case)
        config.load_verify_locations(args.ca)
        if case == "chacha20":
            config.cipher_suites = [CipherSuite.CHACHA20_POLY1305_SHA256]
        again = n > 0 and len(batches) == 2
        if again:
            if not saved:
                raise SystemExit("the server gave no session ticket")
            config.session_ticket = saved[-1]
        await fetch(args, case, config, batch, again and case == "zerortt", saved)


def main():
    parser = argparse.ArgumentParser()
    roles = parser.add_subparsers(dest="role", required=True)
    one = roles.add_parser("server")
    one.add_argument("--listen", required=True)
    one.add_argument("--root", required=True)
    one.add_argument("--cert", required=True)
    one.add_argument("--key", required=True)
    one.add_argument("--retry", action="store_true")
    two = roles.add_parser("client")
    two.add_argument("--out", required=True, type=pathlib.Path)
    two.add_argument("--ca", required=True)
    two.add_argument("urls", nargs="+")
    args = parser.parse_args()
    case = os.environ.get("TESTCASE") or "transfer"
    if case not in (SERVER_CASES if args.role == "server" else CLIENT_CASES):
        return UNSUPPORTED
    try:
        asyncio.run(server(args, case) if args.role == "server" else client(args, case))
    except ConnectionError as error:
        print(f"connection: {error!r}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
