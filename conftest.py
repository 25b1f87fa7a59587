"""What every test run starts from: small data, no progress bars, one thread. A variable that is already set wins."""

import os

for name, value in {"CLBOOK_PRESET": "quick", "CLBOOK_PROGRESS": "0", "OMP_NUM_THREADS": "1"}.items():
    os.environ.setdefault(name, value)
