"""Speed of `tui engine` against llama.cpp's own tools, in one run, on the same file, threads and CPU flags.

    engine.py --tui target/release/tui --peers target/peers MODEL.gguf…

Decode and prefill are compared with llama-bench, the time to the first token and four answers at once with
llama-server; guessing and saved sessions with the engine itself without them. The two sides take turns and the
medians are compared, so that a busy machine slows both. Exits 1 when a target is missed.
Standard library only.
"""

import argparse
import functools
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import many

PROMPT_TOKENS, OUTPUT_TOKENS = 512, 128
DECODE_TARGET, PREFILL_TARGET = 0.97, 0.95
# "No longer than llama-server's", with room for what two equal programs differ by on a busy machine.
FIRST_TOKEN_TARGET, FIRST_TOKEN_NOISE = 1.0, 0.05
WORDS = "Paris Berlin Rome Madrid Tokyo Beijing Nairobi Cairo Lima Santiago Ottawa Oslo Athens Havana".split()


def physical_cores() -> int:
    """What the engine takes by itself: threads of one core share their arithmetic."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    cores = set(re.findall(r"physical id\s*: (\d+)(?:.*\n)*?core id\s*: (\d+)", text))
    return len(cores) or os.cpu_count() or 1


class Server:
    """A process with llama-server's routes, on a Unix socket (a path) or a TCP port (a number)."""

    def __init__(self, name: str, command: list[str], address: str | int, log: Path, env: dict | None = None):
        self.name, self.address, self.log = name, address, log
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            env=os.environ | (env or {}), start_new_session=True)
        self.wait_ready(120)

    def wait_ready(self, seconds: float):
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if self.process.poll() is not None:
                break
            try:
                if self.call("GET", "/health")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        last = self.log.read_text(errors="replace").strip()[-2000:]
        self.close()
        sys.exit(f"{self.name} did not become ready; its last words:\n{last}")

    def connect(self) -> socket.socket:
        if isinstance(self.address, int):
            link = socket.create_connection(("127.0.0.1", self.address), timeout=600)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return link
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(600)
        link.connect(self.address)
        return link

    def call(self, method: str, path: str, body: dict | None = None) -> tuple[int, dict]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self.connect()
        connection.request(method, path, json.dumps(body) if body is not None else None,
                           {"Content-Type": "application/json"})
        response = connection.getresponse()
        data = response.read()
        connection.close()
        try:
            return response.status, json.loads(data or b"{}")
        except ValueError:
            return response.status, {}

    def must(self, method: str, path: str, body: dict | None = None) -> dict:
        status, answer = self.call(method, path, body)
        if status != 200:
            sys.exit(f"{self.name}: {method} {path} gave {status}: {json.dumps(answer)[:500]}")
        return answer

    def stream(self, body: dict) -> dict:
        """One chat completion. Each event has the time of the read that completed it."""
        data = json.dumps(body | {"stream": True}).encode()
        head = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Connection: close\r\nContent-Length: {len(data)}\r\n\r\n").encode()
        link, reads = self.connect(), []
        sent = time.perf_counter()
        link.sendall(head + data)
        while block := link.recv(1 << 16):
            reads.append((time.perf_counter(), block))
        link.close()
        events = list(server_sent_events(self.name, reads))
        texts = [at for at, event in events if is_text(event)]
        timings = next((e["timings"] for _, e in reversed(events) if e.get("timings")), None)
        errors = [e["error"] for _, e in events if "error" in e]
        if errors or not texts or not timings:
            sys.exit(f"{self.name}: no full answer: {errors or events[-2:]}")
        return {"first": texts[0] - sent, "span": texts[-1] - texts[0], "texts": len(texts), "timings": timings,
                "first_at": texts[0], "last_at": texts[-1]}

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def is_text(event: dict) -> bool:
    choices = event.get("choices") or [{}]
    delta = choices[0].get("delta") or {}
    return bool(delta.get("content") or delta.get("reasoning_content"))


def server_sent_events(name: str, reads: list[tuple[float, bytes]]):
    """Head, chunk sizes and `data:` lines out of timed reads."""
    head, rest, body, chunked = b"", b"", b"", False
    started = False
    for at, block in reads:
        if not started:
            head += block
            if b"\r\n\r\n" not in head:
                continue
            head, block = head.split(b"\r\n\r\n", 1)
            if b" 200 " not in head.split(b"\r\n")[0] + b" ":
                sys.exit(f"{name}: {head.splitlines()[0].decode()}: {block.decode(errors='replace')[:500]}")
            started, chunked = True, b"transfer-encoding: chunked" in head.lower()
        rest += block
        if chunked:
            while b"\r\n" in rest:
                size_line, after = rest.split(b"\r\n", 1)
                size = int(size_line.split(b";")[0], 16)
                if len(after) < size + 2:
                    break
                body, rest = body + after[:size], after[size + 2:]
        else:
            body, rest = body + rest, b""
        *lines, body = body.split(b"\n")
        for line in lines:
            text = line.strip().removeprefix(b"data:").strip()
            if line.startswith(b"data:") and text != b"[DONE]":
                yield at, json.loads(text)


class Run:
    """All measurements with one model."""

    def __init__(self, args, model: Path, engine: Server, folder: Path, start_other):
        self.args, self.model, self.engine, self.start_other = args, model, engine, start_other
        self.name = str(model)
        # A small model is done in a blink, in which anything can come between.
        self.repeats = 3 if model.stat().st_size < 100 << 20 else 1
        engine.must("POST", "/models/load", {"model": self.name})
        self.wait_loaded()
        self.folder = folder
        self.server = self.peer(1)

    def peer(self, slots: int) -> Server:
        port, threads = free_port(), str(self.args.threads)
        return Server("llama-server", [
            str(self.args.peers / "bin/llama-server"), "-m", str(self.model), "-t", threads, "-tb", threads,
            "-c", "4096", "-np", str(slots), *(["--kv-unified"] if slots > 1 else []), "-ub", "512", "-b", "2048",
            "--host", "127.0.0.1", "--port", str(port),
        ], port, self.folder / f"llama-server-{slots}.log")

    def wait_loaded(self):
        """A load may answer before it is done; an answer can't."""
        self.engine.must("POST", "/v1/chat/completions", {
            "model": self.name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "cache_prompt": False})

    def body(self, content: str, tokens: int, **more) -> dict:
        # One token is made certain: shapes have random weights and mostly tokens without text.
        return {"model": self.name, "messages": [{"role": "user", "content": content}], "max_tokens": tokens,
                "temperature": 0, "ignore_eos": True, "logit_bias": [[self.token, 10_000]],
                # The same token again and again would all be guessed right.
                "draft": False, **more}

    def prompt_of(self, tokens: int) -> str:
        """A user message with which the whole prompt has as many tokens as llama-bench evaluates, or just fewer."""
        def size(words: int) -> int:
            prompt = self.engine.must("POST", "/apply-template", {
                "model": self.name, "messages": [{"role": "user", "content": text(words)}]})["prompt"]
            return len(self.engine.must("POST", "/tokenize", {
                "model": self.name, "content": prompt, "add_special": False, "parse_special": True})["tokens"])

        def text(words: int) -> str:
            return " ".join(WORDS[i % len(WORDS)] for i in range(words))
        low, high = 1, tokens
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if size(middle) <= tokens else (low, middle - 1)
        return text(low)

    def llama_bench(self, avx2: bool = False) -> list[dict]:
        env = dict(os.environ)
        if avx2:
            env["LD_LIBRARY_PATH"] = str((self.args.peers / "avx2/bin").resolve())
        out = subprocess.run(
            [str(self.args.peers / "bin/llama-bench"), "-m", str(self.model), "-t", str(self.args.threads),
             "-p", str(PROMPT_TOKENS), "-n", str(OUTPUT_TOKENS), "-ub", "512", "-r", str(self.repeats), "-o", "json"],
            env=env, capture_output=True, text=True)
        if out.returncode != 0:
            sys.exit(f"llama-bench ended with {out.returncode}: {out.stderr[-1000:]}")
        rows = json.loads(out.stdout)
        prefill = next(r["samples_ts"] for r in rows if r["n_gen"] == 0)
        decode = next(r["samples_ts"] for r in rows if r["n_prompt"] == 0)
        return [{"prefill": p, "decode": d} for p, d in zip(prefill, decode)]

    def engine_speed(self, prompt: str) -> dict:
        prefill = self.engine.stream(self.body(prompt, 1, cache_prompt=False))["timings"]
        # One conversation alone in the cache, as llama-bench has it.
        answer = self.engine.stream(self.body("Go on.", OUTPUT_TOKENS, cache_prompt=False))
        timings = answer["timings"]
        if timings["predicted_n"] != OUTPUT_TOKENS:
            sys.exit(f"engine: asked for {OUTPUT_TOKENS} tokens, got {timings['predicted_n']}")
        return {"prompt_n": prefill["prompt_n"],
                "prefill": prefill["prompt_n"] / prefill["prompt_ms"] * 1000,
                "decode": (OUTPUT_TOKENS - 1) / answer["span"],
                "decode_server": timings["predicted_n"] / timings["predicted_ms"] * 1000,
                "texts": answer["texts"]}

    def measure(self) -> dict:
        args = self.args
        self.token = self.engine.must("POST", "/tokenize", {"model": self.name, "content": "t"})["tokens"][0]
        prompt = self.prompt_of(PROMPT_TOKENS)
        for server in (self.engine, self.server):
            for word in ("Hello", "Hi"):
                server.stream(self.body(word, 8, cache_prompt=False))
        self.engine_speed(prompt)

        bench, engine, narrow = [], [], []
        has_narrow = (args.peers / "avx2/bin").is_dir()
        for turn in range(args.rounds):
            sides = [lambda: bench.extend(self.llama_bench()),
                     lambda: engine.extend(self.engine_speed(prompt) for _ in range(self.repeats))]
            if has_narrow:
                sides.insert(1, lambda: narrow.extend(self.llama_bench(avx2=True)))
            for side in sides if turn % 2 == 0 else reversed(sides):
                side()

        first = {self.engine.name: [], self.server.name: []}
        for turn in range(args.first_rounds):
            pair = [self.engine, self.server] if turn % 2 == 0 else [self.server, self.engine]
            for server in pair:
                # Another question each time: what is reused is the beginning of the prompt, as in a new chat.
                content = f"{WORDS[turn % len(WORDS)]} is number {turn} of my list. Say something about it, please."
                first[server.name].append(server.stream(self.body(content, 8))["first"] * 1000)

        def of(rows: list[dict], key: str) -> float:
            return statistics.median(row[key] for row in rows)

        def best(key: str) -> float:
            return max(row[key] for row in engine) / max(row[key] for row in bench)
        result = {
            "model": self.model.stem, "prompt_n": engine[0]["prompt_n"], "texts": engine[0]["texts"],
            "decode": [of(engine, "decode"), of(bench, "decode")],
            "decode_server_clock": of(engine, "decode_server"),
            "prefill": [of(engine, "prefill"), of(bench, "prefill")],
            "first": [statistics.median(first[self.engine.name]), statistics.median(first[self.server.name])],
            "best": {"decode": best("decode"), "prefill": best("prefill"),
                     "first": min(first[self.engine.name]) / min(first[self.server.name])},
            "raw": {"engine": engine, "llama-bench": bench, "avx2": narrow, "first_ms": first},
        }
        self.server.close()
        peer = self.peer(many.STREAMS)
        try:
            result["four"] = many.four_at_once(self, peer, max(3, args.rounds // 2))
        finally:
            peer.close()
        result["lookup"] = many.lookup(self, max(3, args.rounds // 2))
        result["http"] = many.http_cost(self)
        result["reopened"] = many.reopened(self.start_other, self, 3)
        if narrow:
            result["flags"] = [of(bench, "decode") / of(narrow, "decode"), of(bench, "prefill") / of(narrow, "prefill")]
        return result

    def close(self):
        self.server.close()
        self.engine.call("POST", "/models/unload", {"model": self.name})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_engine(args, home: Path, context: int) -> Server:
    """An engine in folders of its own, which may be there already."""
    folders = {f"DUET_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "CACHE", "RUNTIME")}
    (home / "config").mkdir(parents=True, exist_ok=True)
    (home / "config/config.toml").write_text(
        f"[engine]\nthreads = {args.threads}\ncontext = {context}\nlinger = 3600\n")
    return Server("engine", [str(args.tui.resolve()), "engine", "run"], str(home / "runtime/engine.sock"),
                  home / "engine.log", folders)


def verdict(ok: bool) -> str:
    return "PASS" if ok else "**FAIL**"


def table(results: list[dict], args) -> tuple[list[str], bool]:
    lines = ["| model | what | engine | peer | ratio | best to best | target | |",
             "|---|---|---:|---:|---:|---:|---:|---|"]
    passed = True
    for r in results:
        rows = []
        for key, what, peer, target in (
                ("decode", "decode, tok/s", f"llama-bench tg{OUTPUT_TOKENS}", DECODE_TARGET),
                ("prefill", f"prefill of {r['prompt_n']}, tok/s", f"llama-bench pp{PROMPT_TOKENS}", PREFILL_TARGET)):
            ours, theirs = r[key]
            ok = ours / theirs >= target
            rows.append((what, f"{ours:.1f}", f"{theirs:.1f} {peer}", f"{ours / theirs:.3f}",
                         f"{r['best'][key]:.3f}", f"≥ {target}", ok))
        ours, theirs = r["first"]
        ok = ours / theirs <= FIRST_TOKEN_TARGET + FIRST_TOKEN_NOISE
        rows.append(("first token, ms", f"{ours:.2f}", f"{theirs:.2f} llama-server", f"{ours / theirs:.3f}",
                     f"{r['best']['first']:.3f}", f"≤ {FIRST_TOKEN_TARGET:.1f} (+{FIRST_TOKEN_NOISE} noise)", ok))
        for what, ours, peer, ratio, target, ok in many.rows(r):
            rows.append((what, ours, peer, "" if ratio is None else f"{ratio:.3f}", "", target, ok))
        for *cells, ok in rows:
            passed &= ok
            lines.append(f"| {r['model']} | " + " | ".join(cells) + f" | {verdict(ok)} |")
    lines += ["", f"{args.threads} threads, {args.rounds} rounds in turns, medians; first token: {args.first_rounds} "
              "rounds, warm. Micro-batch 512 and flash attention `auto` on every side. Decode by the client's clock; "
              "by the engine's own: " + ", ".join(f"{r['model']} {r['decode_server_clock']:.1f} tok/s" for r in results) + "."]
    flags = [r for r in results if "flags" in r]
    if flags:
        lines += ["", "What the CPU flags are worth, llama-bench with them over llama-bench with AVX2 alone: " + "; ".join(
            f"{r['model']} decode {r['flags'][0]:.2f}, prefill {r['flags'][1]:.2f}" for r in flags) + "."]
        if statistics.geometric_mean(x for r in flags for x in r["flags"]) < 1.0:
            lines += ["", "They cost more than they give on this CPU: build with DUET_CPU=portable."]
    return lines, passed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--tui", type=Path, required=True)
    parser.add_argument("--peers", type=Path, required=True, help="the folder that .ci/peers filled")
    parser.add_argument("--out", type=Path, help="folder for engine.md and engine.json")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--first-rounds", type=int, default=9)
    args = parser.parse_args()

    if (load := os.getloadavg()[0]) > 0.5 * args.threads:
        print(f"the machine is busy (load {load:.1f}): medians of a busy machine wander, compare the best values too",
              file=sys.stderr)
    home = Path(tempfile.mkdtemp(prefix="duet-bench-"))
    results = []
    try:
        engine = start_engine(args, home / "main", 4096)
        other = functools.partial(start_engine, args, home / "other", many.REOPENED_CONTEXT)
        try:
            for model in args.models:
                run = Run(args, model.resolve(), engine, home, other)
                try:
                    results.append(run.measure())
                finally:
                    run.close()
            switched = many.switch_back(engine, [model.resolve() for model in args.models])
        finally:
            engine.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    lines, passed = table(results, args)
    if switched:
        passed &= switched["back"] == 0
        lines += ["", f"Back to a resident model after another one: {switched['back']:.0f} ms of loading (loading them took "
                  f"{switched['loads'][0]:.0f} and {switched['loads'][1]:.0f} ms): {verdict(switched['back'] == 0)}."]
    lines += ["", "The repeated file: models of random weights know no words, so a grammar gives the text and a bias prefers "
              "its longer tokens, with and without guessing alike. The reopened session: first text by the client's clock "
              "after a restart of the engine, reading of the disk included, over the same prompt cold."]
    print("\n".join(lines))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "engine.md").write_text("\n".join(lines) + "\n")
        (args.out / "engine.json").write_text(json.dumps(results, indent=1))
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
