"""A provider of tokens as tests need one: it gives them by the forms of RFC 6749 and RFC 8628 with the words
of Microsoft and Google, and judges them by RFC 7662. What an application has signed (RFC 7523) is verified by
openssl.

    provider.py TLS-ADDRESS TLS-PORT CHAIN PLAIN-ADDRESS PLAIN-PORT STATE LOG

Its keys (a JWK set) lie at /keys: "keys" of the state, or a number in their place as the status of the answer.

STATE is read for each request: {"secret", "certificate", "refresh", "life", "epoch", "pending",
"mailbox", "claims", "answer"}; "claims" are added to what is said of a good token, and a number in their place is
the status of the answer; "certificate" is the path of the one that is known, "answer" a status and an object
with which each request for a token is answered, if there is one. A token is good
until its life is over or the epoch is another; "refresh" is the first right to ask, which each use replaces.
LOG gets a line of JSON for each request of tokens, with what was asked and given.
"""

import base64
import hashlib
import json
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

TLS_ADDRESS, TLS_PORT, CHAIN, PLAIN_ADDRESS, PLAIN_PORT, STATE, LOG = sys.argv[1:]
GUARD = threading.Lock()
TOKENS = {}
RIGHTS = {"used": 0, "current": None}
POLLS = {"pending": 0}
SEEN = set()


def state():
    with open(STATE, encoding="utf-8") as file:
        return json.load(file)


def refusal(status, error, description):
    return status, {"error": error, "error_description": description + "\r\nTrace ID: 0"}


def grant(now, with_right):
    token = f"tok.{len(TOKENS)}-{time.time_ns()}"
    TOKENS[token] = (time.time() + now["life"], now["epoch"])
    answer = {"token_type": "Bearer", "expires_in": now["life"], "access_token": token}
    if with_right:
        RIGHTS["used"] += 1
        RIGHTS["current"] = f"right.{RIGHTS['used']}"
        answer["refresh_token"] = RIGHTS["current"]
    return 200, answer


def decoded(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def is_signed(form, endpoint, certificate):
    """Whether the word is signed by the certificate's key, for this endpoint, now, and for the first time."""
    parts = form["client_assertion"].split(".")
    head, claims = json.loads(decoded(parts[0])), json.loads(decoded(parts[1]))
    with open(certificate, encoding="ascii") as file:
        der = ssl.PEM_cert_to_DER_cert(file.read())
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
    good = (
        form.get("client_assertion_type") == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        and "client_secret" not in form
        and head == {"alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint}
        and claims["iss"] == claims["sub"] == form["client_id"]
        and claims["aud"] == endpoint
        and claims["nbf"] <= time.time() < claims["exp"] <= time.time() + 600
        and claims["jti"] not in SEEN
    )
    SEEN.add(claims["jti"])
    with tempfile.TemporaryDirectory() as place:
        key = subprocess.run(
            ["openssl", "x509", "-in", certificate, "-pubkey", "-noout"], check=True, capture_output=True
        )
        for name, octets in [
            ("key", key.stdout),
            ("signature", decoded(parts[2])),
            ("said", ".".join(parts[:2]).encode()),
        ]:
            with open(f"{place}/{name}", "wb") as file:
                file.write(octets)
        pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"]
        line = ["openssl", "dgst", "-sha256", "-verify", f"{place}/key", *pss]
        line += ["-signature", f"{place}/signature", f"{place}/said"]
        return good and subprocess.run(line, check=False, capture_output=True).returncode == 0


def token(tenant, form, now):
    kind = form.get("grant_type")
    if now.get("answer"):
        return now["answer"]
    if tenant != "tenant.test":
        return refusal(400, "invalid_request", f"AADSTS90002: Tenant '{tenant}' not found.")
    if form.get("client_id") != "app-1":
        return refusal(400, "unauthorized_client", "AADSTS700016: Application was not found in the directory.")
    if kind == "client_credentials" and "client_assertion" in form:
        if not is_signed(form, now["endpoint"], now["certificate"]):
            return refusal(401, "invalid_client", "AADSTS700027: The certificate is not registered on application.")
        return grant(now, False)
    if kind == "client_credentials":
        if form.get("client_secret") != now["secret"]:
            return refusal(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        return grant(now, False)
    if kind == "refresh_token":
        if form.get("refresh_token") != (RIGHTS["current"] or now["refresh"]):
            return refusal(400, "invalid_grant", "Token has been expired or revoked.")
        return grant(now, True)
    if kind == "urn:ietf:params:oauth:grant-type:device_code" and form.get("device_code") == "device.secret":
        POLLS["pending"] += 1
        if POLLS["pending"] <= now["pending"]:
            return refusal(400, "authorization_pending", "AADSTS70016: The person has not signed in yet.")
        return grant(now, True)
    return refusal(400, "unsupported_grant_type", "AADSTS70003: Not supported.")


def device(_tenant, _form, _now):
    POLLS["pending"] = 0
    return 200, {
        "device_code": "device.secret",
        "user_code": "WDJB-MJHT",
        "verification_uri": "https://provider.test/device",
        "expires_in": 60,
        "interval": 1,
    }


def introspect(form, now):
    until, epoch = TOKENS.get(form.get("token"), (0, None))
    if time.time() >= until or epoch != now["epoch"]:
        return 200, {"active": False}
    claims = now.get("claims", {})
    if isinstance(claims, int):
        return claims, {"error": "server_error"}
    return 200, {"active": True, "username": now["mailbox"], "scope": "mail", "exp": int(until), **claims}


class Asked(BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self):  # noqa: N802, the name that the library wants
        length = int(self.headers.get("content-length", 0))
        form = {name: values[0] for name, values in parse_qs(self.rfile.read(length).decode()).items()}
        parts = self.path.strip("/").split("/")
        with GUARD:
            now = state()
            if parts == ["introspect"]:
                status, answer = introspect(form, now)
                with open(LOG + ".judged", "a", encoding="utf-8") as log:
                    log.write(json.dumps(form) + "\n")
            else:
                tenant, what = parts[0], parts[-1]
                now["endpoint"] = f"https://{self.headers['host']}{self.path}"
                status, answer = {"token": token, "devicecode": device}[what](tenant, form, now)
                with open(LOG, "a", encoding="utf-8") as log:
                    log.write(json.dumps({"asked": form, "given": answer}) + "\n")
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):  # noqa: N802
        with GUARD:
            keys = state().get("keys", 404)
            with open(LOG + ".keys", "a", encoding="utf-8") as log:
                log.write(self.path + "\n")
        status, answer = (keys, {}) if isinstance(keys, int) else (200, keys)
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/jwk-set+json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        """Nothing: the log of requests is LOG."""


class Secured(ThreadingHTTPServer):
    """Under TLS; each handshake in the thread of its connection."""

    def __init__(self, address, context):
        super().__init__(address, Asked)
        self.context = context

    def finish_request(self, request, client_address):
        request.settimeout(20)
        with self.context.wrap_socket(request, server_side=True) as secured:
            self.RequestHandlerClass(secured, client_address, self)

    def handle_error(self, _request, _client_address):
        """Whoever breaks off a handshake is no news."""


CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
CONTEXT.load_cert_chain(CHAIN)
PLAIN = ThreadingHTTPServer((PLAIN_ADDRESS, int(PLAIN_PORT)), Asked)
threading.Thread(target=PLAIN.serve_forever, daemon=True).start()
Secured((TLS_ADDRESS, int(TLS_PORT)), CONTEXT).serve_forever()
