"""``python -m understudy`` is the ``understudy`` command."""

from understudy.monitor.cli.main import main

if __name__ == "__main__":
    main()
