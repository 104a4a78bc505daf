"""A program: the seconds that a statement takes to import what it names."""

import sys
import time

start = time.perf_counter()
exec(sys.argv[1])
print(time.perf_counter() - start)
