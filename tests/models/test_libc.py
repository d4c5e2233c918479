"""Calls into the C library."""

import subprocess
import sys

import pytest

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")

# Frees 256 MiB and prints by how many MiB the process has grown.
GROWTH = """
import os, torch
from steelseg.models.libc import keep_freed_memory
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
print(keep_freed_memory()) if {keep} else None
before = resident()
torch.ones(64, 2**20)
print(resident() - before)
"""


def grown(*, keep):
    """Run the code in a process of its own, because the setting cannot be taken back."""
    done = subprocess.run(
        [sys.executable, "-c", GROWTH.format(keep=keep)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@LINUX
def test_freed_memory_is_kept_once_it_is_asked_for():
    """By default glibc returns a block of this size to the system."""
    (plain,) = grown(keep=False)
    accepted, kept = grown(keep=True)

    assert float(plain) < 64
    if accepted == "True":
        assert float(kept) > 200
