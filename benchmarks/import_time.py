"""A program: the seconds that it takes to import a module, in a process that has imported nothing else."""

import importlib
import sys
import time

if __name__ == "__main__":
    start = time.perf_counter()
    importlib.import_module(sys.argv[1])
    print(time.perf_counter() - start)
