"""An S3 server on loopback of whose answers some are an error or a dropped connection."""

from __future__ import annotations

import http.client
import itertools
import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from patience import HANGS_S

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIATESTINGONLY", "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def faulty_s3(every=20):
    """Yields (endpoint URL, counts of requests and faults, names that fail whenever they occur in a path)."""
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    behind = moto.get_host_and_port()
    counter, counts, lock = itertools.count(1), {"requests": 0, "faults": 0}, threading.Lock()
    broken: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                number = next(counter)
                counts["requests"] += 1
                is_fault = number % every == 0
                counts["faults"] += is_fault
            if is_fault and number % (2 * every):
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
            if is_fault or any(name in self.path for name in broken):
                self.send_response(500)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            connection = http.client.HTTPConnection(*behind, timeout=HANGS_S)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                response = connection.getresponse()
                data = response.read()
            finally:
                connection.close()
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", response.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

        def log_message(self, *arguments):
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}", counts, broken
    finally:
        proxy.shutdown()
        proxy.server_close()
        # what moto holds belongs to this process, not to its server
        connection = http.client.HTTPConnection(*behind, timeout=HANGS_S)
        connection.request("POST", "/moto-api/reset")
        connection.getresponse().read()
        connection.close()
        moto.stop()
