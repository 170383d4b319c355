"""``python -m understudy.monitor.pipeline`` is the process of the evaluation plane."""

import sys

from understudy.monitor.pipeline.process import main

if __name__ == "__main__":
    sys.exit(main())
