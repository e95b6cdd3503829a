"""The CMake files configure against a Slicer package that only records, and name every file that must be installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Same arguments and same refusals as Slicer's own macros, but they only write down what they were given.
FAKE_SLICER = """
set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_DIR}/Use.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${CMAKE_CURRENT_LIST_DIR}/End.cmake)
set(Slicer_EXTENSION_CPACK ${CMAKE_CURRENT_LIST_DIR}/End.cmake)
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/qt-scripted-modules)
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS OR NOT MY_NAME OR NOT MY_SCRIPTS)
    message(FATAL_ERROR "bad call: ${ARGN}")
  endif()
  set(folder "")
  if(MY_WITH_SUBDIR)
    get_filename_component(folder ${CMAKE_CURRENT_SOURCE_DIR} NAME)
    set(folder "${folder}/")
  endif()
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
      message(FATAL_ERROR "nonexistent: ${file}")
    endif()
    message(STATUS "INSTALL ${folder}${file}")
  endforeach()
endmacro()
macro(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS OR NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT})
    message(FATAL_ERROR "bad test: ${ARGN}")
  endif()
  message(STATUS "TEST ${MY_SCRIPT}")
endmacro()
"""
END = """
foreach(name HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  message(STATUS "EXTENSION ${name}=${EXTENSION_${name}}")
endforeach()
"""


@pytest.fixture(scope="module")
def configured(tmp_path_factory) -> str:
    """What CMake prints for a build with tests."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("needs cmake")
    slicer = tmp_path_factory.mktemp("slicer")
    (slicer / "SlicerConfig.cmake").write_text(FAKE_SLICER)
    (slicer / "Use.cmake").write_text("")
    (slicer / "End.cmake").write_text(END)
    build = tmp_path_factory.mktemp("build")
    options = [
        f"-DSlicer_DIR={slicer}",
        "-DBUILD_TESTING=ON",
        "-DCMAKE_C_COMPILER_WORKS=1",
        "-DCMAKE_CXX_COMPILER_WORKS=1",
    ]
    done = subprocess.run([cmake, "-S", ROOT, "-B", build, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def listed(text: str, verb: str) -> set[str]:
    return set(re.findall(rf"^-- {verb} (.+)$", text, re.MULTILINE))


def test_every_source_and_resource_is_installed(configured):
    installed = listed(configured, "INSTALL")
    expected = {p.relative_to(ROOT).as_posix() for p in (ROOT / "MambaSegLib").rglob("*.py")}
    training = ROOT / "Training"
    sources = [*training.rglob("*.py"), *training.glob("MambaSegTraining/recipes/*.json")]
    expected |= {p.relative_to(training).as_posix() for p in sources}
    module = ROOT / "MambaSegmentation"
    expected |= {p.relative_to(module).as_posix() for p in module.rglob("*") if p.is_file()}
    library = ROOT / "MambaSegLib"
    data = [*library.glob("models/*/*"), *library.glob("networks/*.json")]
    expected |= {p.relative_to(ROOT).as_posix() for p in data}
    unwanted = {"CMakeLists.txt"} | {p for p in expected if "__pycache__" in p}
    assert installed == expected - unwanted


def test_tests_for_a_real_slicer(configured):
    assert listed(configured, "TEST") == {"MambaSegmentation.py", "MambaSegmentationPanelTest.py"}


def test_extension_metadata(configured):
    said = dict(line.split("=", 1) for line in listed(configured, "EXTENSION"))
    assert all(said.values()), said
    assert said["CATEGORY"] == "Segmentation" and said["DEPENDS"] == "PyTorch"
    for key, suffix in (("ICONURL", ".png"), ("SCREENSHOTURLS", ".png")):
        path = said[key].split("/main/", 1)[1]
        assert path.endswith(suffix) and (ROOT / path).is_file(), f"{key} names a file that is not here: {path}"
