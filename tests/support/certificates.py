"""Certificates made for a test, as PEM files, by the program ``openssl``."""

import itertools
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_numbers = itertools.count(1)


class Identity(NamedTuple):
    """The files of a certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """An authority that signs certificates in a folder of its own, and that nobody else trusts."""

    def __init__(self, folder: Path) -> None:
        # Two authorities of one name are one to whoever looks for the issuer of a certificate.
        self._name = f"authority-{next(_numbers)}"
        self._folder = folder / self._name
        self._folder.mkdir()
        self._own = self._make("ca", self._name, "basicConstraints=critical,CA:TRUE", None)

    @property
    def file(self) -> Path:
        """The authority's own certificate."""
        return self._own.cert

    def issue(self, name: str, hosts: str = "DNS:localhost,IP:127.0.0.1") -> Identity:
        """Return a certificate for these names and addresses."""
        return self._make(name, name, f"subjectAltName={hosts}", self._own)

    def _make(self, file: str, name: str, extension: str, issuer: Identity | None) -> Identity:
        base = self._folder / file
        made = Identity(base.with_suffix(".pem"), base.with_suffix(".key"))
        request, extensions = base.with_suffix(".csr"), base.with_suffix(".ext")
        extensions.write_text(extension)
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        _openssl("req", "-new", *kind, "-keyout", made.key, "-out", request, "-subj", f"/CN={name}")
        by: tuple[str | Path, ...] = ("-signkey", made.key)
        if issuer is not None:
            by = ("-CA", issuer.cert, "-CAkey", issuer.key, "-CAcreateserial")
        _openssl("x509", "-req", *by, "-in", request, "-out", made.cert, "-extfile", extensions)
        return made


def tls_config(identity: Identity, clients: Authority | None = None) -> Mapping[str, str]:
    """Return what makes a server show this certificate, and ask clients for one of an authority."""
    return {
        "tls-cert-file": str(identity.cert),
        "tls-key-file": str(identity.key),
        "tls-ca-cert-file": str(clients.file if clients else identity.cert),
        "tls-auth-clients": "yes" if clients else "no",
    }


def _openssl(*args: str | Path) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=30)
