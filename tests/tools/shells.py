"""Reads shell text as bash does, and as shellcheck where it is installed."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys


def check_shell(text: str, *excluded: str) -> None:
  subprocess.run(['bash', '-n', '-c', text], check=True)
  shellcheck = shutil.which('shellcheck', path=path())
  if shellcheck:
    options = [f'--exclude={",".join(excluded)}'] if excluded else []
    subprocess.run(
        [shellcheck, '--shell=bash', *options, '-'], input=text, text=True, check=True
    )


def path() -> str:
  return f'{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
