//! Tests of the plan: tables of cases, and properties over random ones.

use super::*;
use pretty_assertions::assert_eq;
use proptest::prelude::*;

fn holder(id: &str, bytes: &[u64], standing: Standing, load_ms: f64) -> Holder {
    Holder { id: id.to_owned(), bytes: bytes.to_vec(), standing, load_ms }
}

fn idle(id: &str, bytes: u64, for_s: f64, load_ms: f64) -> Holder {
    holder(id, &[bytes], Standing::Idle { for_s }, load_ms)
}

fn leave(ids: &[&str]) -> Room {
    Room::IfUnloaded(ids.iter().map(|id| (*id).to_owned()).collect())
}

#[test]
fn who_leaves() {
    let busy = |standing| vec![holder("a", &[60], standing, 1000.0), idle("b", 30, 100.0, 1000.0)];
    let cases: Vec<(&str, u64, Vec<Holder>, u64, Room)> = vec![
        ("nobody is there", 100, vec![], 100, Room::Free),
        ("there is room beside the others", 100, vec![idle("a", 60, 9.0, 1.0)], 40, Room::Free),
        ("one byte more, and it leaves", 100, vec![idle("a", 60, 9.0, 1.0)], 41, leave(&["a"])),
        ("larger than everything", 100, vec![idle("a", 60, 9.0, 1.0)], 101, Room::None),
        (
            "the one idle longest",
            100,
            vec![idle("a", 50, 10.0, 1000.0), idle("b", 50, 90.0, 1000.0)],
            50,
            leave(&["b"]),
        ),
        (
            "the one that loads fastest",
            100,
            vec![idle("a", 50, 60.0, 30_000.0), idle("b", 50, 60.0, 400.0)],
            50,
            leave(&["b"]),
        ),
        (
            "idle time over reload cost, not either alone",
            100,
            vec![idle("a", 50, 600.0, 60_000.0), idle("b", 50, 100.0, 1000.0)],
            50,
            leave(&["b"]),
        ),
        (
            "one that suffices before several with a better score",
            100,
            vec![idle("a", 20, 900.0, 1.0), idle("b", 20, 800.0, 1.0), idle("c", 60, 1.0, 9000.0)],
            50,
            leave(&["c"]),
        ),
        (
            "several where one is not enough",
            100,
            vec![idle("a", 40, 900.0, 1.0), idle("b", 40, 800.0, 1.0), idle("c", 20, 700.0, 1.0)],
            80,
            leave(&["a", "b"]),
        ),
        (
            "none that turns out to be needless",
            100,
            vec![idle("a", 10, 900.0, 1.0), idle("b", 40, 800.0, 1.0), idle("c", 50, 700.0, 1.0)],
            90,
            leave(&["b", "c"]),
        ),
        ("never a running one", 100, busy(Standing::Running(1)), 50, Room::None),
        ("never a pinned one", 100, busy(Standing::Pinned), 50, Room::None),
        ("never one just warmed", 100, busy(Standing::Warmed { left_s: 1.0 }), 50, Room::None),
        ("one that leaves still holds its memory", 100, busy(Standing::Leaving), 50, Room::None),
        ("but the idle one beside it", 100, busy(Standing::Pinned), 40, leave(&["b"])),
    ];
    for (what, budget, holders, need, expected) in cases {
        assert_eq!(room(&[budget], &holders, &[need]), expected, "{what}");
    }
}

#[test]
fn every_device_counts() {
    let holders = vec![
        holder("a", &[10, 70], Standing::Idle { for_s: 900.0 }, 100.0),
        holder("b", &[70, 0], Standing::Idle { for_s: 1.0 }, 100.0),
    ];
    // The first is the better victim, but it is the second that has the memory of the first device.
    assert_eq!(room(&[100, 100], &holders, &[50, 20]), leave(&["b"]));
    assert_eq!(room(&[100, 100], &holders, &[20, 50]), leave(&["a"]));
    assert_eq!(room(&[100, 100], &holders, &[50, 50]), leave(&["a", "b"]));
    assert_eq!(room(&[100, 100], &holders, &[0, 101]), Room::None);
}

#[test]
fn a_budget_that_is_overdrawn_refuses_politely() {
    let holders = [holder("a", &[500], Standing::Pinned, 1.0)];
    assert_eq!(room(&[100], &holders, &[1]), Room::None);
    assert_eq!(room(&[100], &holders, &[0]), Room::Free);
}

fn newcomer<'a>(context: u32, need: &'a dyn Fn(u32) -> Vec<u64>) -> Newcomer<'a> {
    Newcomer { context, need, with_layers: None, layers: 33, slowdown: &|_| 1.0 }
}

#[test]
fn verdicts() {
    // 1000 of weights and 1 per token.
    let need = |context: u32| vec![1000 + u64::from(context)];
    let at = |budget: u64, holders: &[Holder]| decide(&[budget], holders, &newcomer(8192, &need));
    assert_eq!(at(9192, &[]), Verdict::Fits);
    assert_eq!(at(9191, &[]), Verdict::SmallerContext { context: 7936, unload: vec![] });
    assert_eq!(at(1512, &[]), Verdict::SmallerContext { context: 512, unload: vec![] });
    assert_eq!(at(1511, &[]), Verdict::DoesNotFit);
    let idle = [idle("b", 500, 9.0, 1.0)];
    assert_eq!(at(9500, &idle), Verdict::IfUnloaded(vec!["b".to_owned()]));
    // The largest context wins, and what has to leave for it is named.
    assert_eq!(at(2000, &idle), Verdict::SmallerContext { context: 768, unload: vec!["b".to_owned()] });
    let pinned = [holder("b", &[500], Standing::Pinned, 1.0)];
    assert_eq!(at(9500, &pinned), Verdict::SmallerContext { context: 7936, unload: vec![] });
    assert_eq!(at(1600, &pinned), Verdict::DoesNotFit);
}

#[test]
fn a_part_goes_to_the_accelerator_where_all_does_not_fit() {
    // 33 layers of 10 bytes and as much context as there are tokens, on the card as far as the layers are.
    let with = |layers: u32| vec![u64::from(33 - layers) * 10, u64::from(layers) * 10 + 100];
    let need = |context: u32| vec![0, 330 + u64::from(context) / 80];
    let slowdown = |layers: u32| f64::from(33 - layers) + 1.0;
    let ask =
        Newcomer { context: 8000, need: &need, with_layers: Some(&with), layers: 33, slowdown: &slowdown };
    assert_eq!(decide(&[1000, 430], &[], &ask), Verdict::Fits);
    assert_eq!(
        decide(&[1000, 300], &[], &ask),
        Verdict::Partial { gpu_layers: 20, slowdown: 14.0, unload: vec![] }
    );
    let holders = [holder("b", &[0, 100], Standing::Idle { for_s: 5.0 }, 1.0)];
    assert_eq!(
        decide(&[1000, 300], &holders, &ask),
        Verdict::Partial { gpu_layers: 20, slowdown: 14.0, unload: vec!["b".to_owned()] }
    );
    assert_eq!(decide(&[10, 105], &[], &ask), Verdict::DoesNotFit);
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        4 => (0.0..1e6).prop_map(|for_s| Standing::Idle { for_s }),
        1 => (1_usize..4).prop_map(Standing::Running),
        1 => Just(Standing::Pinned),
        1 => (0.0..60.0).prop_map(|left_s| Standing::Warmed { left_s }),
        1 => Just(Standing::Leaving),
    ]
}

fn holders() -> impl Strategy<Value = Vec<Holder>> {
    let one = (prop::collection::vec(0_u64..1000, 2), standing(), 0.0..1e5);
    prop::collection::vec(one, 0..7).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(i, (bytes, standing, load_ms))| holder(&format!("m{i}"), &bytes, standing, load_ms))
            .collect()
    })
}

proptest! {
    #[test]
    fn only_idle_ones_leave_they_suffice_and_none_is_needless(
        holders in holders(),
        budgets in prop::collection::vec(0_u64..3000, 2),
        need in prop::collection::vec(0_u64..3000, 2),
    ) {
        let without = |ids: &[String]| {
            let rest: Vec<&Holder> = holders.iter().filter(|h| !ids.contains(&h.id)).collect();
            fits(&budgets, &rest, &need)
        };
        let idle: Vec<String> =
            holders.iter().filter(|h| h.idle_s().is_some()).map(|h| h.id.clone()).collect();
        match room(&budgets, &holders, &need) {
            Room::Free => prop_assert!(without(&[])),
            Room::None => prop_assert!(!without(&idle)),
            Room::IfUnloaded(ids) => {
                prop_assert!(!ids.is_empty() && !without(&[]) && without(&ids));
                prop_assert!(ids.iter().all(|id| idle.contains(id)), "{ids:?} are not all idle");
                if ids.len() > 1 {
                    prop_assert!(!idle.iter().any(|one| without(std::slice::from_ref(one))), "one would do");
                    for kept in &ids {
                        let fewer: Vec<String> = ids.iter().filter(|id| *id != kept).cloned().collect();
                        prop_assert!(!without(&fewer), "{kept} is needless");
                    }
                }
            }
        }
    }

    #[test]
    fn a_smaller_context_that_is_offered_fits_and_the_next_larger_does_not(
        holders in holders(),
        budget in 0_u64..40_000,
        context in 256_u32..20_000,
    ) {
        let need = |context: u32| vec![1000 + u64::from(context), 0];
        if let Verdict::SmallerContext { context: offered, unload } =
            decide(&[budget, 0], &holders, &newcomer(context, &need))
        {
            prop_assert!(offered < context && offered >= SMALLEST_CONTEXT);
            let rest: Vec<&Holder> = holders.iter().filter(|h| !unload.contains(&h.id)).collect();
            prop_assert!(fits(&[budget, 0], &rest, &need(offered)));
            let next = (offered + 256).min(context);
            prop_assert_eq!(room(&[budget, 0], &holders, &need(next)), Room::None);
        }
    }

    #[test]
    fn absurd_numbers_do_not_overflow(bytes in any::<u64>(), budget in any::<u64>(), need in any::<u64>()) {
        let holders = [idle("a", bytes, f64::MAX, 0.0), idle("b", bytes, 0.0, f64::INFINITY)];
        let _ = room(&[budget], &holders, &[need]);
        let _ = decide(&[budget], &holders, &newcomer(u32::MAX, &|_| vec![need]));
    }
}
