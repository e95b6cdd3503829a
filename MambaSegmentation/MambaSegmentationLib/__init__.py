"""The panel's parts. In a source checkout the library is not beside the module, so its folders are added here."""

import sys
from importlib.util import find_spec
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]

for _package, _folder in (("MambaSegLib", _ROOT), ("MambaSegTraining", _ROOT / "Training")):
    if find_spec(_package) is None and (_folder / _package).is_dir():
        sys.path.append(str(_folder))
