"""The command ``trevsnn``, and ``python -m trevsnn``."""

import sys


def main() -> int:
    """Run the command line and return its exit code; Ctrl-C while it loads is one, too."""
    try:
        from trevsnn.cli.main import main as command
    except KeyboardInterrupt:
        print("trevsnn: interrupted", file=sys.stderr)
        return 130
    return command()


if __name__ == "__main__":
    sys.exit(main())
