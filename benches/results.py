"""Writes the last figures of `make bench` and `make termbench` into RESULTS.md.

    results.py target/bench benches/RESULTS.md

Each part stands between `<!-- NAME -->` and `<!-- /NAME -->`; a part that was not measured is left as it is.
"""

import os
import platform
import re
import subprocess
import sys
from datetime import date
from pathlib import Path


def machine() -> str:
    def of(path: str, pattern: str) -> str:
        try:
            found = re.search(pattern, Path(path).read_text())
        except OSError:
            found = None
        return found[1].strip() if found else "?"

    def said(*command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True).stdout.strip().splitlines()[0]
        except (OSError, IndexError):
            return "?"
    flags = subprocess.run([Path(__file__).parents[1] / ".ci/cpu-flags"], capture_output=True, text=True).stdout
    names = re.findall(r"GGML_(\w+)", flags)
    memory = of("/proc/meminfo", r"MemTotal:\s*(\d+)")
    return "\n".join([
        f"- {of('/proc/cpuinfo', r'model name.*: (.*)')}, {os.cpu_count()} CPUs, "
        + (f"{int(memory) / 2**20:.0f} GiB, " if memory.isdigit() else "") + f"{platform.system()} {platform.release()}",
        f"- ggml with AVX2{''.join(', ' + n for n in names)}; {said('rustc', '--version')}; {said('cc', '--version')}",
        f"- measured on {date.today()}, commit {said('git', 'rev-parse', '--short', 'HEAD')}",
    ]) + "\n"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    figures, results = Path(sys.argv[1]), Path(sys.argv[2])
    text = results.read_text()
    parts = {path.stem: path.read_text() for path in figures.glob("*.md")}
    if not parts:
        sys.exit(f"no figures in {figures}; run make bench or make termbench first")
    parts["machine"] = machine()
    for name, part in parts.items():
        pattern = re.compile(rf"<!-- {name} -->\n.*?<!-- /{name} -->", re.S)
        text, count = pattern.subn(lambda _: f"<!-- {name} -->\n\n{part.strip()}\n\n<!-- /{name} -->", text)
        print(f"{name}: {'written' if count else 'has no place in ' + results.name}")
    results.write_text(text)


if __name__ == "__main__":
    main()
