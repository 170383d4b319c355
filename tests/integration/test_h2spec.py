"""The listener against h2spec, whose cases come from RFC 7540 and RFC 7541."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as Tree
from pathlib import Path

import pytest

from tests.support.patience import patient
from tests.support.service import REAL, Service
from tests.support.v2_server import v2_server
from tools.parts.h2spec import PROGRAM

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NAMED = {
    # The port speaks HTTP/1.1 as well: what is not the preface gets a 400 of that protocol.
    ("http2/3.5", "Sends invalid connection preface"),
    # Its frame is larger than 16 KiB, which is the least that an endpoint takes; ours is 64 KiB.
    ("http2/4.2", "Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE"),
    # libnghttp2 forgets a stream when it is closed, and ignores frames for it.
    ("http2/5.1", "closed: Sends a DATA frame after sending RST_STREAM frame"),
    ("http2/5.1", "closed: Sends a HEADERS frame after sending RST_STREAM frame"),
    ("http2/5.1", "closed: Sends a DATA frame"),
    ("http2/5.1", "closed: Sends a HEADERS frame"),
    ("http2/5.1.1", "Sends stream identifier that is numerically smaller than previous"),
    # RFC 9113 has no priorities any more: libnghttp2 ignores their frames, whatever they say.
    ("http2/5.3.1", "Sends PRIORITY frame that depend on itself"),
    ("http2/6.3", "Sends a PRIORITY frame with 0x0 stream identifier"),
    # libnghttp2 ends the connection, where ending the stream would do.
    (
        "http2/6.9.1",
        "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 "
        "on a stream",
    ),
}
"""Cases that do not pass, and why: docs/http2-and-grpc.md lists them."""


def test_h2spec_passes_but_for_named_cases(tmp_path: Path) -> None:
    if not PROGRAM.exists():
        pytest.skip("NOT TESTED: h2spec is not here; `make test-all` builds it where Go works")
    report = tmp_path / "report.xml"
    with v2_server() as server:
        service = Service(
            tmp_path, REAL, workers=1, champion={"url": f"http://127.0.0.1:{server.http}"}
        )
        with service.start():
            port = service.url.rpartition(":")[2]
            done = subprocess.run(
                [str(PROGRAM), "-h", "127.0.0.1", "-p", port, "-P", "/v2/models/m/infer",
                 "--strict", "-o", f"{patient(3):.0f}", "-j", str(report)],
                capture_output=True, text=True, timeout=1200,
            )  # fmt: skip
    cases = list(Tree.parse(report).iter("testcase"))  # its own report
    assert len(cases) == 146, done.stdout
    failed = {
        (str(case.get("package")), str(case.get("classname")))
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }
    assert failed == NAMED, done.stdout
