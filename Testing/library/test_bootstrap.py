"""The set-up script without a network: what it decides, what it repairs, what it says when it cannot go on."""

import ast
import ensurepip
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bootstrap(monkeypatch, tmp_path):
    """The script as a module, looking after a small project of its own; pip finds nothing but its own wheel."""
    specification = importlib.util.spec_from_file_location("bootstrap", ROOT / "bootstrap.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    project = tmp_path / "project"
    for folder in ("MambaSegLib", "Training"):
        (project / folder).mkdir(parents=True)
        (project / folder / "__init__.py").write_text("")
    (project / "pyproject.toml").write_text('[project]\nname = "a"\nversion = "1"\n')
    monkeypatch.setattr(module, "ROOT", project)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(Path(ensurepip.__file__).parent / "_bundled"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return module


def python_of(folder):
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fake_torch(folder, version):
    """A package that says it is torch of that version."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    place = subprocess.run([python_of(folder), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    package = Path(place) / "torch"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text(version if version.startswith("raise") else f"__version__ = {version!r}")


def test_an_old_python_gets_one_clear_sentence():
    code = (
        "import runpy, sys; sys.version_info = (3, 8, 10, 'final', 0)\n"
        f"runpy.run_path({str(ROOT / 'bootstrap.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == "Python 3.10 or newer is needed, this is 3.8.10."
    ast.parse((ROOT / "bootstrap.py").read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("arguments", [[], ["dance"]])
def test_usage(arguments):
    done = subprocess.run([sys.executable, ROOT / "bootstrap.py", *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and "demo" in done.stderr and "test" in done.stderr


def test_the_environment_lies_beside_the_checkout_or_in_the_cache(bootstrap, monkeypatch, tmp_path):
    name = f".venv-{sys.version_info[0]}.{sys.version_info[1]}"
    assert bootstrap.environment_folder(True) == bootstrap.ROOT / name
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(tmp_path / "cache"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    outside = bootstrap.environment_folder(False)
    assert outside.name == name and tmp_path in outside.parents and bootstrap.ROOT not in outside.parents


def test_the_fingerprint_follows_what_must_be_installed(bootstrap):
    before = bootstrap.fingerprint(True), bootstrap.fingerprint(False)
    (bootstrap.ROOT / "MambaSegLib" / "new.py").write_text("x = 1")
    assert bootstrap.fingerprint(True) == before[0], "an editable environment follows the sources by itself"
    assert bootstrap.fingerprint(False) != before[1], "a copy does not"
    (bootstrap.ROOT / "pyproject.toml").write_text('[project]\nname = "a"\nversion = "2"\n')
    assert bootstrap.fingerprint(True) != before[0]


def test_a_complete_environment_is_used_at_once_and_an_incomplete_one_is_not(bootstrap):
    folder = bootstrap.environment_folder(True)
    python_of(folder).parent.mkdir(parents=True)
    python_of(folder).touch()
    (folder / "demo.stamp").write_text(bootstrap.fingerprint(True))
    began = time.monotonic()
    assert bootstrap.prepared_python("demo") == python_of(folder)
    assert time.monotonic() - began < 0.5
    with pytest.raises(bootstrap.SetupError):  # what 'test' needs was never installed, and there is no index
        bootstrap.prepared_python("test")
    assert not (folder / "test.stamp").exists()


def test_an_environment_has_pip_with_and_without_ensurepip(bootstrap, tmp_path):
    whole, bare = tmp_path / "whole", tmp_path / "bare"
    bootstrap.make_environment(whole, python_of(whole))
    assert bootstrap.can_run(python_of(whole), "import pip")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    assert not bootstrap.can_run(python_of(bare), "import pip")
    bootstrap.put_pip_into(bare, python_of(bare))
    assert bootstrap.can_run(python_of(bare), "import pip, pip._internal")


@pytest.fixture
def environment(bootstrap, tmp_path):
    """An environment without pip: nothing can be installed into it by accident."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder


@pytest.mark.parametrize(
    ("version", "found"),
    [("2.13.0+cpu", "2.13.0+cpu"), ("2.2.0", "2.2.0"), ("2.1.2", None), ("1.13.1", None), ("raise TypeError", None)],
)
def test_which_torch_is_good_enough(bootstrap, environment, version, found):
    assert bootstrap.torch_version(python_of(environment)) is None
    fake_torch(environment, version)
    assert bootstrap.torch_version(python_of(environment)) == found


def test_a_good_torch_is_kept_and_pinned_for_everything_after_it(bootstrap, environment):
    fake_torch(environment, "2.5.0+cpu")
    assert bootstrap.install_torch(environment, python_of(environment))
    assert (environment / "constraints.txt").read_text() == "torch==2.5.0+cpu\n"
    assert not (environment / "install.log").exists(), "pip was called"


def test_without_nvidia_the_cpu_builds_are_tried_first(bootstrap, environment, monkeypatch):
    asked = []
    monkeypatch.setattr(bootstrap, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(bootstrap, "pip", lambda folder, python, arguments, required=True: asked.append(arguments))
    assert not bootstrap.install_torch(environment, python_of(environment))
    assert [arguments[0] for arguments in asked] == ["torch==2.13.0+cpu", "torch>=2.2", "torch>=2.2"]
    assert "https://download.pytorch.org/whl/cpu" in asked[1] and asked[2] == ["torch>=2.2"]


def test_an_nvidia_driver_is_noticed(bootstrap, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    tool = tmp_path / ("nvidia-smi.exe" if os.name == "nt" else "nvidia-smi")
    if not Path("/proc/driver/nvidia/version").exists():
        assert not bootstrap.has_nvidia_driver()
    tool.touch(mode=0o755)
    assert bootstrap.has_nvidia_driver()


def test_a_failing_pip_shows_its_last_lines_and_what_to_do(bootstrap, capsys):
    folder = bootstrap.environment_folder(True)
    bootstrap.make_environment(folder, python_of(folder))
    assert not bootstrap.pip(folder, python_of(folder), ["nosuchpackage"], required=False)
    with pytest.raises(bootstrap.SetupError) as caught:
        bootstrap.pip(folder, python_of(folder), ["nosuchpackage"])
    message = str(caught.value)
    assert "No matching distribution found for nosuchpackage" in message
    assert "internet connection" in message and str(folder / "install.log") in message
    assert (folder / "install.log").read_text(encoding="utf-8").count("No matching distribution") == 2
    assert bootstrap.main(["demo"]) == 1
    assert "run the same command again" in capsys.readouterr().err


def test_strangers_in_the_environment_are_kept_out(bootstrap, monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "/somewhere/else")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    clean = bootstrap.clean_environment()
    assert not {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "VIRTUAL_ENV"} & set(clean)
    assert clean["PIP_INDEX_URL"] == "https://mirror.example/simple"


def test_the_exit_code_of_what_was_run_comes_back(bootstrap, tmp_path):
    code = "import os, sys; sys.exit(7 if os.environ['A'] == 'b' and os.getcwd() == sys.argv[1] else 1)"
    folder = tmp_path.resolve()
    environment = bootstrap.clean_environment() | {"A": "b"}
    assert bootstrap.run_to_end([sys.executable, "-c", code, str(folder)], environment, folder) == 7
