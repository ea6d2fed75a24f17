"""`make` sets itself up on a machine that is not quite ready, or says what the machine lacks.

The machine's Pythons wrap this one; its pip does what a test says.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = f"""\
#!/bin/sh
export PYTHONPATH="{{site}}"
test "$1" = -m || exec "{sys.executable}" "$@"
"{sys.executable}" "$@" --without-pip
{{add_pip}}
"""
ADD_PIP = """\
install -m 755 /dev/stdin .venv/bin/pip << EOF
#!$PWD/.venv/bin/python
import os
exec(os.environ.get("PIP", ""))
EOF
"""
LACKS_VENV = "echo 'ensurepip is not available: apt install python3-venv'; exit 1"
OLD = "import sys; sys.version, sys.version_info = '3.10.12 (main)', (3, 10, 12, 'final', 0)"
OTHER = "import sys; sys.version = '3.99.0 (main)'"
OFFLINE = "raise SystemExit('no network')"
INTERRUPTED = """
import pathlib, sysconfig
pathlib.Path(sysconfig.get_path("purelib"), "half-1.0.dist-info").mkdir()
raise SystemExit("interrupted")
"""


class Machine:
    """A machine, and a clone on it with a demo that prints `done`."""

    def __init__(self, folder):
        self.folder, self.clone = folder, folder / "clone"
        (self.clone / "examples").mkdir(parents=True)
        (self.clone / "examples" / "acquisition.py").write_text("print('done')")
        (self.clone / "exam_requests.egg-info").mkdir()  # pip leaves it here.
        for name in ("Makefile", "setup.cfg", "setup.py"):
            shutil.copy(ROOT / name, self.clone)
        self.has("python3")

    def has(self, name, customize="", add_pip=ADD_PIP):
        """Give the machine this Python."""
        site = self.folder / f"{name}-site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(customize)
        (self.folder / name).write_text(PYTHON.format(site=site, add_pip=add_pip))
        (self.folder / name).chmod(0o755)

    def run(self, *arguments, **environment):
        """Run `make demo`, and return its status and what it says."""
        path = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["make", "demo", *arguments],
            cwd=self.clone,
            env={"PATH": path, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    def runs(self, *arguments):
        """Run the demo, and tell whether it used the previous `.venv`."""
        mark = self.clone / ".venv" / "mark"
        kept = mark.exists()
        status, said = self.run(*arguments)
        assert (status, said.splitlines()[-1]) == (0, "done"), said
        kept = kept and mark.exists()
        mark.touch()
        return "kept" if kept else "made"

    def fails(self, *arguments, **environment):
        """Run the demo, which must fail, and return what `make` says."""
        status, said = self.run(*arguments, **environment)
        assert status != 0, said
        return said


@pytest.fixture
def machine(tmp_path):
    """Return a machine that is ready."""
    return Machine(tmp_path)


def test_a_venv_is_made_once(machine):
    assert [machine.runs(), machine.runs()] == ["made", "kept"]


@pytest.mark.parametrize("arguments", [[], ["PYTHON=python3"], ["PYTHON=python3.99"]])
def test_a_python_too_old_or_missing_is_named_with_the_way_out(machine, arguments):
    machine.has("python3", OLD)
    asked = "python3.99" if "PYTHON=python3.99" in arguments else "python3"
    said = machine.fails(*arguments)
    assert f"{asked} is not Python 3.11 or later. Name one that is: make demo PYTHON=" in said
    assert not (machine.clone / ".venv").exists()


def test_a_python_that_was_named_before_is_kept(machine):
    machine.has("python3", OLD)
    machine.has("python3.12")
    assert [machine.runs("PYTHON=python3.12"), machine.runs()] == ["made", "kept"]
    machine.fails("PYTHON=python3")
    assert machine.runs() == "kept"


def test_naming_another_python_makes_the_venv_anew(machine):
    machine.has("python3.99", OTHER)
    assert [machine.runs(), machine.runs("PYTHON=python3.99")] == ["made", "made"]


def test_a_missing_python3_venv_is_named_and_make_works_once_it_is_there(machine):
    machine.has("python3", add_pip=LACKS_VENV)
    assert "apt install python3-venv" in machine.fails()
    machine.has("python3")
    assert [machine.runs(), machine.runs()] == ["made", "kept"]


def test_an_installation_that_failed_offline_resumes(machine):
    machine.runs()
    os.utime(machine.clone / "setup.cfg")
    assert "no network" in machine.fails(PIP=OFFLINE)
    assert machine.runs() == "kept"


def test_a_venv_with_a_half_installed_package_is_made_anew(machine):
    machine.runs()
    os.utime(machine.clone / "setup.cfg")
    assert "interrupted" in machine.fails(PIP=INTERRUPTED)
    assert [machine.runs(), machine.runs()] == ["made", "kept"]


def no_pip(venv):
    (venv / "bin" / "pip").unlink()


def no_python(venv):
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to("python3.10-that-was-removed")


def of_an_old_python(venv):
    (site,) = venv.glob("lib/*/site-packages")
    (site / "old.pth").write_text(OLD)


def moved(venv):
    pip = venv / "bin" / "pip"
    pip.write_text(pip.read_text().replace("clone/.venv", "elsewhere/.venv"))


@pytest.mark.parametrize("harm", [no_pip, no_python, of_an_old_python, moved, shutil.rmtree])
def test_a_broken_venv_is_made_anew(machine, harm):
    machine.runs()
    harm(machine.clone / ".venv")
    assert [machine.runs(), machine.runs()] == ["made", "kept"]


def test_the_help_fits_a_terminal_and_shows_how_to_name_a_python():
    said = subprocess.check_output(["make", "--no-print-directory", "help"], cwd=ROOT, text=True)
    assert max(map(len, said.splitlines())) <= 80
    assert "PYTHON=" in said
