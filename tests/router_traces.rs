//! The router against fixed rules, a flat latency average, least connections, and somebody who knows the future, on
//! simulated days. Everything is counted, nothing is timed.
#![expect(clippy::expect_used, reason = "a simulation that can't go on has failed")]

#[path = "support/traces.rs"]
mod traces;

#[test]
fn the_router_is_near_the_best_and_better_than_the_others() {
    let lines = traces::table();
    let all = lines.last().expect("all together");
    let ((_, ours), others) = all.days.split_first().expect("everybody");
    assert!(all.regret(ours) < 10.0, "{}", traces::markdown(&lines));
    for (name, other) in others {
        assert!(ours.total < 0.95 * other.total, "{name}\n{}", traces::markdown(&lines));
    }
    for line in &lines {
        // On none of them it is far off.
        assert!(line.regret(&line.days[0].1) < 20.0, "{}\n{}", line.trace, traces::markdown(&lines));
    }
}
