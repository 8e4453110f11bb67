"""Speed of `tui engine` against llama.cpp's own tools, in one run, on the same file, threads and CPU flags.

    engine.py --tui target/release/tui --peers target/peers MODEL.gguf…

Decode and prefill are compared with llama-bench, the time to the first token and four answers at once with
llama-server; guessing and saved sessions with the engine itself without them. A machine's speed wanders, by a third
within minutes where it is shared with others. So the two sides are measured in pairs, one right after the other,
who is first changing from pair to pair (A B, B A, A B, …), and what counts is the median of the pairs' ratios.
llama.cpp's tools get what the engine takes for itself: the same threads and huge pages. Exits 1 when a target is missed.
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
# The engine asks for huge pages by this setting of the C library; its peers are given it.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# Threads of the side before may spin for some milliseconds after its answer.
PAUSE = 0.05
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
        self.is_small = model.stat().st_size < 100 << 20
        self.pairs = args.rounds * (4 if self.is_small else 1)
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
        ], port, self.folder / f"llama-server-{slots}.log", HUGE_PAGES)

    def wait_loaded(self):
        """A load may answer before it is done; an answer can't."""
        self.engine.must("POST", "/v1/chat/completions", {
            "model": self.name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "cache_prompt": False})

    def body(self, content: str, tokens: int, **more) -> dict:
        # Nothing is guessed where the engine is compared with who guesses nothing.
        return {"model": self.name, "messages": [{"role": "user", "content": content}], "max_tokens": tokens,
                "temperature": 0, "ignore_eos": True, "draft": False, **more}

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

    def llama_bench(self, avx2: bool = False, huge_pages: bool = True) -> dict:
        env = os.environ | (HUGE_PAGES if huge_pages else {})
        if avx2:
            env["LD_LIBRARY_PATH"] = str((self.args.peers / "avx2/bin").resolve())
        out = subprocess.run(
            [str(self.args.peers / "bin/llama-bench"), "-m", str(self.model), "-t", str(self.args.threads),
             "-p", str(PROMPT_TOKENS), "-n", str(OUTPUT_TOKENS), "-ub", "512", "-r", "1", "-o", "json"],
            env=env, capture_output=True, text=True)
        if out.returncode != 0:
            sys.exit(f"llama-bench ended with {out.returncode}: {out.stderr[-1000:]}")
        rows = json.loads(out.stdout)
        return {"prefill": next(r["samples_ts"][0] for r in rows if r["n_gen"] == 0),
                "decode": next(r["samples_ts"][0] for r in rows if r["n_prompt"] == 0)}

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

    def first_token(self, rounds: int) -> tuple[list, list]:
        """Milliseconds to the first text, by both servers in turns."""
        def ask(server: Server, turn: int) -> dict:
            # Another beginning each time: what is reused is the beginning of the prompt, as in a new chat.
            content = f"{chr(ord('A') + turn % 26)} is a letter. Say something about it, please."
            time.sleep(PAUSE)
            answer = server.stream(self.body(content, 8))
            return {"ms": answer["first"] * 1000, "prompt_n": answer["timings"]["prompt_n"]}
        return many.pairs(rounds, lambda turn: ask(self.engine, turn), lambda turn: ask(self.server, turn))

    def worth(self, rounds: int) -> dict:
        """What the CPU flags and huge pages are worth to llama-bench: told, not judged."""
        without = {"small pages": lambda turn: self.llama_bench(huge_pages=False)}
        if (self.args.peers / "avx2/bin").is_dir():
            without["avx2"] = lambda turn: self.llama_bench(avx2=True)
        found = {}
        for name, side in without.items():
            rows = many.pairs(rounds, lambda turn: self.llama_bench(), side)
            found[name] = {key: many.Pairs(*([row[key] for row in half] for half in rows)).ratio
                           for key in ("decode", "prefill")}
        return found

    def measure(self) -> dict:
        prompt = self.prompt_of(PROMPT_TOKENS)
        for server in (self.engine, self.server):
            for word in ("Hello", "Hi"):
                server.stream(self.body(word, 8, cache_prompt=False))
        self.engine_speed(prompt)

        engine, bench = many.pairs(self.pairs, lambda turn: self.engine_speed(prompt), lambda turn: self.llama_bench())
        worth = self.worth(6 if self.is_small else 2)
        first = self.first_token(24 if self.is_small else 12)

        def pair(ours: list[dict], theirs: list[dict], key: str) -> many.Pairs:
            return many.Pairs([row[key] for row in ours], [row[key] for row in theirs])
        result = {
            "model": self.model.stem, "prompt_n": engine[0]["prompt_n"],
            "decode": pair(engine, bench, "decode"), "prefill": pair(engine, bench, "prefill"),
            "first": pair(*first, "ms"), "first_prompt_n": [rows[-1]["prompt_n"] for rows in first],
            "decode_server_clock": statistics.median(row["decode_server"] for row in engine),
            "texts": engine[0]["texts"], "worth": worth,
        }
        self.server.close()
        peer = self.peer(many.STREAMS)
        try:
            result["four"] = many.four_at_once(self, peer, 8 if self.is_small else 4)
        finally:
            peer.close()
        result["lookup"] = many.lookup(self, 12 if self.is_small else 4)
        result["http"] = many.http_cost(self)
        result["reopened"] = many.reopened(self.start_other, self, 2)
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
    lines = ["| model | what | engine | peer | ratio | middle half of the ratios | target | |",
             "|---|---|---:|---:|---:|---:|---:|---|"]
    passed = True
    for r in results:
        rows = []
        for key, what, peer, target in (
                ("decode", "decode, tok/s", f"llama-bench tg{OUTPUT_TOKENS}", DECODE_TARGET),
                ("prefill", f"prefill of {r['prompt_n']}, tok/s", f"llama-bench pp{PROMPT_TOKENS}", PREFILL_TARGET)):
            pair = r[key]
            rows.append((what, f"{pair.ours:.1f}", f"{pair.theirs:.1f} {peer}", pair, f"≥ {target}",
                         pair.ratio >= target))
        pair = r["first"]
        rows.append(("first token, ms", f"{pair.ours:.2f}", f"{pair.theirs:.2f} llama-server", pair,
                     f"≤ {FIRST_TOKEN_TARGET:.1f} (+{FIRST_TOKEN_NOISE} noise)",
                     pair.ratio <= FIRST_TOKEN_TARGET + FIRST_TOKEN_NOISE))
        rows += many.rows(r)
        for what, ours, theirs, pair, target, ok in rows:
            passed &= ok
            ratio, spread = ("", "") if pair is None else (f"{pair.ratio:.3f}", pair.spread())
            lines.append(f"| {r['model']} | {what} | {ours} | {theirs} | {ratio} | {spread} | {target} | {verdict(ok)} |")
    pairs = ", ".join(f"{r['model']} {len(r['decode'].raw[0])} and {len(r['first'].raw[0])}" for r in results)
    lines += ["", f"{args.threads} threads. Ratios are medians over pairs (decode and prefill, first token: {pairs}). Micro-batch "
              "512, flash attention `auto` and huge pages on every side. First token warm, "
              f"{PAUSE * 1000:.0f} ms after the side before; prompt tokens evaluated for it by engine and llama-server: "
              + ", ".join(f"{r['model']} {r['first_prompt_n'][0]} and {r['first_prompt_n'][1]}" for r in results)
              + ". Decode by the client's clock; by the engine's own: "
              + ", ".join(f"{r['model']} {r['decode_server_clock']:.1f} tok/s" for r in results) + "."]
    for name, words in (("avx2", "What the CPU flags are worth, llama-bench with them over llama-bench with AVX2 alone"),
                        ("small pages", "What huge pages are worth, llama-bench with them over llama-bench as it comes")):
        worth = [(r["model"], r["worth"][name]) for r in results if name in r["worth"]]
        if worth:
            lines += ["", f"{words}: " + "; ".join(
                f"{model} decode {w['decode']:.2f}, prefill {w['prefill']:.2f}" for model, w in worth) + "."]
        if name == "avx2" and worth and statistics.geometric_mean(x for _, w in worth for x in w.values()) < 1.0:
            lines += ["", "They cost more than they give on this CPU: build with DUET_CPU=portable."]
    return lines, passed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--tui", type=Path, required=True)
    parser.add_argument("--peers", type=Path, required=True, help="the folder that .ci/peers filled")
    parser.add_argument("--out", type=Path, help="folder for engine.md and engine.json")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--rounds", type=int, default=8, help="pairs of decode and prefill; four times as many for small models")
    args = parser.parse_args()

    if (load := os.getloadavg()[0]) > 0.5 * args.threads:
        print(f"the machine is busy (load {load:.1f}): what follows is worth less", file=sys.stderr)
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
    lines += ["", f"The repeated text: what these models say by themselves stands in the prompt, but for every {many.CHANGED}th word, "
              "which is always the same name there. Greedy; the answers with and without guessing are checked to be the same. The reopened "
              "session: first text by the client's clock after a restart of the engine, reading of the disk included, over "
              "the same prompt cold."]
    print("\n".join(lines))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "engine.md").write_text("\n".join(lines) + "\n")
        (args.out / "engine.json").write_text(json.dumps(results, indent=1, default=lambda pair: pair.raw))
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
