"""The tests on each Python that setup.cfg names, with the oldest and the newest packages.

``make matrix`` runs them all; a Python that is not on the PATH is skipped. pyenv puts several
there: ``PYENV_VERSION=3.11:3.12:3.13 make matrix``. ``.venv/bin/nox --session changes`` makes the
changes of tests/changes.toml, 4 minutes; ``make mutants`` those of mutmut.
"""

import configparser
import shutil
import tomllib
from pathlib import Path

import nox

nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False

SETUP = configparser.ConfigParser()
SETUP.read("setup.cfg", encoding="utf-8")
CLASSIFIERS = SETUP["metadata"]["classifiers"].splitlines()
PYTHONS = [line.split()[-1] for line in CLASSIFIERS if "Python :: 3." in line]
REQUIRES = SETUP["options"]["install_requires"].strip().splitlines()
OLDEST = [requirement.replace(">=", "==", 1) for requirement in REQUIRES]


@nox.session(python=PYTHONS)
@nox.parametrize("versions", [OLDEST, []], ids=["oldest", "newest"])
def tests(session: nox.Session, versions: list[str]) -> None:
    """Run the tests."""
    session.install("--editable", ".[test]", *versions)
    session.run("pytest", *session.posargs)


@nox.session(default=False)
def changes(session: nox.Session) -> None:
    """Make the changes of tests/changes.toml one by one: the test that is named must fail."""
    session.install("--editable", ".[test]")
    copy = Path(session.create_tmp(), "copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(".", copy, ignore=shutil.ignore_patterns(".*", "mutants"))
    session.chdir(copy)
    for change in tomllib.loads(Path("tests/changes.toml").read_text())["change"]:
        session.log(change["what"])
        files = map(Path, change.get("file", "exam_requests.py").split())
        texts = {file: file.read_text() for file in files}
        for file, text in texts.items():
            file.write_text(text.replace(change["old"], change["new"]))
        killer = f"tests/{change['killed_by']}"
        session.run("pytest", "--exitfirst", killer, success_codes=[1], silent=True)
        for file, text in texts.items():
            file.write_text(text)


@nox.session(python="3.13", default=False)
def mutants(session: nox.Session) -> None:
    """Let mutmut change the module; Python 3.11 crashes under what it does."""
    session.install("--editable", ".[test]", "mutmut>=3.8")
    # The tests of the settings import the module 60 times: Python is to keep what it compiled.
    session.run("mutmut", "run", env={"PYTHONDONTWRITEBYTECODE": ""})
    results = str(session.run("mutmut", "results", silent=True))
    session.log("\n".join(line for line in results.splitlines() if "type check" not in line))
