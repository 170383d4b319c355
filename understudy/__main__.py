"""``python -m understudy`` is the ``understudy`` command."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # The working directory: a `logging.py` or `yaml.py` there must not be imported.
        del sys.path[0]

    from understudy.monitor.cli.main import main

    main()
