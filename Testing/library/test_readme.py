"""The README tells of the models and networks that there are."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_tables_of_models_and_networks_are_up_to_date():
    path = ROOT / "Testing" / "benchmarks" / "readme_tables.py"
    module_spec = importlib.util.spec_from_file_location("readme_tables", path)
    tables = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(tables)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.filled(readme, ("model", "networks")) == readme, "run Testing/benchmarks/readme_tables.py"
