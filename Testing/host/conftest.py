import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from slicerhost.fixtures import *  # noqa: F403
