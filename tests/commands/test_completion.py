"""Completion in the shell: the script knows the commands and their options, and the shell accepts it."""

import os
import shutil
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_bash_completes_commands_and_options(tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    environment = os.environ | {"HOME": str(tmp_path)}
    install = [sys.executable, "-m", "ipvit", "--install-completion", "--shell", "bash"]
    printed = subprocess.run(install, check=True, capture_output=True, text=True, env=environment).stdout
    (script,) = tmp_path.glob(".local/share/bash-completion/completions/ipvit")
    assert str(script) in printed and str(script) in (tmp_path / ".bashrc").read_text()

    def completed(*words: str) -> list[str]:
        typed = " ".join(f"'{word}'" for word in words)
        lines = f"source '{script}'; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _ipvit; echo ${{COMPREPLY[@]}}"
        return subprocess.run([bash, "-c", lines], check=True, capture_output=True, text=True).stdout.split()

    assert completed("ipvit", "rep") == ["report", "reproduce"]
    assert "--salience-head" in completed("ipvit", "occlusion", "--sal")
    assert completed("ipvit", "reproduce", "--imagenet") == ["--imagenet", "--imagenet-c"]
    assert completed("ipvit", "compare", "--j") == ["--json"]
