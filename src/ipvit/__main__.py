"""``python -m ipvit``."""

import sys
from pathlib import Path

# -m puts the working folder before all others: a yaml.py that lies beside somebody's results is not imported
if sys.path and Path(sys.path[0]).resolve() == Path.cwd().resolve() != Path(__file__).resolve().parents[1]:
    del sys.path[0]

from ipvit.cli import entry_point

entry_point()
