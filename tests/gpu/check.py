"""The engine on a CUDA card: right answers, speed against llama-bench, several residents, and refusals when memory is
short. Started by `run`. Exits 1 when something does not hold. The standard library and make_shape.py only.
"""

import argparse
import ctypes
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPT, OUTPUT = 2048, 128
DECODE_TARGET, PREFILL_TARGET = 0.95, 0.90
GIB = 1 << 30
faults: list[str] = []


def expect(is_true: bool, what: str):
    print(("ok   " if is_true else "BAD  ") + what)
    if not is_true:
        faults.append(what)


class Engine:
    """`tui engine run` in folders of its own."""

    def __init__(self, here: Path, config: str = ""):
        self.home = Path(tempfile.mkdtemp(prefix="duet-"))
        (self.home / "config").mkdir()
        (self.home / "config/config.toml").write_text(config)
        names = ("CONFIG", "DATA", "CACHE", "RUNTIME")
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "DUET_LOG": "info",
                    **{f"DUET_{name}_DIR": str(self.home / name.lower()) for name in names}}
        self.tui = here / "tui"
        log = (self.home / "log").open("wb")
        self.process = subprocess.Popen([self.tui, "engine", "run"], env=self.env, stdin=subprocess.DEVNULL,
                                        stdout=log, stderr=log)
        limit = time.monotonic() + 120
        while time.monotonic() < limit and self.process.poll() is None:
            try:
                self.call("GET", "/health")
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"the engine did not start: {(self.home / 'log').read_text()[-2000:]}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def call(self, method: str, route: str, body=None) -> tuple[int, dict]:
        connection = http.client.HTTPConnection("duet", timeout=580)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(580)
        connection.sock.connect(str(self.home / "runtime/engine.sock"))
        connection.request(method, route, json.dumps(body) if body is not None else None)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def chat(self, model: str, text: str, **more) -> tuple[int, dict]:
        body = {"model": model, "temperature": 0, "messages": [{"role": "user", "content": text}], **more}
        return self.call("POST", "/v1/chat/completions", body)

    def residents(self) -> list[str]:
        return [model["id"] for model in self.call("GET", "/engine/status")[1]["models"]]


def shape(args, name: str) -> Path:
    path = args.work / f"{name}.gguf"
    if not path.exists():
        part = path.with_suffix(".part")
        subprocess.run([sys.executable, args.files / "make_shape.py", part, "--shape", name,
                        "--tokenizer", args.files / "models/builtin.gguf"], check=True)
        part.rename(path)
    return path


def offload(args):
    with tempfile.TemporaryDirectory() as home:
        env = {"PATH": os.environ["PATH"], "HOME": home}
        said = subprocess.run([args.here / "tui", "doctor", "--json"], env=env, capture_output=True, text=True)
    report = json.loads(said.stdout)
    texts = [check["text"] for check in report["checks"] if check["area"] == "devices"]
    expect(any(device["kind"] == "gpu" for device in report["devices"]), f"llama.cpp sees the card: {texts}")
    expect(any("offload happens" in text for text in texts), "tui doctor: offload happens")


def answers(args):
    known = json.loads((args.files / "models/answers.json").read_text())
    with Engine(args.here) as engine:
        for name, model in (("builtin", "builtin"), ("large", str(args.files / "models/fixture-large.gguf"))):
            wrong = []
            for pair in known[name]["pairs"]:
                system = [{"role": "system", "content": pair["system"]}] if pair.get("system") else []
                messages = [*system, {"role": "user", "content": pair["prompt"]}]
                status, answer = engine.call("POST", "/v1/chat/completions",
                                             {"model": model, "temperature": 0, "messages": messages})
                if status != 200 or answer["choices"][0]["message"]["content"] != pair["answer"]:
                    wrong.append(pair["prompt"])
            expect(not wrong, f"{name}: {len(known[name]['pairs'])} known answers, wrong: {wrong}")


def speed(args) -> dict:
    model = shape(args, "llama-8b")
    said = subprocess.run([args.here / "backends/llama-bench", "-m", model, "-p", str(PROMPT), "-n", str(OUTPUT),
                           "-r", "3", "-ub", "512", "-o", "json"], capture_output=True, text=True)
    expect(said.returncode == 0, f"llama-bench runs: {said.stderr[-300:] if said.returncode else ''}")
    rows = json.loads(said.stdout) if said.returncode == 0 else []
    theirs = {"prefill" if row["n_gen"] == 0 else "decode": row["avg_ts"] for row in rows}
    ours: dict[str, list[float]] = {"prefill": [], "decode": []}
    with Engine(args.here, "[engine]\ncontext = 8192\n") as engine:
        for turn in range(4):
            text = f"{turn} " + "word " * (PROMPT - 40)
            status, answer = engine.chat(str(model), text, max_tokens=OUTPUT, ignore_eos=True, cache_prompt=False)
            expect(status == 200, f"the 8B shape answers: {answer.get('error', '')}")
            if status != 200:
                break
            timings = answer["timings"]
            # The first one warms up.
            if turn:
                ours["prefill"].append(timings["prompt_per_second"])
                ours["decode"].append(timings["predicted_per_second"])
    figures = {"card": args.card}
    for what, target in (("prefill", PREFILL_TARGET), ("decode", DECODE_TARGET)):
        if ours[what] and what in theirs:
            mine = sorted(ours[what])[len(ours[what]) // 2]
            figures[what] = {"tui": mine, "llama-bench": theirs[what], "ratio": mine / theirs[what]}
            expect(mine / theirs[what] >= target, f"{what}: {mine:.0f} tok/s, llama-bench {theirs[what]:.0f}, "
                   f"ratio {mine / theirs[what]:.3f}, target {target}")
    return figures


def residents(args):
    models = [str(shape(args, name)) for name in ("one-b", "three-b", "llama-8b")]
    with Engine(args.here) as engine:
        for model in models:
            status, answer = engine.chat(model, "Hello", max_tokens=4, ignore_eos=True)
            expect(status == 200, f"{Path(model).stem} answers: {answer.get('error', '')}")
        expect(len(engine.residents()) == 3, f"three models are resident: {engine.residents()}")
        for model in models:
            status, answer = engine.chat(model, "Hello", max_tokens=4, ignore_eos=True)
            load_ms = answer.get("timings", {}).get("load_ms") or 0
            expect(status == 200 and load_ms == 0, f"going back to {Path(model).stem} loads nothing")


class Hog:
    """Takes memory of the card by plain allocations, so that a budget can be made up on any card."""

    def __init__(self, leave: int):
        names = ["libcudart.so", "libcudart.so.13", "libcudart.so.12", *map(str, Path("/usr/local/cuda/lib64").glob("libcudart.so*"))]
        self.cuda = next(library for library in map(self.open, names) if library)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.cuda.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
        self.at = ctypes.c_void_p()
        if free.value > leave and self.cuda.cudaMalloc(ctypes.byref(self.at), ctypes.c_size_t(free.value - leave)):
            raise SystemExit("the card's memory could not be taken")

    @staticmethod
    def open(name: str):
        try:
            return ctypes.CDLL(name)
        except OSError:
            return None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cuda.cudaFree(self.at)


def short_of_memory(args):
    small, middle, large = (str(shape(args, name)) for name in ("one-b", "three-b", "llama-8b"))
    total = float(re.search(r"(\d+) MiB", args.card).group(1)) * (1 << 20)
    # What the engine leaves free anyway, and room for the 8B shape with little beside it.
    leave = int(max(GIB, total / 20) + 7.5 * GIB)
    config = "[engine]\ncontext = 4096\n"
    with Hog(leave), Engine(args.here, config) as engine:
        for model in (small, middle):
            status, answer = engine.chat(model, "Hello", max_tokens=4, ignore_eos=True)
            expect(status == 200, f"{Path(model).stem} fits: {answer.get('error', '')}")
        status, answer = engine.chat(large, "Hello", max_tokens=4, ignore_eos=True)
        expect(status == 200, f"the 8B shape gets its place: {answer.get('error', '')}")
        left = engine.residents()
        expect(len(left) < 3 and any("llama-8b" in name for name in left), f"an idle model left for it: {left}")
    with Hog(int(max(GIB, total / 20) + GIB)), Engine(args.here, config) as engine:
        status, answer = engine.chat(large, "Hello", max_tokens=4)
        message = answer.get("error", {}).get("message", "")
        # Refused with numbers, or on the processor; never dead.
        expect(status == 507 or status == 200, f"out of memory at load is answered ({status}): {message}")
        expect(status != 507 or "GiB" in message, "the refusal has numbers")
        status, _ = engine.chat("builtin", "What is the capital of France?")
        expect(status == 200 and engine.process.poll() is None, "the engine lives on")


def main():
    parser = argparse.ArgumentParser()
    for name in ("here", "files", "work", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--card", required=True)
    args = parser.parse_args()
    print(f"gpu: {args.card}")
    offload(args)
    answers(args)
    figures = speed(args)
    residents(args)
    short_of_memory(args)
    figures["faults"] = faults
    (args.out / "gpu.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
