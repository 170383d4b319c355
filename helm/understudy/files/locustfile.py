"""What Locust's workers send when the chart is given no locustfile.

Bodies of one template, each user at a rate of its own, whatever the answers do. The chart puts
path, rate and template into the environment as JSON.
"""

import json
import os
from typing import Any

from understudy.loadtest.locust.user import OpenLoopUser

_LOAD: dict[str, Any] = json.loads(os.environ["UNDERSTUDY_LOAD"])


class Predictions(OpenLoopUser):
    """One dispatcher."""

    path = str(_LOAD["path"])
    rate = float(_LOAD["rate"])
    template = _LOAD["template"]
