//! The router against fixed rules, a flat latency average, least connections, and somebody who knows the future, on
//! simulated days. Everything is counted, nothing is timed.
#![expect(clippy::print_stdout, reason = "the table tells what failed")]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a simulation that can't go on has failed")]

#[path = "support/traces.rs"]
mod traces;

#[test]
fn the_router_is_near_the_best_and_better_than_the_others() {
    let lines = traces::table();
    for line in &lines {
        let told = line.days.map(|(name, day)| {
            format!(
                "{name} {:.0} s (+{:.1} %, {} moves, {} failures)",
                day.total,
                (day.total / line.oracle - 1.0) * 100.0,
                day.moves,
                day.failures
            )
        });
        println!("{}: best {:.0} s; {}", line.trace, line.oracle, told.join("; "));
    }
    let all = lines.last().expect("all together");
    let (_, ours) = all.days[0];
    assert!(ours.total < 1.1 * all.oracle, "regret {:.1} %", (ours.total / all.oracle - 1.0) * 100.0);
    for line in &lines {
        let (_, ours) = line.days[0];
        for (name, other) in &line.days[1..] {
            assert!(
                ours.total < other.total,
                "{}: {name} took {:.0} s, ours {:.0} s",
                line.trace,
                other.total,
                ours.total
            );
        }
    }
}
