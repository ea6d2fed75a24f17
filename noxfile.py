"""The tests on each Python that setup.cfg names, with the oldest and the newest packages.

``make matrix`` runs them all; a Python that is not on the PATH is skipped. pyenv puts several
there: ``PYENV_VERSION=3.11:3.12:3.13 make matrix``. ``make mutants`` runs mutmut.
"""

import configparser

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


@nox.session(python="3.13", default=False)
def mutants(session: nox.Session) -> None:
    """Let mutmut change the module; Python 3.11 crashes under what it does."""
    session.install("--editable", ".[test]", "mutmut>=3.8")
    # The tests of the settings import the module 60 times: Python is to keep what it compiled.
    session.run("mutmut", "run", env={"PYTHONDONTWRITEBYTECODE": ""})
    results = str(session.run("mutmut", "results", silent=True))
    session.log("\n".join(line for line in results.splitlines() if "type check" not in line))
