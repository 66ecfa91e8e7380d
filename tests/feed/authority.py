"""A certificate authority for tests of TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """What its servers use, and the file that clients trust."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.file = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.file))
        self.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self.server_context)
