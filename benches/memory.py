"""How well the engine knows what a model takes before it loads it, against what the load allocates.

    memory.py --tui target/release/tui [--contexts 2048,8192,32768] [--max-gib 8] [--work FOLDER] [MODEL.gguf…]

Without models, every shape of make_shape.py up to `--max-gib` is generated, measured and removed again. For each
model and context: the dry run (`tui engine probe`), a real load, and the difference between the two. Exits 1 when one
is more than 5 % and more than 64 MiB off. Needs what make_shape.py needs to generate; else the standard library only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from engine import Server

MIB = 1 << 20
TARGET_SHARE, TARGET_BYTES = 0.05, 64 * MIB
# Weights of the shapes in q4_k, roughly, to know what fits before it is written.
SHAPES_GIB = {"tiny-60m": 0.1, "half-b": 0.4, "one-b": 0.8, "three-b": 2, "llama-8b": 5, "qwen-14b": 9,
              "qwen-32b": 20, "llama-70b": 42}
PARTS = ("weights", "kv", "compute")


def probe(tui: Path, model: Path, context: int, env: dict) -> tuple[dict, float]:
    began = time.perf_counter()
    out = subprocess.run([tui, "engine", "probe", model, "--measure", "--context", str(context)],
                         env=os.environ | env, capture_output=True, text=True)
    took = time.perf_counter() - began
    if out.returncode != 0:
        sys.exit(f"{model.name}: the dry run failed: {out.stderr.strip()[-500:]}")
    measured = json.loads(out.stdout)
    if not measured:
        sys.exit(f"{model.name}: the dry run has no result: {out.stderr.strip()[-500:]}")
    shares = measured["footprint"]["shares"]
    return {part: sum(share[part] for share in shares) for part in PARTS}, took


def load(tui: Path, model: Path, context: int, home: Path) -> tuple[dict, dict]:
    """What a load allocated and the engine's estimate by formula, from an engine of its own."""
    env = {"HOME": str(home)} | {f"DUET_{name}_DIR": str(home / name.lower())
                                 for name in ("CONFIG", "DATA", "CACHE", "RUNTIME")}
    (home / "config").mkdir(parents=True, exist_ok=True)
    # The budget is not what is measured.
    (home / "config/config.toml").write_text(f'[engine]\ncontext = {context}\nmemory = "64TiB"\n')
    server = Server("engine", [str(tui), "engine", "run"], str(home / "runtime/engine.sock"),
                    home / "engine.log", env)
    try:
        # A path that was asked for is listed from then on.
        server.must("POST", "/tokenize", {"model": str(model), "content": "x"})
        listed = next(m for m in server.must("GET", "/v1/models")["data"] if m["path"] == str(model))
        formula = listed["duet"]["bytes"]
        server.must("POST", "/models/load", {"model": str(model)})
        limit = time.monotonic() + 600
        while time.monotonic() < limit:
            for resident in server.must("GET", "/engine/status")["models"]:
                if resident["path"] == str(model):
                    return {part: resident["bytes"][part] for part in PARTS}, formula
            time.sleep(0.1)
        sys.exit(f"{model.name}: not resident after ten minutes")
    finally:
        server.close()


def rows(tui: Path, model: Path, contexts: list[int]):
    for context in contexts:
        with tempfile.TemporaryDirectory(prefix="duet-memory-") as folder:
            home = Path(folder)
            env = {"HOME": folder, "DUET_CONFIG_DIR": folder, "DUET_CACHE_DIR": folder,
                   "DUET_DATA_DIR": folder, "DUET_RUNTIME_DIR": folder}
            estimate, took = probe(tui, model, context, env)
            real, formula = load(tui, model, context, home / "h")
        total, allocated = sum(estimate.values()), sum(real.values())
        off = total - allocated
        is_good = abs(off) <= max(TARGET_SHARE * allocated, TARGET_BYTES)
        yield {"model": model.stem, "context": context, "estimate": total, "allocated": allocated,
               "off": off, "share": off / allocated, "formula": sum(v or 0 for v in formula.values()),
               "seconds": took, "good": is_good}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--tui", type=Path, required=True)
    parser.add_argument("--contexts", default="2048,8192,32768")
    parser.add_argument("--max-gib", type=float, default=8)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, help="folder for memory.json and memory.md")
    args = parser.parse_args()
    tui, contexts = args.tui.resolve(), [int(n) for n in args.contexts.split(",")]
    all_rows = []

    def measure(model: Path):
        for row in rows(tui, model.resolve(), contexts):
            all_rows.append(row)
            print(f"{row['model']:<12} {row['context']:>6}  dry run {row['estimate'] / MIB:9.1f} MiB  allocated "
                  f"{row['allocated'] / MIB:9.1f} MiB  off {row['off'] / MIB:+7.1f} MiB ({100 * row['share']:+.1f} %)  "
                  f"formula {row['formula'] / MIB:9.1f} MiB  in {row['seconds']:.2f} s"
                  f"{'' if row['good'] else '  MISSED'}", flush=True)

    for model in args.models:
        measure(model)
    if not args.models:
        for shape, gib in SHAPES_GIB.items():
            if gib > args.max_gib:
                print(f"{shape:<12} skipped: about {gib} GiB, --max-gib is {args.max_gib:g}")
                continue
            with tempfile.TemporaryDirectory(prefix="duet-shape-", dir=args.work) as folder:
                model = Path(folder) / f"{shape}.gguf"
                script = Path(__file__).with_name("make_shape.py")
                subprocess.run([sys.executable, script, model, "--shape", shape], check=True)
                measure(model)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "memory.json").write_text(json.dumps(all_rows, indent=1))
        lines = ["| model | context | dry run | allocated | off | formula |", "|---|---|---|---|---|---|"]
        lines += [f"| {r['model']} | {r['context']} | {r['estimate'] / MIB:.1f} MiB | {r['allocated'] / MIB:.1f} MiB | "
                  f"{100 * r['share']:+.1f} % | {r['formula'] / MIB:.1f} MiB |" for r in all_rows]
        (args.out / "memory.md").write_text("\n".join(lines) + "\n")
    sys.exit(0 if all(row["good"] for row in all_rows) else 1)


if __name__ == "__main__":
    main()
