"""The same model with KServe's own Python server, which speaks V1 and V2.

python examples/gate/kserve/serve.py --http_port 8081
"""

import argparse
import math

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server

WEIGHTS = (0.8, -0.5, 0.3, 0.1)


def late(row) -> float:
    return 1.0 / (1.0 + math.exp(-sum(w * float(x) for w, x in zip(WEIGHTS, row, strict=True))))


class Delays(Model):
    """Logistic, of four features for each row."""

    def __init__(self) -> None:
        super().__init__("delays")
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        if isinstance(payload, InferRequest):
            rows = payload.inputs[0].as_numpy()
            results = [late(row) for row in rows]
            output = InferOutput("p_late", [len(results), 1], "FP64", results)
            return InferResponse(payload.id or "1", "delays", [output])
        return {"predictions": [late(row) for row in payload["instances"]]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.parse_known_args()
    ModelServer().start([Delays()])
