"""Certificates for a TLS server on 127.0.0.1, signed by an authority that nobody else knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.rig.process import HOST


@dataclass(frozen=True)
class Certificates:
    """The files of a server's certificate and its key, and of the authority that clients must trust."""

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        """Return new certificates, whose files are in `folder`."""
        made = cls(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")
        authority = trustme.CA()
        issued = authority.issue_cert(HOST, "localhost")
        authority.cert_pem.write_to_path(made.authority)
        issued.private_key_pem.write_to_path(made.key)
        issued.cert_chain_pems[0].write_to_path(made.certificate)
        return made
