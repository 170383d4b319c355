"""A model for MLServer, as small as can be: the probability that a flight is late."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

WEIGHTS = np.array([0.8, -0.5, 0.3, 0.1])


class Delays(MLModel):
    """Logistic, of one tensor with four features for each row."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        probability = 1.0 / (1.0 + np.exp(-(rows @ WEIGHTS)))
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output("p_late", probability.reshape(-1, 1))],
        )
