"""A small real issuer on loopback: discovery, a key set that rotates, tokens of every kind."""

import json
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

SigningKey = RSAKey | ECKey | OKPKey
AUDIENCE = "town"
FIRST_KEY = RSAKey.generate_key(2048, {"kid": "rsa-1"})


class Issuer:
    """Counts what is fetched; ``broken`` makes it answer 500."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.named = self.url
        self.keys: list[SigningKey] = [FIRST_KEY]
        self.extra_keys: list[dict[str, Any]] = []
        self.fetched: list[str] = []
        self.broken = False
        self.jwks_uri = f"{self.url}/keys"
        self.padding = ""

    def document(self, path: str) -> dict[str, Any] | None:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.named, "jwks_uri": self.jwks_uri, "padding": self.padding}
        if path == "/keys":
            return {"keys": [*(key.as_dict(private=False) for key in self.keys), *self.extra_keys]}
        return None

    def claims(self, **changed: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ada",
            "iat": now,
            "exp": now + 600,
            "scope": "town.read town.write openid",
            **changed,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: SigningKey | OctKey | None = None, algorithm: str = "RS256", **changed: Any) -> str:
        signer = key or self.keys[0]
        header = {"alg": algorithm, **({"kid": signer.kid} if signer.kid else {})}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)
            return jwt.encode(header, self.claims(**changed), signer, algorithms=[algorithm])


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.fetched.append(self.path)
            found = None if issuer.broken else issuer.document(self.path)
            body = json.dumps(found).encode()
            self.send_response(500 if issuer.broken else 200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer = Issuer(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()
