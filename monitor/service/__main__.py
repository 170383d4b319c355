"""``python -m understudy.monitor.service`` is the process of the evaluation plane."""

import sys

from understudy.monitor.service.evaluation import main

if __name__ == "__main__":
    sys.exit(main())
