"""`/metrics` on a port of its own, which no worker's death, and no worker's load, takes away.

`python -m iei.telemetry.port --listen FD --counters FD --life FD`: a small process of its own, as the master must have
no threads when it forks the workers. It ends, like the engines, when nobody is left who holds the other end of
`--life`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from iei import ports
from iei.settings import Settings
from iei.telemetry.counters import Counters
from iei.telemetry.metrics import METRICS

log = logging.getLogger(__name__)

SETTING = "IEI_METRICS_BIND"
READ_S = 10.0
"""How long a scraper may take to send its request."""


class MetricsPort:
    """The process, started by the one that forks the workers. It ends after this object and all forked processes have.

    Args:
        where: `host:port`.
        counters: what it shows.

    Raises:
        StartupError: the address is in use, or not one of this machine's.
    """

    def __init__(self, where: str, counters: Counters) -> None:
        life_reader, life_writer = os.pipe()
        self._release = weakref.finalize(self, os.close, life_writer)
        try:
            with ports.bind(where, SETTING) as listener:
                listener.listen()
                self.address = ports.shown(listener)
                fds = {"--listen": listener.fileno(), "--counters": counters.fd, "--life": life_reader}
                self.process = subprocess.Popen(
                    [sys.executable, "-m", __spec__.name, *(str(word) for option in fds.items() for word in option)],
                    pass_fds=[*fds.values()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C in a terminal goes to the whole group
                )
        finally:
            os.close(life_reader)

    def close(self) -> None:
        """Ends the process, if no other holds the end of its pipe."""
        self._release()


def open_port(settings: Settings, counters: Counters) -> MetricsPort | None:
    """The port that `IEI_METRICS_BIND` names. None: it is not set. Raises StartupError as `MetricsPort` does."""
    where = settings.server.metrics_bind
    if not where:
        return None
    port = MetricsPort(where, counters)
    log.info("/metrics is served on %s", port.address)
    return port


def server(listener: socket.socket, counters: Counters) -> ThreadingHTTPServer:
    """An HTTP server with nothing but `/metrics`."""
    from iei.telemetry.exposition import CONTENT_TYPE, metrics_text  # late: who starts this process does without

    class Handler(BaseHTTPRequestHandler):
        timeout = READ_S

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                return self.send_error(HTTPStatus.NOT_FOUND)
            text = metrics_text(counters)
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are not logged."""

    serving = ThreadingHTTPServer(listener.getsockname()[:2], Handler, bind_and_activate=False)
    serving.socket.close()
    serving.socket = listener
    serving.daemon_threads = True
    return serving


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--listen", "--counters", "--life"):
        parser.add_argument(name, type=int, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serving = server(socket.socket(fileno=arguments.listen), Counters(METRICS, arguments.counters))
    threading.Thread(target=serving.serve_forever, name="metrics", daemon=True).start()
    os.read(arguments.life, 1)  # nothing is ever written: this is the end


if __name__ == "__main__":
    main()
