"""One thread: on shared cores more threads make tiny tensors slower, and one makes timing-free tests repeatable."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
