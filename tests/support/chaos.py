"""Experiments of the Chaos Toolkit."""

from __future__ import annotations

from tests.support.load_server import Server


def experiment(server: Server, seconds: float, **parts: object) -> dict[str, object]:
    def python(module: str, func: str, **arguments: object) -> dict[str, object]:
        return {"type": "python", "module": f"understudy.loadtest.chaos.{module}", "func": func,
                "arguments": arguments}  # fmt: skip

    resume = {"type": "action", "name": "resume", "provider": python("actions", "resume_process")}
    return {
        "title": "the server pauses",
        "description": "and goes on",
        "steady-state-hypothesis": {
            "title": "it answers",
            "probes": [
                {
                    "type": "probe",
                    "name": "answers",
                    "tolerance": True,
                    "provider": python("probes", "answers", url=server.url, timeout=0.8, body="{}"),
                }
            ],
        },
        "method": [
            {
                "type": "action",
                "name": "pause",
                "provider": python("actions", "pause_process", port=server.port),
                "pauses": {"after": seconds},
            },
            resume,
        ],
        "rollbacks": [resume],
        **parts,
    }
