"""make bench"""

import sys

from tests.benchmarks.throughput import main

sys.exit(main())
