"""A policy host as tests need one (RFC 8461): it answers one path under TLS with what a file says.

    policy.py ADDRESS PORT CHAIN STATE LOG

STATE is read for each request: {"status", "type", "body", "location", "silent", "post"}; "silent" means that no
answer ever comes. LOG gets a line for each request: its host and its path. What is posted is answered with 201, or
what "post" says, and lies beside LOG, in 0.posted and so on.
"""

import json
import os
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS, PORT, CHAIN, STATE, LOG = sys.argv[1:]
LOCK = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(f"{self.headers.get('Host')} {self.path}\n")
        with open(STATE, encoding="utf-8") as file:
            state = json.load(file)
        if state.get("silent"):
            threading.Event().wait()
        body = state["body"].encode()
        self.send_response(state.get("status", 200))
        self.send_header("Content-Type", state.get("type", "text/plain"))
        if "location" in state:
            self.send_header("Location", state["location"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length")))
        with open(STATE, encoding="utf-8") as file:
            state = json.load(file)
        if state.get("silent"):
            threading.Event().wait()
        with LOCK:
            with open(LOG, "a", encoding="utf-8") as log:
                log.write(f"{self.headers.get('Host')} {self.path} {self.headers.get('Content-Type')}\n")
            number = len([name for name in os.listdir(os.path.dirname(LOG)) if name.endswith(".posted")])
            name = os.path.join(os.path.dirname(LOG), f"{number}.posted")
            with open(name + ".new", "wb") as file:
                file.write(body)
            os.rename(name + ".new", name)
        self.send_response(state.get("post", 201))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Callers that trust nobody hang up during the handshake."""


server = Server((ADDRESS, int(PORT)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CHAIN)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
