"""What the stories about flights share: the data, the model servers, and the clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from understudy.demo.flights import LABEL, MODEL, Flights, LateModel, Row, read, request_body
from understudy.demo.traffic import Message
from understudy.demo.world import World


class Airline:
    """Flights, and who asks about them."""

    def __init__(self) -> None:
        self.flights: Flights = read()

    def serve(self, world: World, name: str, model: LateModel) -> None:
        """Start a server of ``model``."""
        file = world.folder / f"{name}.json"
        file.write_text(json.dumps(model.document), encoding="utf-8")
        world.serve_model(name, "model_server", str(file))

    def messages(
        self, world: World, rows: Sequence[Row], change: Callable[[Row], Row] = lambda row: row
    ) -> list[Message]:
        """Requests about ``rows``, each changed on its way; the labels stay."""
        head = (
            f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: 127.0.0.1:{world.listen}\r\n"
            "Content-Type: application/json\r\n"
        )
        return [Message(head, request_body(change(row)), float(str(row[LABEL]))) for row in rows]

    def send(self, world: World, rate: float) -> None:
        """Start clients that ask about flights that no model has seen."""
        world.send(self.messages(world, self.flights.sent), rate)
