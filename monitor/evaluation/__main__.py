"""``python -m understudy.monitor.evaluation`` is the process of the evaluation plane."""

import sys

from understudy.monitor.evaluation.process import main

if __name__ == "__main__":
    sys.exit(main())
