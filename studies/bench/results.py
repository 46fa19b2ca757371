"""Where the benchmarks write what they found: a section each of ``studies/bench/RESULTS.md``, for each kind of CPU."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

FILE = Path(__file__).with_name("RESULTS.md")
HEAD = (
    "# What the benchmarks measured\n\nWritten by `python -m studies.bench.<name> --write`, a section a kind of CPU.\n"
)


def instructions() -> str:
    """The widest vector instructions that torch uses here, on which figures depend most."""
    return str(torch.backends.cpu.get_cpu_capability())


def machine() -> str:
    """The machine in a line, and how busy it was."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cores = len(re.findall(r"^processor", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    memory = int(re.findall(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[0]) / 2**20
    name = cpu.group(1) if cpu else platform.processor()
    load = f"load {os.getloadavg()[0]:.0f} at the end"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{name}, {cores} cores ({instructions()}), {memory:.0f} GiB; {versions}; {load}"


def spread(values: Sequence[float], form: str = ".2f", unit: str = "") -> str:
    """Median and range of what the rounds found: ``1.04 (0.98–1.10)``.

    Args:
        values: Of the rounds.
        form: How a number is written.
        unit: What follows the median.
    """
    return f"{median(values):{form}}{unit} ({min(values):{form}}–{max(values):{form}})"


def ratios(values: Sequence[float], of: Sequence[float]) -> list[float]:
    """What some values are of others, round by round."""
    return [a / b for a, b in zip(values, of, strict=True)]


def write_section(title: str, text: str, *, file: Path = FILE) -> None:
    """Puts a section into the file in place of the one of the same title and :func:`instructions`.

    Args:
        title: Of the section, to which the instructions are added.
        text: What it says, Markdown, below a line about the machine.
        file: Where to write.
    """
    title = f"{title} ({instructions()})"
    old = file.read_text(encoding="utf-8") if file.exists() else HEAD
    section = f"## {title}\n\n{machine()}.\n\n{text.strip()}\n"
    parts = re.split(r"(?m)^(?=## )", old)
    kept = [part for part in parts[1:] if not part.startswith(f"## {title}\n")]
    sections = sorted([*kept, section])
    file.write_text("\n".join([parts[0].strip() + "\n", *(part.strip() + "\n" for part in sections)]), encoding="utf-8")
