"""``python -m monitor`` is the ``understudy`` command."""

from monitor.cli import main

if __name__ == "__main__":
    main()
