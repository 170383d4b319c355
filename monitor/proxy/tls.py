"""TLS contexts of the data plane, which are made again when their files change."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable

from understudy.common.http2 import AVAILABLE
from understudy.monitor.routing.plan import ListenTls, Tls

LOOK_SECONDS = 10.0
"""How often the files are looked at: Kubernetes replaces those of a secret in place."""


class TlsContext:
    """A context and the files that it is made of. Connections that are made from now on use
    ``context``. Raises OSError or ssl.SSLError when the files cannot be used."""

    def __init__(self, make: Callable[[], ssl.SSLContext], *paths: str | None) -> None:
        self._make = make
        self._paths = [path for path in paths if path is not None]
        self._seen = self._look()
        self.context = make()

    def changed(self) -> bool:
        """Whether the files have changed; ``context`` is made again then.

        Raises OSError or ssl.SSLError, once for each change, when the new files cannot be used;
        the context before stays.
        """
        found = self._look()
        if found == self._seen:
            return False
        self._seen = found
        self.context = self._make()
        return True

    def _look(self) -> list[tuple[int, int, int] | None]:
        """What tells the present files from others of the same names."""
        found: list[tuple[int, int, int] | None] = []
        for path in self._paths:
            try:
                about = os.stat(path)
            except OSError:
                found.append(None)
            else:
                found.append((about.st_dev, about.st_ino, about.st_mtime_ns))
        return found


def client_tls(settings: Tls, http2: bool = False) -> TlsContext:
    """For connections to a model server. Raises as :class:`TlsContext` does."""

    def make() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=settings.ca)
        context.set_alpn_protocols(["h2" if http2 else "http/1.1"])
        if not settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if settings.certificate is not None:
            # Without a password argument OpenSSL would prompt for one.
            context.load_cert_chain(settings.certificate, settings.key, password="")
        return context

    return TlsContext(make, settings.ca, settings.certificate, settings.key)


def server_tls(settings: ListenTls) -> TlsContext:
    """For connections of clients. Raises as :class:`TlsContext` does."""

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2", "http/1.1"] if AVAILABLE else ["http/1.1"])
        context.load_cert_chain(settings.certificate, settings.key, password="")
        if settings.client_ca is not None:
            context.load_verify_locations(cafile=settings.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    return TlsContext(make, settings.certificate, settings.key, settings.client_ca)
