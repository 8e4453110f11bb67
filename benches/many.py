"""What the engine does with several conversations: four at once, one reopened after a restart, one that repeats
its prompt, one that goes back to a model it has left. Used by `engine.py`. Standard library only.
"""

import os
import random
import statistics
import threading
import time
from pathlib import Path

STREAMS, STREAM_TOKENS = 4, 128
REOPENED_TOKENS, REOPENED_CONTEXT = 4096, 8192
TOTAL_TARGET, REOPENED_TARGET, REPEAT_TARGET, PROSE_TARGET = 1.0, 0.1, 1.5, 0.97
# Equal programs differ by this much on a busy machine.
TOTAL_NOISE = 0.03
HTTP_TARGET_US = 30.0
# After an answer the engine writes conversations to disk once, five seconds later.
IDLE_AFTER, IDLE_SECONDS, IDLE_TARGET_MS = 7, 5, 10.0
NAMES = ("total", "name")


def file_to_repeat(lines: int) -> str:
    """Code without a line that is another one's, so that only the prompt helps with guessing it."""
    pick = random.Random(7)
    words = "count list index value first last open close read write left right size limit start end".split()
    # The name stands in every sixth line.
    return "\n".join(
        f"let {pick.choice(words)}_{i} = {pick.choice(words) if i % 6 else NAMES[0]}.{pick.choice(words)}"
        f"({pick.choice(words)}, {pick.randrange(900)});" for i in range(lines))


def literal(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def at_once(server, bodies: list[dict]) -> float:
    """Tokens per second of all streams together, from the first text of any to the last."""
    answers: list = [None] * len(bodies)

    def ask(i: int):
        answers[i] = server.stream(bodies[i])
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tokens = sum(a["timings"]["predicted_n"] for a in answers)
    span = max(a["last_at"] for a in answers) - min(a["first_at"] for a in answers)
    return (tokens - len(bodies)) / span


def four_at_once(run, server, rounds: int) -> dict:
    """Four answers at once from both; the sides take turns. Nothing is guessed on either."""
    rates: dict[str, list[float]] = {run.engine.name: [], server.name: []}
    for turn in range(rounds + 1):
        bodies = [run.body(f"{word}, number {turn}.", STREAM_TOKENS, cache_prompt=False, draft=False)
                  for word in ("Paris", "Rome", "Oslo", "Lima")[:STREAMS]]
        pair = [run.engine, server] if turn % 2 == 0 else [server, run.engine]
        for side in pair:
            rate = at_once(side, bodies)
            if turn > 0:
                rates[side.name].append(rate)
    ours, theirs = (statistics.median(rates[side.name]) for side in (run.engine, server))
    return {"ours": ours, "theirs": theirs, "raw": rates}


def decode_ms(answer: dict) -> float:
    return answer["timings"]["predicted_ms"] / answer["timings"]["predicted_n"]


def lookup(run, rounds: int) -> dict:
    """Decode with guessing over decode without, on a repeated file and on words in no order."""
    text = file_to_repeat(24)
    renamed = text.replace(NAMES[0], NAMES[1])
    tokens = run.engine.must("POST", "/tokenize", {"model": run.name, "content": renamed, "with_pieces": True})["tokens"]
    # Random weights know no words: the form of the answer is given, and longer pieces of it come first.
    bias = {t["id"]: 100 * len(t["piece"]) for t in tokens}
    repeat = {"model": run.name, "temperature": 0, "max_tokens": len(tokens) + 8, "cache_prompt": False,
              "messages": [{"role": "user", "content": f"Repeat this with {NAMES[1]} for {NAMES[0]}.\n{text}"}],
              "grammar": f"root ::= {literal(renamed)}", "logit_bias": [[i, b] for i, b in bias.items()]}
    words = run.engine.must("POST", "/tokenize", {"model": run.name, "content": " Paris Rome Oslo Lima Cairo"})["tokens"]
    prose = {"model": run.name, "temperature": 20, "top_k": 0, "top_p": 1, "min_p": 0, "max_tokens": 256, "seed": 3,
             "cache_prompt": False, "ignore_eos": True, "logit_bias": [[i, 1000] for i in sorted(set(words))],
             "messages": [{"role": "user", "content": "Say some words."}]}
    result = {}
    for name, body in (("repeat", repeat), ("prose", prose)):
        with_, without, counts = [], [], {}
        for turn in range(rounds + 1):
            for draft in ((True, False) if turn % 2 == 0 else (False, True)):
                answer = run.engine.must("POST", "/v1/chat/completions", body | {"draft": draft})
                if turn > 0:
                    (with_ if draft else without).append(decode_ms(answer))
                if draft:
                    counts = {k: answer["timings"].get(k, 0) for k in ("draft_n", "draft_n_accepted", "predicted_n")}
        result[name] = {"ours": 1000 / statistics.median(with_), "plain": 1000 / statistics.median(without), **counts,
                        "raw": {"with": with_, "without": without}}
    return result


def reopened(start_engine, run, rounds: int) -> dict:
    """First token of a saved session of 4k tokens: after a restart, over the same prompt cold."""
    name, cold, warm, reused = run.name, [], [], []
    engine = start_engine()
    try:
        for turn in range(rounds):
            words = " ".join(f"{turn} {w}" for w in range(REOPENED_TOKENS))
            content = fit(engine, name, words)
            body = run.body(content, 4, duet_session=f"bench-{turn}")
            # Loading is measured elsewhere.
            hello = run.body("Hello", 1, cache_prompt=False)
            engine.must("POST", "/v1/chat/completions", hello)
            first = engine.stream(body)
            engine.close()
            engine = start_engine()
            engine.must("POST", "/v1/chat/completions", hello)
            again = engine.stream(body)
            cold.append(first["first"] * 1000)
            warm.append(again["first"] * 1000)
            timings = again["timings"]
            reused.append((timings.get("cache_from"), timings["cache_n"], timings["prompt_n"]))
    finally:
        engine.close()
    return {"cold": statistics.median(cold), "warm": statistics.median(warm), "reused": reused,
            "raw": {"cold": cold, "warm": warm}}


def fit(engine, model: str, text: str) -> str:
    """The beginning of `text` that has about [`REOPENED_TOKENS`] tokens."""
    tokens = len(engine.must("POST", "/tokenize", {"model": model, "content": text})["tokens"])
    return text[:len(text) * REOPENED_TOKENS // max(tokens, REOPENED_TOKENS)]


def switch_back(engine, models: list[Path]) -> dict | None:
    """Load time of an answer by a model that was left for another one and is still resident."""
    if len(models) < 2:
        return None

    def ask(model: Path) -> dict:
        return engine.must("POST", "/v1/chat/completions", {
            "model": str(model), "max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]})["timings"]
    first, other = models[:2]
    loads = [ask(first)["load_ms"], ask(other)["load_ms"]]
    return {"loads": loads, "back": ask(first)["load_ms"]}


def first_thread_seconds(pid: int) -> float | None:
    """CPU time of a process's first thread so far; none where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return None


def process_seconds(pid: int) -> float:
    """CPU time of a process so far, threads that have ended included, in the system's ticks of mostly 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def http_cost(run, tokens: int = 1000) -> dict | None:
    """CPU time of the engine's HTTP thread, which also makes the JSON, per token of a long answer; and that of the
    whole engine while it has nothing to do.
    """
    pid = run.engine.must("GET", "/engine/status")["pid"]
    # The worker's first thread is the HTTP front; models have threads of their own.
    before = first_thread_seconds(pid)
    if before is None:
        return None
    answer = run.engine.stream(run.body("Go on.", tokens, cache_prompt=False, draft=False))
    spent = first_thread_seconds(pid) - before
    # What goes on just after an answer is not idleness.
    time.sleep(IDLE_AFTER)
    idle = process_seconds(pid)
    time.sleep(IDLE_SECONDS)
    return {"tokens": answer["timings"]["predicted_n"], "us": spent / answer["timings"]["predicted_n"] * 1e6,
            "idle_ms": (process_seconds(pid) - idle) * 1000}


def rows(result: dict) -> list[tuple]:
    """Rows of the table for one model: what, ours, peer, ratio, target, whether it is met."""
    out = []
    if four := result.get("four"):
        ratio = four["ours"] / four["theirs"]
        out.append((f"{STREAMS} answers at once, tok/s", f"{four['ours']:.1f}", f"{four['theirs']:.1f} llama-server -np {STREAMS}",
                    ratio, f"≥ {TOTAL_TARGET:.1f} (-{TOTAL_NOISE} noise)", ratio >= TOTAL_TARGET - TOTAL_NOISE))
    if again := result.get("reopened"):
        ratio = again["warm"] / again["cold"]
        is_used = all(place == "disk" and new < 64 for place, _, new in again["reused"])
        out.append((f"reopened session of {again['reused'][0][1]} tokens, ms to the first", f"{again['warm']:.1f}",
                    f"{again['cold']:.1f} cold", ratio, f"≤ {REOPENED_TARGET}", ratio <= REOPENED_TARGET and is_used))
    for key, what, target in (("repeat", "file repeated with a name changed, tok/s", REPEAT_TARGET),
                              ("prose", "words in no order, tok/s", PROSE_TARGET)):
        if pair := result.get("lookup", {}).get(key):
            ratio = pair["ours"] / pair["plain"]
            what = f"{what} (draft {pair['draft_n_accepted']}/{pair['draft_n']})"
            out.append((what, f"{pair['ours']:.1f}", f"{pair['plain']:.1f} without guessing", ratio, f"≥ {target}",
                        ratio >= target))
    if cost := result.get("http"):
        out.append((f"HTTP and JSON, µs of CPU per token ({cost['tokens']} tokens)", f"{cost['us']:.1f}", "–", None,
                    f"< {HTTP_TARGET_US:.0f}", cost["us"] < HTTP_TARGET_US))
        out.append((f"idle engine, ms of CPU in {IDLE_SECONDS} s", f"{cost['idle_ms']:.0f}", "–", None,
                    f"≤ {IDLE_TARGET_MS:.0f} (one tick)", cost["idle_ms"] <= IDLE_TARGET_MS))
    return out
