"""What the engine does with several conversations: four at once, one reopened after a restart, one that repeats
its prompt, one that goes back to a model it has left. Used by `engine.py`. Standard library only.
"""

import os
import statistics
import sys
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
# Words of the text that is repeated, and how often one differs from the prompt: code has a name this often.
REPEATED_WORDS, CHANGED, NAME = 256, 40, " total"
HTTP_ANSWERS, HTTP_TOKENS = 5, 200


class Pairs:
    """What two sides measured in pairs."""

    def __init__(self, ours: list[float], theirs: list[float]):
        self.raw = [ours, theirs]
        self.ours, self.theirs = statistics.median(ours), statistics.median(theirs)
        self.ratios = [a / b for a, b in zip(ours, theirs)]
        self.ratio = statistics.median(self.ratios)

    def spread(self) -> str:
        if len(self.ratios) < 4:
            return ""
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return f"{low:.3f}–{high:.3f}"


def pairs(rounds: int, ours, theirs) -> tuple[list, list]:
    """Both sides, one right after the other; who is first changes."""
    a, b = [], []
    for turn in range(rounds):
        for side, out in ((ours, a), (theirs, b)) if turn % 2 == 0 else ((theirs, b), (ours, a)):
            out.append(side(turn))
    return a, b


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


def four_at_once(run, server, rounds: int) -> Pairs:
    """Four answers at once from both. Nothing is guessed on either side."""
    def ask(side, turn: int) -> float:
        return at_once(side, [run.body(f"{word}, number {turn}.", STREAM_TOKENS, cache_prompt=False)
                              for word in ("Paris", "Rome", "Oslo", "Lima")[:STREAMS]])
    for side in (run.engine, server):
        ask(side, rounds)
    return Pairs(*pairs(rounds, lambda turn: ask(run.engine, turn), lambda turn: ask(server, turn)))


def decode_rate(answer: dict) -> float:
    return answer["timings"]["predicted_n"] / answer["timings"]["predicted_ms"] * 1000


def lookup(run, rounds: int) -> dict:
    """Decode with guessing over decode without, on a text that is repeated with changes and on words in no order."""
    def ask(body: dict) -> dict:
        return run.engine.must("POST", "/v1/chat/completions", {"model": run.name, "cache_prompt": False} | body)

    def content(answer: dict) -> str:
        return answer["choices"][0]["message"]["content"]
    text = content(ask(run.body("Go on.", REPEATED_WORDS)))
    # Each word is a token; the space before it is part of it.
    words = [f" {word}" for word in text.split()]
    for i in range(CHANGED // 2, len(words), CHANGED):
        words[i] = NAME
    repeat = run.body(f"Repeat this without {NAME.strip()}:\n{''.join(words)}", REPEATED_WORDS)
    tokens = run.engine.must("POST", "/tokenize", {"model": run.name, "content": " Paris Rome Oslo Lima Cairo"})["tokens"]
    some = sorted(set(tokens))
    prose = run.body("Say some words.", REPEATED_WORDS, temperature=20, top_k=len(some), top_p=1, min_p=0, seed=3,
                     logit_bias=[[i, 1000] for i in some])
    result = {}
    for name, body in (("repeat", repeat), ("prose", prose)):
        guessed, plain = ask(body | {"draft": True}), ask(body | {"draft": False})
        if content(guessed) != content(plain) or (name == "repeat" and content(plain) != text):
            sys.exit(f"engine: {name}: another answer with guessing than without:\n{content(guessed)}\n{content(plain)}")
        sides = [lambda turn, draft=draft: decode_rate(ask(body | {"draft": draft})) for draft in (True, False)]
        result[name] = {"pairs": Pairs(*pairs(rounds, *sides)),
                        **{key: guessed["timings"].get(key, 0) for key in ("draft_n", "draft_n_accepted")}}
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
    return {"pairs": Pairs(warm, cold), "reused": reused}


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


def http_cost(run) -> dict | None:
    """CPU time of the engine's HTTP thread, which also makes the JSON, per token of an answer; and that of the whole
    engine while it has nothing to do.
    """
    pid = run.engine.must("GET", "/engine/status")["pid"]
    # The worker's first thread is the HTTP front; models have threads of their own.
    if first_thread_seconds(pid) is None:
        return None
    per_token, per_piece = [], []
    for _ in range(HTTP_ANSWERS):
        before = first_thread_seconds(pid)
        answer = run.engine.stream(run.body("Go on.", HTTP_TOKENS, cache_prompt=False))
        spent = (first_thread_seconds(pid) - before) * 1e6
        per_token.append(spent / answer["timings"]["predicted_n"])
        per_piece.append(spent / answer["texts"])
    # What goes on just after an answer is not idleness.
    time.sleep(IDLE_AFTER)
    idle = process_seconds(pid)
    time.sleep(IDLE_SECONDS)
    return {"us": statistics.median(per_token), "piece_us": statistics.median(per_piece),
            "idle_ms": (process_seconds(pid) - idle) * 1000}


def rows(result: dict) -> list[tuple]:
    """Rows of the table for one model: what, ours, peer, pairs, target, whether it is met."""
    out = []
    if four := result.get("four"):
        out.append((f"{STREAMS} answers at once, tok/s", f"{four.ours:.1f}", f"{four.theirs:.1f} llama-server -np {STREAMS}",
                    four, f"≥ {TOTAL_TARGET:.1f} (-{TOTAL_NOISE} noise)", four.ratio >= TOTAL_TARGET - TOTAL_NOISE))
    if again := result.get("reopened"):
        pair = again["pairs"]
        is_used = all(place == "disk" and new < 64 for place, _, new in again["reused"])
        out.append((f"reopened session of {again['reused'][0][1]} tokens, ms to the first", f"{pair.ours:.1f}",
                    f"{pair.theirs:.1f} cold", pair, f"≤ {REOPENED_TARGET}", pair.ratio <= REOPENED_TARGET and is_used))
    for key, what, target in (("repeat", "text repeated with a name changed, tok/s", REPEAT_TARGET),
                              ("prose", "words in no order, tok/s", PROSE_TARGET)):
        if measured := result.get("lookup", {}).get(key):
            pair = measured["pairs"]
            what = f"{what} (draft {measured['draft_n_accepted']}/{measured['draft_n']})"
            out.append((what, f"{pair.ours:.1f}", f"{pair.theirs:.1f} without guessing", pair, f"≥ {target}",
                        pair.ratio >= target))
    if cost := result.get("http"):
        out.append((f"HTTP and JSON, µs of CPU per token ({cost['piece_us']:.0f} per piece of text)", f"{cost['us']:.1f}",
                    "–", None, f"< {HTTP_TARGET_US:.0f}", cost["us"] < HTTP_TARGET_US))
        out.append((f"idle engine, ms of CPU in {IDLE_SECONDS} s", f"{cost['idle_ms']:.0f}", "–", None,
                    f"≤ {IDLE_TARGET_MS:.0f} (one tick)", cost["idle_ms"] <= IDLE_TARGET_MS))
    return out
