"""How soon the interface is there, what it holds, and whether it sleeps: `tui` in a pseudo-terminal.

    start.py --tui target/release/tui

Every start has fresh folders, so no engine runs yet. Exits 1 when a target is missed. Linux, standard library only.
"""

import argparse
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

FIRST_PAINT_MS, RESIDENT_MIB = 30, 30
# The watchdog that notices a vanished terminal looks twice a second; nothing else may wake.
WAKEUPS_PER_S = 2
IDLE_SECONDS = 10
# What a terminal is asked at the start, and what xterm says.
ANSWERS = [(rb"\x1b\[c", b"\x1b[?62;22c"), (rb"\x1b\[>0?c", b"\x1b[>41;390;0c"), (rb"\x1b\[6n", b"\x1b[1;1R"),
           (rb"\x1b\]10;\?(?:\x07|\x1b\\)", b"\x1b]10;rgb:ffff/ffff/ffff\x1b\\"),
           (rb"\x1b\]11;\?(?:\x07|\x1b\\)", b"\x1b]11;rgb:0000/0000/0000\x1b\\"),
           (rb"\x1b\[\?2026\$p", b"\x1b[?2026;2$y")]
ESCAPES = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]")


def visible(data: bytes) -> bytes:
    return ESCAPES.sub(b"", data).strip()


class Screen:
    """One run of the program with its own folders."""

    def __init__(self, tui: Path):
        self.home = Path(tempfile.mkdtemp(prefix="duet-start-"))
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        env |= {f"DUET_{name}_DIR": str(self.home / name.lower()) for name in ("CONFIG", "DATA", "CACHE", "RUNTIME")}
        self.tui, self.env, self.data = tui, env, b""
        main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.fd = main
        self.started = time.perf_counter()
        self.process = subprocess.Popen([str(tui)], stdin=side, stdout=side, stderr=side, env=env, cwd=self.home,
                                        close_fds=True, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(side)

    def read_until(self, test, seconds: float) -> float | None:
        """The time of the read after which `test(everything so far)` held."""
        limit = time.perf_counter() + seconds
        while time.perf_counter() < limit:
            if not select.select([self.fd], [], [], max(0.0, limit - time.perf_counter()))[0]:
                return None
            try:
                block = os.read(self.fd, 1 << 16)
            except OSError:
                return None
            now = time.perf_counter()
            self.data += block
            for query, answer in ANSWERS:
                if re.search(query, block):
                    os.write(self.fd, answer)
            if test(self.data):
                return now
        return None

    def drain(self, seconds: float):
        self.read_until(lambda _: False, seconds)

    def close(self):
        for key in (b"\x03", b"\x03", b"\x04"):
            if self.process.poll() is None:
                try:
                    os.write(self.fd, key)
                except OSError:
                    break
                self.drain(0.2)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.drain(1)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.fd)
        subprocess.run([str(self.tui), "engine", "stop"], env=self.env, capture_output=True, timeout=30)
        shutil.rmtree(self.home, ignore_errors=True)


def threads(pid: int) -> dict[str, tuple[str, int]]:
    """Name and voluntary context switches of every thread."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text()
        found[task.name] = (re.search(r"Name:\s*(.*)", status)[1],
                            int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.M)[1]))
    return found


def one_start(tui: Path) -> dict:
    screen = Screen(tui)
    try:
        painted = screen.read_until(lambda data: bool(visible(data)), 10)
        if painted is None:
            sys.exit(f"nothing was painted in 10 s; the program wrote {screen.data[-500:]!r}")
        # Z is in no text of the first screen that comes later; what was there before does not count.
        before = visible(screen.data).count(b"Z")
        sent = time.perf_counter()
        os.write(screen.fd, b"Z")
        echoed = screen.read_until(lambda data: visible(data).count(b"Z") > before, 10)
        is_up = (screen.home / "runtime/engine.sock").exists()
        return {"paint_ms": (painted - screen.started) * 1000,
                "echo_ms": None if echoed is None else (echoed - sent) * 1000, "engine_was_up": is_up}
    finally:
        screen.close()


def at_rest(tui: Path) -> dict:
    screen = Screen(tui)
    try:
        # The engine's start and its news are over when nothing has been painted for a while.
        size, limit = -1, time.monotonic() + 60
        while len(screen.data) != size and time.monotonic() < limit:
            size = len(screen.data)
            screen.drain(3)
        status = Path(f"/proc/{screen.process.pid}/status").read_text()
        resident = int(re.search(r"VmRSS:\s*(\d+)", status)[1]) / 1024
        before = threads(screen.process.pid)
        painted = len(screen.data)
        screen.drain(IDLE_SECONDS)
        after = threads(screen.process.pid)
        wakes = {f"{after[t][0]}": after[t][1] - before.get(t, ("", 0))[1] for t in after}
        return {"resident_mib": resident, "wakeups_per_s": sum(wakes.values()) / IDLE_SECONDS, "by_thread": wakes,
                "painted_bytes": len(screen.data) - painted}
    finally:
        screen.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tui", type=Path, required=True)
    parser.add_argument("--starts", type=int, default=15)
    parser.add_argument("--out", type=Path, help="folder for start.md and start.json")
    args = parser.parse_args()
    tui = args.tui.resolve()
    one_start(tui)  # brings the program into the page cache
    starts = [one_start(tui) for _ in range(args.starts)]
    rest = at_rest(tui)

    paint = statistics.median(s["paint_ms"] for s in starts)
    echoes = [s["echo_ms"] for s in starts if s["echo_ms"] is not None]
    early = [s["echo_ms"] for s in starts if s["echo_ms"] is not None and not s["engine_was_up"]]
    rows = [
        ("first paint, ms", f"{paint:.1f} (worst {max(s['paint_ms'] for s in starts):.1f})",
         f"< {FIRST_PAINT_MS}", paint < FIRST_PAINT_MS),
        ("a key at once is shown, ms", f"{statistics.median(echoes):.1f}" if echoes else "never",
         "always shown", len(echoes) == len(starts)),
        ("… before the engine is up", f"{len(early)} of {len(starts)} starts", "≥ 1", bool(early)),
        ("resident, MiB", f"{rest['resident_mib']:.1f}", f"< {RESIDENT_MIB}", rest["resident_mib"] < RESIDENT_MIB),
        ("wake-ups per second, idle", f"{rest['wakeups_per_s']:.1f}", f"≤ {WAKEUPS_PER_S} (watchdog)",
         rest["wakeups_per_s"] <= WAKEUPS_PER_S + 0.2),
        ("bytes painted while idle", str(rest["painted_bytes"]), "0", rest["painted_bytes"] == 0),
    ]
    lines = ["| what | measured | target | |", "|---|---:|---:|---|"]
    lines += [f"| {what} | {value} | {target} | {'PASS' if ok else '**FAIL**'} |" for what, value, target, ok in rows]
    busy = {name: count for name, count in rest["by_thread"].items() if count}
    lines += ["", f"120x40, fresh folders, no engine running; {args.starts} starts, medians; idle over {IDLE_SECONDS} s"
              + (f", woken: {busy}" if busy else "") + "."]
    print("\n".join(lines))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "start.md").write_text("\n".join(lines) + "\n")
        (args.out / "start.json").write_text(json.dumps({"starts": starts, "rest": rest}, indent=1))
    sys.exit(0 if all(ok for *_, ok in rows) else 1)


if __name__ == "__main__":
    main()
