//! Who gets how much of a batch. Pure.

/// Shares `budget` tokens among prompts that have `left` tokens each to go: all the same, and what a short
/// one does not need goes to the others. What can't be divided goes round, beginning with number `first`.
#[must_use]
pub fn share(budget: usize, left: &[usize], first: usize) -> Vec<usize> {
    let mut given = vec![0; left.len()];
    let mut budget = budget.min(left.iter().sum());
    while budget > 0 {
        let hungry = left.iter().zip(&given).filter(|(left, given)| given < left).count();
        let each = budget / hungry.max(1);
        let turns = left.len();
        for at in (0..turns).map(|i| (first + i) % turns) {
            if let (Some(left), Some(given)) = (left.get(at), given.get_mut(at)) {
                let more = (*left - *given).min(each.max(1)).min(budget);
                *given += more;
                budget -= more;
            }
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn alone_all_of_it() {
        assert_eq!(share(512, &[8000], 0), [512]);
        assert_eq!(share(512, &[100], 0), [100]);
        assert_eq!(share(512, &[], 3), [0; 0]);
    }

    #[test]
    fn a_short_prompt_is_done_beside_a_long_one() {
        assert_eq!(share(256, &[8000, 40, 8000], 0), [108, 40, 108]);
        assert_eq!(share(2, &[10, 10, 10], 1), [0, 1, 1]);
        assert_eq!(share(2, &[10, 10, 10], 2), [1, 0, 1]);
    }

    /// Rounds until a prompt is evaluated, with these others beside it.
    fn rounds(mut left: Vec<usize>, which: usize, budget: usize) -> usize {
        for round in 1.. {
            let shares = share(budget, &left, round);
            left.iter_mut().zip(shares).for_each(|(left, given)| *left -= given);
            if left[which] == 0 {
                return round;
            }
        }
        unreachable!()
    }

    #[test]
    fn who_comes_later_does_not_wait_for_the_long_ones_before() {
        let alone = rounds(vec![512], 0, 256);
        let beside_two = rounds(vec![100_000, 100_000, 512], 2, 256);
        assert!(beside_two <= 3 * alone + 1, "{beside_two} rounds");
    }

    proptest! {
        #[test]
        fn nothing_is_wasted_and_nobody_gets_more_than_a_hungry_one(
            budget in 0_usize..600, left in prop::collection::vec(0_usize..400, 0..6), first in any::<u8>(),
        ) {
            let given = share(budget, &left, usize::from(first));
            prop_assert_eq!(given.iter().sum::<usize>(), budget.min(left.iter().sum()));
            let least_hungry = left.iter().zip(&given).filter(|(l, g)| g < l).map(|(_, g)| *g).min();
            for (left, given) in left.iter().zip(&given) {
                prop_assert!(given <= left);
                prop_assert!(least_hungry.is_none_or(|least| *given <= least + 1));
            }
        }
    }
}
