"""python -m lora: merge, verify, inspect, combine, analyze."""

import sys

from lora.cli import main

if __name__ == "__main__":
    sys.exit(main())
