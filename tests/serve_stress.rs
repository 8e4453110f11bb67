//! Sixteen clients that ask, go away in the middle, or hang up without a word, for some seconds: no wrong
//! answer, no slot that stays taken, and the memory comes back.
//!
//! `DUET_STRESS_SECONDS=120 cargo test --test serve_stress` for longer.
#![cfg(feature = "local")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "support/serve.rs"]
mod support;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{Server, TOKEN, answers, asking, kill, request, wait_until};

const CLIENTS: u64 = 16;

/// Random numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

fn pairs() -> Vec<(String, String)> {
    let known = answers();
    let all = known["builtin"]["pairs"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    all.filter(|pair| pair["system"].is_null()).map(|p| (text(&p["prompt"]), text(&p["answer"]))).collect()
}

fn send(server: &Server, body: &Value) -> BufReader<TcpStream> {
    let token = format!("Bearer {TOKEN}");
    let body = body.to_string();
    let bytes = request("POST", "/v1/chat/completions", &[("authorization", &token)], body.as_bytes());
    let mut stream = server.connect();
    stream.write_all(&bytes).unwrap();
    BufReader::new(stream)
}

/// The text of a stream that has come whole; none when it was cut or refused.
fn whole(text: &str) -> Option<String> {
    let mut answer = String::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if line == "[DONE]" {
            return Some(answer);
        }
        let chunk: Value = serde_json::from_str(line).ok()?;
        answer.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    None
}

/// Removes the lines that only say how long the next piece is.
fn dechunked(text: &str) -> String {
    text.replace("\r\n", "\n")
}

struct Counts {
    right: AtomicUsize,
    gone: AtomicUsize,
    refused: AtomicUsize,
}

fn client(server: &Server, seed: u64, until: Instant, pairs: &[(String, String)], counts: &Counts) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    while Instant::now() < until {
        let (prompt, expected) = &pairs[dice.roll(pairs.len())];
        let is_stream = dice.roll(2) == 0;
        let mut stream = send(server, &asking(prompt, &json!({"stream": is_stream})));
        match dice.roll(4) {
            // Goes away at once, or after some of the answer.
            0 => {
                let mut some = vec![0; dice.roll(400)];
                let _ = stream.read_exact(&mut some);
                counts.gone.fetch_add(1, Ordering::Relaxed);
            }
            // Hangs up without a word.
            1 => {
                let mut line = String::new();
                for _ in 0..dice.roll(12) {
                    let _ = stream.read_line(&mut line);
                }
                let socket = stream.into_inner();
                rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
                counts.gone.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                if text.starts_with("HTTP/1.1 429") {
                    counts.refused.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                assert!(text.starts_with("HTTP/1.1 200"), "{text}");
                let answer = if is_stream {
                    whole(&dechunked(&text)).unwrap_or_else(|| panic!("cut: {text}"))
                } else {
                    let body = text.split("\r\n\r\n").nth(1).unwrap();
                    let body: Value = serde_json::from_str(body).unwrap();
                    body["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
                };
                assert_eq!(&answer, expected, "{prompt}");
                counts.right.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn storm(server: &Server, seconds: u64, seed: u64) -> Counts {
    let counts =
        Counts { right: AtomicUsize::new(0), gone: AtomicUsize::new(0), refused: AtomicUsize::new(0) };
    let pairs = pairs();
    let until = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (counts, pairs) = (&counts, &pairs);
            scope.spawn(move || client(server, seed + n, until, pairs, counts));
        }
    });
    counts
}

fn wait_until_idle(server: &Server) {
    wait_until("no slot is taken", || {
        let status = server.get("/engine/status");
        let models = status["models"].as_array().unwrap();
        status["queue"] == 0 && models.iter().all(|m| m["slots_used"] == 0 && m["queued"] == 0)
    });
}

/// Bytes resident, where the system tells.
fn resident(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    text.split(' ').nth(1)?.parse::<u64>().ok().map(|pages| pages * 4096)
}

#[test]
fn sixteen_clients_that_come_and_go() {
    let seconds = std::env::var("DUET_STRESS_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(8);
    let server = Server::start();
    // Everything that is kept for good is there after this.
    storm(&server, 3, 1000);
    wait_until_idle(&server);
    let worker = server.worker();
    let before = resident(worker);
    let counts = storm(&server, seconds, 1);
    wait_until_idle(&server);
    let count = |n: &AtomicUsize| n.load(Ordering::Relaxed);
    assert!(count(&counts.right) > 50 && count(&counts.gone) > 50, "it did nothing");
    assert_eq!(server.worker(), worker, "nothing died");
    if let (Some(before), Some(after)) = (before, resident(worker)) {
        println!(
            "{seconds} s: {} right, {} gone, {} refused; resident {} KiB, then {} KiB",
            count(&counts.right),
            count(&counts.gone),
            count(&counts.refused),
            before / 1024,
            after / 1024
        );
        assert!(after as f64 <= before as f64 * 1.05, "resident {before} bytes, then {after}");
    }
    for (prompt, answer) in pairs().iter().take(8) {
        assert_eq!(&server.answer(prompt), answer);
    }
}

#[test]
fn a_worker_killed_under_load_gives_no_half_answers() {
    let server = Server::start();
    assert_eq!(server.answer("Hello"), "Hello! How can I help you today?");
    let (pairs, worker) = (pairs(), server.worker());
    let (pairs, is_dead) = (&pairs, &std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        for n in 0..8_u64 {
            let server = &server;
            scope.spawn(move || {
                let mut dice = Dice(n + 77);
                let mut lost = 0;
                // Until some answers after the death have come.
                while lost < 2 && !is_dead.load(Ordering::Relaxed) {
                    let (prompt, expected) = &pairs[dice.roll(pairs.len())];
                    let mut text = String::new();
                    let _ = send(server, &asking(prompt, &json!({"stream": true}))).read_to_string(&mut text);
                    match whole(&dechunked(&text)) {
                        Some(answer) => assert_eq!(&answer, expected),
                        None => lost += 1,
                    }
                }
            });
        }
        kill(worker, "KILL");
        wait_until("it is told", || server.told().contains("SIGKILL"));
        is_dead.store(true, Ordering::Relaxed);
    });
    wait_until_idle(&server);
    for (prompt, answer) in pairs.iter().take(8) {
        assert_eq!(&server.answer(prompt), answer);
    }
}
