"""The tests on each Python that setup.cfg names, with the oldest and the newest packages.

``make matrix`` runs them all; a Python that is not on the PATH is skipped. pyenv puts several
there: ``PYENV_VERSION=3.11:3.12:3.13 make matrix``.
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


@nox.session(python="3.13", default=False)
def mutants(session: nox.Session) -> None:
    """Apply tests/mutants.toml, then run mutmut, which crashes Python 3.11."""
    session.install("--editable", ".[test]", "mutmut>=3.8")
    copy = Path(session.create_tmp(), "copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(".", copy, ignore=shutil.ignore_patterns(".*", "mutants"))
    with session.chdir(copy):
        for mutant in tomllib.loads(Path("tests/mutants.toml").read_text())["mutant"]:
            session.log(mutant["what"])
            files = map(Path, mutant.get("file", "exam_requests.py").split())
            texts = {file: file.read_text() for file in files}
            for file, text in texts.items():
                file.write_text(text.replace(mutant["old"], mutant["new"]))
            killer = f"tests/{mutant['killed_by']}"
            session.run("pytest", "--exitfirst", killer, success_codes=[1], silent=True)
            for file, text in texts.items():
                file.write_text(text)
    session.run("mutmut", "run", "--max-children", "2")
    session.run("mutmut", "results")
