"""The same model for MLflow, as code: nothing is pickled.

python examples/gate/mlflow/model.py folder
mlflow models serve -m folder -p 8081 --env-manager local
"""

import sys

import mlflow
import numpy as np

WEIGHTS = np.array([0.8, -0.5, 0.3, 0.1])


class Delays(mlflow.pyfunc.PythonModel):
    """Logistic, of four columns."""

    def predict(self, context, model_input, params=None):
        rows = np.asarray(model_input, dtype=float)
        return 1.0 / (1.0 + np.exp(-(rows @ WEIGHTS)))


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=__file__)
else:
    mlflow.models.set_model(Delays())
